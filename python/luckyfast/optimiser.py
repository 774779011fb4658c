"""AdamW with clipped gradients and a running average, in one pass over all weights, which lie side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from luckyfast import _engine

__all__ = ["Optimiser"]

MAX_NORM = 1.0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class Optimiser:
    """Moves a network's weights, and a copy of it towards them.

    The weights of both, and the gradients, become views of flat arrays. A step is one pass of the engine over them, or
    the same in PyTorch, on any device.

    Args:
        network: the network to train.
        average: a copy of it, whose weights become the running average.
        quick: weights of the network that move ``quick_scale`` times as fast and do not decay.
        quick_scale: see ``quick``.
        decay: share of each other weight, times the learning rate, taken off it in a step.
        ema_decay: decay of the running average per step; in the first steps it is less.
        fused: whether the engine makes the steps; the weights are on the CPU then.
    """

    def __init__(
        self,
        network: nn.Module,
        average: nn.Module,
        *,
        quick: list[nn.Parameter],
        quick_scale: float,
        decay: float,
        ema_decay: float,
        fused: bool,
    ) -> None:
        self.ema_decay, self.fused, self.n_steps = ema_decay, fused, 0
        pairs = sorted(
            zip(network.parameters(), average.parameters(), strict=True),
            key=lambda pair: any(pair[0] is weight for weight in quick),
        )
        n, n_quick = (sum(weight.numel() for weight in weights) for weights in ([p for p, _ in pairs], quick))
        self.parts = [(slice(0, n - n_quick), 1.0, decay), (slice(n - n_quick, n), quick_scale, 0.0)]
        self.weights, self.grads, self.means, self.squares, self.averages = (
            torch.zeros(n, device=pairs[0][0].device) for _ in range(5)
        )
        start = 0
        for weight, averaged in pairs:
            part = slice(start, start + weight.numel())
            for parameter, flat in ((weight, self.weights), (averaged, self.averages)):
                flat[part] = parameter.detach().reshape(-1)
                parameter.data = flat[part].view_as(parameter)
            weight.grad = self.grads[part].view_as(weight)
            start = part.stop

    def step(self, rate: float) -> bool:
        """Move the weights against the gradients, which become 0.

        Args:
            rate: learning rate.

        Returns:
            Whether the gradients were finite; if not, nothing has moved.
        """
        norm = math.sqrt(_engine.square_sum(self.grads.numpy())) if self.fused else float(self.grads.norm())
        if not math.isfinite(norm):
            return False
        self.n_steps += 1
        scale = min(1.0, MAX_NORM / (norm + 1e-6))
        keep = min(self.ema_decay, self.n_steps / (self.n_steps + 10))
        for part, factor, decay in self.parts:
            arrays = [flat[part] for flat in (self.weights, self.grads, self.means, self.squares, self.averages)]
            if self.fused:
                views = (array.numpy() for array in arrays)
                _engine.adam_step(*views, scale, rate * factor, decay, self.n_steps, keep)
            else:
                self._step(arrays, scale, rate * factor, decay, keep)
        return True

    def _step(self, arrays: list[Tensor], scale: float, rate: float, decay: float, keep: float) -> None:
        weights, grads, means, squares, averages = arrays
        beta_1, beta_2 = _BETAS
        grads.mul_(scale)
        means.lerp_(grads, 1 - beta_1)
        squares.mul_(beta_2).addcmul_(grads, grads, value=1 - beta_2)
        denominator = (squares / (1 - beta_2**self.n_steps)).sqrt_().add_(_EPSILON)
        weights.mul_(1 - rate * decay).addcdiv_(means, denominator, value=-rate / (1 - beta_1**self.n_steps))
        averages.lerp_(weights, 1 - keep)
        grads.zero_()
