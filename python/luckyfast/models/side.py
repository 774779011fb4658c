"""The side columns of a visit as an addition to the vector of its actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from luckyfast.batches import StepFeatures
from luckyfast.features import INPUTS_PER_NUMBER, FeatureScale, table_starts
from luckyfast.models.ops import Ops

__all__ = ["SideInput"]


class SideInput(nn.Module):
    """A linear map of the numbers, and a vector per category, that of a visit summed over the square root of how many.

    Both begin at zero: a category that the training time does not have says nothing.
    """

    def __init__(self, scales: Sequence[FeatureScale], n_out: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        n_numbers = sum(scale.kind == "number" for scale in scales)
        self.weight = nn.Parameter(torch.zeros(n_out, INPUTS_PER_NUMBER * n_numbers)) if n_numbers else None
        n_rows = table_starts(scales)[-1]
        self.table = nn.Parameter(torch.zeros(n_rows, n_out)) if n_rows else None

    def forward(self, bags: Tensor, features: StepFeatures) -> Tensor:
        """Add the features of the visits seen to their bags [T * B, n_out], which may be overwritten."""
        if self.table is not None:
            bags = bags + self.ops.sum_bags(features.category_start, features.categories, self.table)
        if self.weight is not None:
            bags = self.ops.linear(torch.from_numpy(features.numbers).to(bags.device), self.weight, None, onto=bags)
        return bags
