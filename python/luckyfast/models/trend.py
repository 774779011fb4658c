"""What trends add to the logits of all actions."""

from __future__ import annotations

from typing import Any

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

    def weights(self) -> Tensor:
        """Of each half-life and action, float32 [n_half_lives, n_actions]."""
        return self.shared.unsqueeze(1) + self.per_action

    def forward(self, rows: NDArray[np.int64]) -> Tensor:
        """What to add to the logits of moments.

        Args:
            rows: int64 [n], the row of the trends of each moment.

        Returns:
            float32 [n, n_actions].
        """
        weights = self.weights()
        result: Tensor = _Weigh.apply(self.values, torch.from_numpy(rows).to(weights.device), weights)  # type: ignore[no-untyped-call]
        return result


class _Weigh(torch.autograd.Function):
    """PERF: rows are gathered again for the gradient; to keep them would take the memory of some arrays of logits."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, rows)
        result = values[0].index_select(0, rows).mul_(weights[0])
        for own, weight in zip(values[1:], weights[1:], strict=True):
            result.addcmul_(own.index_select(0, rows), weight)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, rows = ctx.saved_tensors
        return None, None, torch.stack([own.index_select(0, rows).mul_(grads[0]).sum(0) for own in values])
