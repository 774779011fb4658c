"""The habit residual: what a customer does again and again, added to the logits of the actions in the history alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HabitResidual"]


class HabitResidual(nn.Module):
    """Score habits: weights shared by all actions, an offset of them per action, and a small network over the features.

    ``score = sum_k (w_k + d_ak + (G s)_k) f_k + mlp([f, log popularity_a])`` with ``f`` the features of
    :mod:`luckyfast.kernels.habits` and ``s`` the calendar and the network's summary of the moment.
    """

    def __init__(self, n_habits: int, n_half_lives: int, n_state: int, hidden: int, popularity: Tensor) -> None:
        super().__init__()
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

    def forward(self, features: Tensor, actions: Tensor, rows: Tensor, state: Tensor) -> Tensor:
        """Score P habits.

        Args:
            features: float32 [P, n_habits].
            actions, rows: int64 [P], the action and the moment of each.
            state: float32 [n, n_state], per moment.

        Returns:
            float32 [P].
        """
        weights = self.per_action(actions) + (self.shared + self.gate(state)).index_select(0, rows)
        wide = torch.cat((features, self.log_popularity[actions].unsqueeze(1)), 1)
        scores: Tensor = (weights * features).sum(1) + self.second(F.gelu(self.first(wide))).squeeze(1)
        return scores
