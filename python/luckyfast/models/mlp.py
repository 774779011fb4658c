"""The feed-forward core: a window over the last visits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from luckyfast.models.ops import Ops, drop_in

__all__ = ["WindowCore"]


class WindowCore(nn.Module):
    """A layer over the last ``window`` visits, each place with its own weights, and layers above it, with dropout
    between these; the state is those visits.
    """

    def __init__(
        self, n_steps_in: int, n_in: int, hidden: int, window: int, n_layers: int, dropout: float, ops: Ops
    ) -> None:
        super().__init__()
        self.ops, self.dropout = ops, dropout
        self.n_in, self.window = n_in, window
        self.first = nn.Linear(window * n_in, hidden)
        self.input = nn.Linear(n_steps_in, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.above = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(n_layers - 1))

    def start(self, n_customers: int) -> tuple[Tensor, ...]:
        """State before the first visit."""
        return (self.first.weight.new_zeros(self.window - 1, n_customers, self.n_in).transpose(0, 1),)

    def forward(self, bags: Tensor, steps: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over the bags [T * B, n_in] and step features [T, B, S]; return outputs [T, B, H] and the state after."""
        T, B, S = steps.shape
        n_in = self.n_in
        visits = torch.cat((state[0].transpose(0, 1), bags.view(T, B, n_in)))
        windows = visits.unfold(0, self.window, 1).permute(0, 1, 3, 2).reshape(T * B, -1)
        first = self.ops.linear(steps.view(T * B, S), self.input.weight, self.input.bias)
        first = F.gelu(self.ops.linear(windows, self.first.weight, self.first.bias, onto=first))
        outputs = F.gelu(self.ops.linear(first, self.second.weight, self.second.bias))
        for layer in self.above:
            assert isinstance(layer, nn.Linear)
            outputs = drop_in(self, outputs)
            outputs = F.gelu(self.ops.linear(outputs, layer.weight, layer.bias))
        return outputs.view(T, B, -1), (visits[T:].transpose(0, 1),)
