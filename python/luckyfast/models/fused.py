"""The operations of :class:`~luckyfast.models.ops.Ops` on CPU: the engine's kernels, with their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from luckyfast import _engine
from luckyfast.batches import Segment
from luckyfast.habits import Habits
from luckyfast.models import block_moments
from luckyfast.models.cores import n_cores
from luckyfast.models.ops import HabitWeights

if TYPE_CHECKING:
    from luckyfast.models.network import Network

__all__ = ["FusedOps"]


class FusedOps:
    """The engine's kernels, for CPUs."""

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None = None) -> Tensor:
        """Apply a linear layer."""
        outputs: Tensor = _apply(_Linear, inputs, weight, bias, None if onto is None else onto.contiguous())
        return outputs

    def sum_bags(self, start: NDArray[np.int64], actions: NDArray[np.int64], table: Tensor) -> Tensor:
        """Sum rows of a table."""
        sums: Tensor = _apply(_SumBags, start, actions, table)
        return sums

    def drop(self, values: Tensor, share: float) -> Tensor:
        """Drop some values."""
        dropped: Tensor = _apply(_Drop, values, share)
        return dropped

    def lstm_sequence(self, projected: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run an LSTM."""
        outputs, h, c = _apply(_LSTM, projected.contiguous(), h0, c0, weight)
        return outputs, h, c

    def add_habits(self, logits: Tensor, habits: Habits, moment_weights: Tensor, weights: HabitWeights) -> Tensor:
        """Add scores of habits."""
        sums: Tensor = _apply(_AddHabits, logits.contiguous(), habits, moment_weights, *weights)
        return sums

    def set_loss(
        self,
        logits: Tensor,
        label_start: NDArray[np.int64],
        label_actions: NDArray[np.int64],
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """Weigh and add up the loss of labels."""
        if len(label_actions) == 0:
            return logits.sum() * 0.0
        loss: Tensor = _apply(_SetLoss, logits.contiguous(), label_start, label_actions, weights, total, smoothing)
        return loss

    def head_loss(
        self,
        network: Network,
        outputs: Tensor,
        segment: Segment,
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """Go through the whole head and back in one call of the engine."""
        trend, residual = network.trend, network.residual
        parameters = [network.summary.weight, network.summary.bias, network.calendar.weight]
        parameters += [network.calendar.bias + network.prior, network.output]
        if trend is not None:
            parameters.append(trend.weights())
        if residual is not None:
            parameters += [residual.per_action.weight, residual.first.weight, residual.first.bias]
            parameters += [residual.second.weight, residual.gate.weight, residual.shared]
        labels = segment.label_start, segment.label_actions, weights, 1.0 / total
        dropout = network.dropout if network.training else 0.0
        loss: Tensor = _apply(_HeadLoss, network, segment, (*labels, smoothing), dropout, outputs, *parameters)
        return loss


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        if onto is not None:
            ctx.mark_dirty(onto)
        outputs = inputs.new_empty(len(inputs), len(weight)) if onto is None else onto
        _multiply(inputs, weight, outputs, b_transposed=True, bias=bias, adds=onto is not None)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_inputs = _multiply(grad, weight, inputs.new_empty(inputs.shape)) if ctx.needs_input_grad[0] else None
        grad_weight = _multiply(grad, inputs, weight.new_empty(weight.shape), a_transposed=True)
        grad_bias = grad.sum(0) if ctx.has_bias else None
        return grad_inputs, grad_weight, grad_bias, grad if ctx.needs_input_grad[3] else None


class _SumBags(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, start: NDArray[np.int64], actions: NDArray[np.int64], table: Tensor) -> Tensor:
        ctx.start, ctx.actions, ctx.shape = start, actions, table.shape
        out = table.new_empty(len(start) - 1, table.shape[1])
        _engine.sum_bags(start, actions, _view(table), _memory(out), n_cores())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_table = grads[0].new_zeros(ctx.shape)
        _engine.spread_bags(ctx.start, ctx.actions, _view(grads[0]), _memory(grad_table), n_cores())
        return None, None, grad_table


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        ctx.share, ctx.seed = share, _seed()
        return _drop(values, share, ctx.seed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _drop(grads[0], ctx.share, ctx.seed), None


class _LSTM(torch.autograd.Function):
    """Projected inputs become gates, and gates become their gradients, in one and the same memory.

    PyTorch is not told: it does not let a function with several results overwrite a view. Nothing that makes projected
    inputs (a sum, a product, a gather) needs them again for its own gradient.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        T, B, _ = gates.shape
        cells, outputs = (gates.new_empty(T + 1, B, weight.shape[0]) for _ in range(2))
        outputs[0], cells[0] = h0, c0
        ctx.from_zeros = _engine.lstm_forward(
            _memory(gates), _memory(cells), _memory(outputs), _view(weight), n_cores()
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gates, cells, outputs, weight)
        return outputs[1:], outputs[T].clone(), cells[T].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, cells, outputs, weight = ctx.saved_tensors
        if getattr(ctx, "spent", False):
            raise RuntimeError("the gates of this LSTM were overwritten by an earlier backward pass")
        ctx.spent = True
        T, B, H4 = gates.shape
        grad_outputs = grads[0].contiguous() if grads[0] is not None else torch.zeros_like(outputs[1:])
        grad_h, grad_c = (
            cells.new_zeros(cells.shape[1:]) if grad is None else grad.clone(memory_format=torch.contiguous_format)
            for grad in grads[1:3]
        )
        _engine.lstm_backward(
            _memory(gates),
            _view(cells),
            _view(grad_outputs),
            _memory(grad_h),
            _memory(grad_c),
            _view(weight),
            ctx.needs_input_grad[1],
            n_cores(),
        )
        # PERF: short histories begin with zeros, from which no gradient of the weights comes.
        first = 1 if ctx.from_zeros else 0
        before, grad_gates = outputs[first:-1].flatten(0, 1), gates[first:].view((T - first) * B, H4)
        grad_weight = _multiply(before, grad_gates, weight.new_empty(weight.shape), a_transposed=True)
        return gates.detach(), grad_h if ctx.needs_input_grad[1] else None, grad_c, grad_weight


class _AddHabits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, habits: Habits, *weights: Tensor) -> Tensor:
        ctx.habits = habits
        ctx.mark_dirty(logits)
        ctx.save_for_backward(*weights)
        _engine.habit_scores(*_habit_views(habits, weights), _memory(logits), n_cores())
        return logits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_logits = grads[0].contiguous()
        moment_weights, per_action, first, bias, second, _ = weights = ctx.saved_tensors
        own = [weight.new_zeros(weight.shape) for weight in (moment_weights, per_action, first, bias, second)]
        own_views = [_memory(grad) for grad in own]
        own_views[-1] = own_views[-1].reshape(-1)
        _engine.habit_grads(*_habit_views(ctx.habits, weights), _view(grad_logits), *own_views, n_cores())
        return grad_logits, None, *own, None


