"""The recurrent core: an LSTM over inputs that are projected already, for whole sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LSTMCore", "lstm_sequence"]


class LSTMSequence(torch.autograd.Function):
    """An LSTM over T steps whose backward pass needs one matrix product per step and one at the end."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        T, B, H4 = projected.shape
        H = H4 // 4
        gates = torch.empty_like(projected)
        cells, outputs = projected.new_empty(T + 1, B, H), projected.new_empty(T + 1, B, H)
        tanh_cells = projected.new_empty(T, B, H)
        outputs[0], cells[0] = h0, c0
        for t in range(T):
            gate = gates[t]
            torch.addmm(projected[t], outputs[t], weight, out=gate)
            gate[:, : 3 * H].sigmoid_()
            gate[:, 3 * H :].tanh_()
            i, f, o, g = gate.chunk(4, 1)
            torch.addcmul(i * g, f, cells[t], out=cells[t + 1])
            torch.tanh(cells[t + 1], out=tanh_cells[t])
            torch.mul(o, tanh_cells[t], out=outputs[t + 1])
        ctx.save_for_backward(gates, cells, outputs, tanh_cells, weight)
        return outputs[1:], outputs[T].clone(), cells[T].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        grad_outputs, grad_h, grad_c = grads
        gates, cells, outputs, tanh_cells, weight = ctx.saved_tensors
        T, B, H4 = gates.shape
        H = H4 // 4
        i, f, o, g = gates.chunk(4, 2)
        through_cell = torch.stack((g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g)), 2)
        to_output_gate = tanh_cells * o * (1 - o)
        to_cell = o * (1 - tanh_cells * tanh_cells)
        grad_gates = torch.empty_like(gates)
        slots = grad_gates.view(T, B, 4, H)
        transposed = weight.t()
        for t in reversed(range(T)):
            grad_h = grad_h + grad_outputs[t]
            grad_c = torch.addcmul(grad_c, grad_h, to_cell[t])
            pulled = grad_c.unsqueeze(1) * through_cell[t]
            slots[t, :, :2] = pulled[:, :2]
            slots[t, :, 3] = pulled[:, 2]
            torch.mul(grad_h, to_output_gate[t], out=slots[t, :, 2])
            grad_h = grad_gates[t] @ transposed
            grad_c = grad_c * f[t]
        grad_weight = outputs[:-1].reshape(T * B, H).t() @ grad_gates.view(T * B, H4)
        return grad_gates, grad_h, grad_c, grad_weight


def lstm_sequence(projected: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM over projected inputs.

    Gates are laid out as input, forget, output, candidate.

    Args:
        projected: float32 [T, B, 4H], inputs times their weights plus the bias.
        h0, c0: float32 [B, H], state before the first step.
        weight: float32 [H, 4H], recurrent weights.

    Returns:
        Outputs float32 [T, B, H], and the state (h, c) after the last step.
    """
    result: tuple[Tensor, Tensor, Tensor] = LSTMSequence.apply(projected, h0, c0, weight)  # type: ignore[no-untyped-call]
    return result


class LSTMCore(nn.Module):
    """One LSTM layer; its state is (h, c)."""

    def __init__(self, n_steps_in: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
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
        zeros = torch.zeros(n_customers, self.hidden)
        return zeros, zeros

    def forward(self, bags: Tensor, steps: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over the bags [T, B, 4H] and step features [T, B, S]; return outputs [T, B, H] and the state after."""
        h, c = state
        outputs, h, c = lstm_sequence(bags + self.input(steps), h, c, self.weight)
        return outputs, (h, c)
