"""What networks are made of, in two forms with the same results: plain PyTorch, and the engine for CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luckyfast.batches import Segment
from luckyfast.habits import Habits

if TYPE_CHECKING:
    from luckyfast.models.network import Network

__all__ = ["HabitWeights", "Ops", "drop_in", "ops_for"]

HabitWeights = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""``per_action`` [V, F]; ``first`` [hidden, F + 1], its bias [hidden] and ``second`` [1, hidden] of the small network;
``log_popularity`` [V]."""


class Ops(Protocol):
    """The operations that come in two forms. Tensors are float32 on the network's device, arrays are on the host."""

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None = None) -> Tensor:
        """Compute ``inputs @ weight.T + bias + onto``.

        Args:
            inputs: [n, K].
            weight: [N, K].
            bias: [N].
            onto: [n, N]; may be overwritten.

        Returns:
            [n, N].
        """
        ...

    def sum_bags(self, start: NDArray[np.int64], actions: NDArray[np.int64], table: Tensor) -> Tensor:
        """Sum the table's rows of each bag and divide by the square root of its size.

        Args:
            start: int64 [n + 1]; bag b has the actions ``actions[start[b]:start[b + 1]]``.
            actions: int64.
            table: [V, E].

        Returns:
            [n, E]; 0 for an empty bag.
        """
        ...

    def drop(self, values: Tensor, share: float) -> Tensor:
        """Set a random share of the values to 0 and divide the others by what is left, as in training.

        Args:
            values: of any shape.
            share: in (0, 1).
        """
        ...

    def lstm_sequence(self, projected: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run an LSTM over projected inputs. Gates are laid out as input, forget, output, candidate.

        Args:
            projected: [T, B, 4H], inputs times their weights plus the bias; may be overwritten.
            h0, c0: [B, H], state before the first step.
            weight: [H, 4H], recurrent weights.

        Returns:
            Outputs [T, B, H], and the state (h, c) after the last step.
        """
        ...

    def add_habits(self, logits: Tensor, habits: Habits, moment_weights: Tensor, weights: HabitWeights) -> Tensor:
        """Add the scores of habits: ``sum_k (w_mk + d_ak) f_k + second . gelu(first [f, log popularity_a] + bias)``.

        Args:
            logits: [n, V]; may be overwritten.
            habits: the habits at the n moments.
            moment_weights: [n, F].
            weights: see :data:`HabitWeights`.

        Returns:
            [n, V].
        """
        ...

    def set_loss(
        self,
        logits: Tensor,
        label_start: NDArray[np.int64],
        label_actions: NDArray[np.int64],
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """Add up ``-log softmax(logits)[label] * weight / total`` over the labels of all moments.

        With smoothing a label is no longer one action: it is the share ``1 - smoothing.sum()`` of one, and
        ``smoothing[a]`` of each action a (Szegedy et al., 2016).

        Args:
            logits: [n, V]; may be overwritten, and have no values after it.
            label_start: int64 [n + 1]; moment m has the labels ``label_actions[label_start[m]:label_start[m + 1]]``.
            label_actions: int64.
            weights: float32 [n], of every label of a moment.
            total: what the weighted sum is divided by.
            smoothing: [V].

        Returns:
            A scalar; 0 if there are no labels.
        """
        ...

    def head_loss(
        self,
        network: Network,
        outputs: Tensor,
        segment: Segment,
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """:meth:`set_loss` of what a network predicts from what its core remembers.

        Args:
            network: whose ``predict`` it is.
            outputs: [T * B, H], of the core.
            segment: the moments, n of them, and their labels.
            weights: float32 [n], of every label of a moment.
            total: what the weighted sum is divided by.
            smoothing: [V].

        Returns:
            A scalar.
        """
        ...


class _Dropping(Protocol):
    ops: Ops
    dropout: float
    training: bool


def drop_in(module: _Dropping, values: Tensor) -> Tensor:
    """:meth:`Ops.drop` of a module's share where it is in training, else the values."""
    return module.ops.drop(values, module.dropout) if module.training and module.dropout else values


def ops_for(device: torch.device) -> Ops:
    """Choose the engine's operations for a CPU, the plain ones for everything else."""
    from luckyfast.models.fused import FusedOps
    from luckyfast.models.plain import PlainOps

    return FusedOps() if device.type == "cpu" else PlainOps()
