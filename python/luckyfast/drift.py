"""How popularity drifts: what is bought more, or less, in one stretch of the training time than in the others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luckyfast.models.network import Network

__all__ = ["Drift"]


class Drift(nn.Module):
    """An offset of every action's logit in each period, for the time of training alone.

    Much that a network sees tells the date in disguise: nobody has a long history early in a log. Without offsets it
    would learn what was in fashion with long histories, as if these were the reason, and go on with it when the
    fashion is over. With them, what is particular to a period stays with the period; the mean over periods is what
    :meth:`settle` leaves in the network, and all that predictions ever see. (Econometrics calls them time fixed
    effects.)

    Args:
        n_periods: equal stretches that the training time is cut into.
        network: whose training it is.

    Example:
        >>> from types import SimpleNamespace
        >>> drift = Drift(4, SimpleNamespace(prior=torch.zeros(10)))
        >>> drift.periods(np.array([0.0, 0.3, 1.0])).tolist()
        [0, 1, 3]
    """

    def __init__(self, n_periods: int, network: Network) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_periods, len(network.prior)))

    def periods(self, ages: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the periods of visits.

        Args:
            ages: float64 [n], from 0 at the end of the training time to 1 at its beginning.

        Returns:
            int64 [n], 0 for the last period.
        """
        return np.minimum(ages * len(self.logits), len(self.logits) - 1).astype(np.int64)

    def forward(self, periods: Tensor) -> Tensor:
        """Offsets of the logits in periods int64 [n], float32 [n, n_actions]."""
        return self.logits.index_select(0, periods)

    @torch.no_grad()
    def settle(self, network: Network, shares: NDArray[np.float64]) -> None:
        """Leave the mean of the offsets in a network.

        Args:
            network: what is trained with these offsets.
            shares: float64 [n_periods], the weight of each period.
        """
        network.calendar.bias.add_(torch.from_numpy(shares).to(self.logits) @ self.logits)
