"""The recurrent core: an LSTM over inputs that are projected already, for whole sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luckyfast.models.ops import Ops

__all__ = ["LSTMCore"]


class LSTMCore(nn.Module):
    """One LSTM layer; its state is (h, c)."""

    def __init__(self, n_steps_in: int, hidden: int, ops: Ops) -> None:
        super().__init__()
        self.hidden, self.ops = hidden, ops
        self.weight = nn.Parameter(torch.empty(hidden, 4 * hidden))
        self.input = nn.Linear(n_steps_in, 4 * hidden)
        nn.init.orthogonal_(self.weight)
        with torch.no_grad():
            self.input.bias.zero_()
            self.input.bias[hidden : 2 * hidden] = 1.0

    @property
    def n_in(self) -> int:
        """Width of the projected inputs."""
        return 4 * self.hidden

    def start(self, n_customers: int) -> tuple[Tensor, ...]:
        """State before the first visit."""
        zeros = self.weight.new_zeros(n_customers, self.hidden)
        return zeros, zeros

    def forward(self, bags: Tensor, steps: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over the bags [T * B, 4H] and step features [T, B, S]; return outputs [T, B, H] and the state after."""
        T, B, S = steps.shape
        h, c = state
        projected = self.ops.linear(steps.view(T * B, S), self.input.weight, self.input.bias, onto=bags)
        outputs, h, c = self.ops.lstm_sequence(projected.view(T, B, -1), h, c, self.weight)
        return outputs, (h, c)
