"""The recurrent core: an LSTM over inputs that are projected already, for whole sequences, and LSTMs above it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luckyfast.models.ops import Ops, drop_in

__all__ = ["LSTMCore", "LSTMLayer"]


class LSTMLayer(nn.Module):
    """One layer; its state is (h, c)."""

    def __init__(self, n_in: int, hidden: int, ops: Ops) -> None:
        super().__init__()
        self.hidden, self.ops = hidden, ops
        self.weight = nn.Parameter(torch.empty(hidden, 4 * hidden))
        self.input = nn.Linear(n_in, 4 * hidden)
        nn.init.orthogonal_(self.weight)
        with torch.no_grad():
            self.input.bias.zero_()
            self.input.bias[hidden : 2 * hidden] = 1.0

    def run(
        self, inputs: Tensor, h: Tensor, c: Tensor, onto: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run over inputs [T, B, n_in], onto what is projected already [T * B, 4H]; return outputs and (h, c) after."""
        T, B, n_in = inputs.shape
        projected = self.ops.linear(inputs.reshape(T * B, n_in), self.input.weight, self.input.bias, onto=onto)
        outputs, h, c = self.ops.lstm_sequence(projected.view(T, B, -1), h, c, self.weight)
        return outputs, (h, c)


class LSTMCore(LSTMLayer):
    """Layers on top of each other, with dropout between; the state is (h, c) of each."""

    def __init__(self, n_steps_in: int, hidden: int, n_layers: int, dropout: float, ops: Ops) -> None:
        super().__init__(n_steps_in, hidden, ops)
        self.dropout = dropout
        self.above = nn.ModuleList(LSTMLayer(hidden, hidden, ops) for _ in range(n_layers - 1))

    @property
    def n_in(self) -> int:
        """Width of the projected inputs."""
        return 4 * self.hidden

    def start(self, n_customers: int) -> tuple[Tensor, ...]:
        """State before the first visit."""
        zeros = self.weight.new_zeros(n_customers, self.hidden)
        return (zeros, zeros) * (1 + len(self.above))

    def forward(self, bags: Tensor, steps: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over the bags [T * B, 4H] and step features [T, B, S]; return outputs [T, B, H] and the state after."""
        outputs, after = self.run(steps, state[0], state[1], onto=bags)
        states: list[Tensor] = [*after]
        for number, layer in enumerate(self.above, start=1):
            assert isinstance(layer, LSTMLayer)
            outputs = drop_in(self, outputs)
            outputs, after = layer.run(outputs, state[2 * number], state[2 * number + 1])
            states += after
        return outputs, tuple(states)