class _SetLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        label_start: NDArray[np.int64],
        label_actions: NDArray[np.int64],
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None,
    ) -> Tensor:
        # Logits become their gradient, and PyTorch is not told: nothing that makes them needs them for its own.
        grad = logits.detach()
        values, shares = _memory(grad), None if smoothing is None else _view(smoothing)
        loss = _engine.set_loss(values, label_start, label_actions, weights, 1.0 / total, values, n_cores(), shares)
        ctx.grad = grad
        return logits.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if getattr(ctx, "spent", False):
            raise RuntimeError("the gradient of this loss was handed on by an earlier backward pass")
        ctx.spent = True
        grad = ctx.grad if grads[0] == 1 else ctx.grad.mul_(grads[0])
        return grad, None, None, None, None, None


class _HeadLoss(torch.autograd.Function):
    """The engine finds loss and gradients at once; to go back is to hand these on."""

    @staticmethod
    def forward(
        ctx: Any,
        network: Network,
        segment: Segment,
        labels: tuple[Any, ...],
        dropout: float,
        outputs: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        ctx.grads = grads = [tensor.new_zeros(tensor.shape) for tensor in (outputs, *weights)]
        given, own = [_view(weight) for weight in weights], [_memory(grad) for grad in grads[1:]]
        head, given, head_grads, own = given[:5], given[5:], own[:5], own[5:]
        trends = trend_grads = habits = habit_grads = None
        if network.trend is not None:
            trends, trend_grads = (_view(network.trend.values), segment.trend_rows, given.pop(0)), own.pop(0)
        if network.residual is not None and (found := segment.habits) is not None:
            per_action, first, bias, second, gate, shared = given
            own[3] = own[3].reshape(-1)
            arrays = found.row_start, found.pair_start, found.actions, found.features
            popularity = _view(network.residual.log_popularity)
            habits = (*arrays, per_action, first, bias, second.reshape(-1), popularity, gate, shared)
            habit_grads = tuple(own)
        *label_arrays, smoothing = labels
        loss = _engine.head_loss(
            _view(outputs),
            segment.positions,
            segment.calendar,
            *head,
            trends,
            habits,
            *label_arrays,
            None if smoothing is None else _view(smoothing),
            dropout,
            _seed() if dropout else 0,
            block_moments(len(network.prior)),
            (_memory(grads[0]), *head_grads),
            trend_grads,
            habit_grads,
            n_cores(),
        )
        return outputs.new_tensor(loss)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        own = ctx.grads if grads[0] == 1 else [grad * grads[0] for grad in ctx.grads]
        return None, None, None, None, *own


def _seed() -> int:
    """Decided by torch's generator, whose state a checkpoint holds."""
    return int(torch.randint(1 << 62, ()))


def _drop(values: Tensor, share: float, seed: int) -> Tensor:
    dropped = torch.empty_like(values, memory_format=torch.contiguous_format)
    _engine.drop(_view(values).reshape(-1), _memory(dropped).reshape(-1), share, seed)
    return dropped


def _multiply(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    a_transposed: bool = False,
    b_transposed: bool = False,
    bias: Tensor | None = None,
    adds: bool = False,
) -> Tensor:
    offsets = None if bias is None else _view(bias)
    n_threads = n_cores()
    _engine.product(_view(a), _view(b), _memory(c), a_transposed, b_transposed, offsets, adds, n_threads)
    return c


def _habit_views(habits: Habits, weights: tuple[Tensor, ...]) -> list[Any]:
    moment_weights, per_action, first, bias, second, log_popularity = (_view(weight) for weight in weights)
    arrays = [habits.row_start, habits.pair_start, habits.actions, habits.features]
    return [*arrays, moment_weights, per_action, first, bias, second.reshape(-1), log_popularity]


def _view(tensor: Tensor) -> NDArray[np.float32]:
    """What a tensor holds, to be read."""
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array


def _memory(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor's own memory, to be written."""
    if not tensor.is_contiguous():
        raise ValueError("only a contiguous tensor can be written to")
    return _view(tensor)


def _apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    return function.apply(*inputs)  # type: ignore[no-untyped-call]
