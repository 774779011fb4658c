"""The habit residual: what a customer does again and again, added to the logits of the actions in the history alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luckyfast.habits import Habits
from luckyfast.models.ops import Ops

__all__ = ["HabitResidual"]


class HabitResidual(nn.Module):
    """Score habits: weights shared by all actions, an offset of them per action, and a small network over the features.

    ``score = sum_k (w_k + d_ak + (G s)_k) f_k + mlp([f, log popularity_a])`` with ``f`` the features of
    :mod:`luckyfast.habits` and ``s`` the calendar and the network's summary of the moment.
    """

    def __init__(
        self, n_habits: int, n_half_lives: int, n_state: int, hidden: int, popularity: Tensor, ops: Ops
    ) -> None:
        super().__init__()
        self.ops = ops
        self.shared = nn.Parameter(torch.zeros(n_habits))
        self.per_action = nn.Embedding(len(popularity), n_habits)
        self.gate = nn.Linear(n_state, n_habits, bias=False)
        self.first = nn.Linear(n_habits + 1, hidden)
        self.second = nn.Linear(hidden, 1, bias=False)
        self.log_popularity: Tensor
        self.register_buffer("log_popularity", popularity.log(), persistent=False)
        nn.init.zeros_(self.per_action.weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.second.weight)
        with torch.no_grad():
            self.shared[:n_half_lives] = 0.8 / n_half_lives

    def forward(self, logits: Tensor, habits: Habits, state: Tensor) -> Tensor:
        """Add the scores of habits to logits.

        Args:
            logits: float32 [n, V]; may be overwritten.
            habits: the habits at the n moments.
            state: float32 [n, n_state], per moment.

        Returns:
            float32 [n, V].
        """
        weights = (
            self.per_action.weight,
            self.first.weight,
            self.first.bias,
            self.second.weight,
            self.log_popularity,
        )
        moment_weights = self.ops.linear(state, self.gate.weight, self.shared)
        return self.ops.add_habits(logits, habits, moment_weights, weights)
