"""What trends add to the logits of all actions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from luckyfast.trend import Trend

__all__ = ["TrendResidual"]


class TrendResidual(nn.Module):
    """Weigh trends: ``sum_h (w_h + d_ah) trend_ha``, with weights shared by all actions and an offset of them each.

    Args:
        trend: what was measured.
    """

    def __init__(self, trend: Trend) -> None:
        super().__init__()
        self.values: Tensor
        self.register_buffer("values", torch.from_numpy(trend.values), persistent=False)
        n_half_lives, _, n_actions = trend.values.shape
        self.shared = nn.Parameter(torch.zeros(n_half_lives))
        self.per_action = nn.Parameter(torch.zeros(n_half_lives, n_actions))

    def forward(self, rows: NDArray[np.int64]) -> Tensor:
        """What to add to the logits of moments.

        Args:
            rows: int64 [n], the row of :attr:`values` of each moment.

        Returns:
            float32 [n, n_actions].
        """
        weights = self.shared.unsqueeze(1) + self.per_action
        # PERF: moments share days, and days are fewer than moments.
        table = self.values[0] * weights[0]
        for values, own in zip(self.values[1:], weights[1:], strict=True):
            table = torch.addcmul(table, values, own)
        return table.index_select(0, torch.from_numpy(rows).to(table.device))
