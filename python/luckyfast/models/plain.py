"""The operations of :class:`~luckyfast.models.ops.Ops` in plain PyTorch, for every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from luckyfast.batches import Segment
from luckyfast.habits import Habits
from luckyfast.models import block_moments
from luckyfast.models.ops import HabitWeights

if TYPE_CHECKING:
    from luckyfast.models.network import Network

__all__ = ["PlainOps"]


class PlainOps:
    """Plain PyTorch, for every device."""

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None = None) -> Tensor:
        """Apply a linear layer."""
        outputs = F.linear(inputs, weight, bias)
        return outputs if onto is None else onto + outputs

    def sum_bags(self, start: NDArray[np.int64], actions: NDArray[np.int64], table: Tensor) -> Tensor:
        """Sum rows of a table."""
        offsets, ids = (torch.from_numpy(array).to(table.device) for array in (start, actions))
        sums = F.embedding_bag(ids, table, offsets, mode="sum", include_last_offset=True)
        return sums / torch.diff(offsets).clamp(min=1).sqrt().unsqueeze(1)

    def drop(self, values: Tensor, share: float) -> Tensor:
        """Drop some values."""
        return F.dropout(values, share)

    def lstm_sequence(self, projected: Tensor, h0: Tensor, c0: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run an LSTM."""
        h, c, outputs = h0, c0, []
        for step in projected:
            i, f, o, g = torch.addmm(step, h, weight).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs), h, c

    def add_habits(self, logits: Tensor, habits: Habits, moment_weights: Tensor, weights: HabitWeights) -> Tensor:
        """Add scores of habits."""
        per_action, first, bias, second, log_popularity = weights
        rows, actions, features = (
            torch.from_numpy(array).to(logits.device) for array in (habits.rows, habits.actions, habits.features.T)
        )
        wide = torch.cat((features, log_popularity[actions].unsqueeze(1)), 1)
        scores = ((per_action[actions] + moment_weights[rows]) * features).sum(1)
        scores = scores + (F.gelu(F.linear(wide, first, bias)) @ second.t()).squeeze(1)
        V = logits.shape[1]
        return logits.reshape(-1).index_add(0, rows * V + actions, scores).view(-1, V)

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
        rows = np.repeat(np.arange(len(weights)), np.diff(label_start))
        own, at, labels = (torch.from_numpy(array).to(logits.device) for array in (weights[rows], rows, label_actions))
        log_p = F.log_softmax(logits, 1)
        loss = -(log_p[at, labels] * own).sum() / total
        if smoothing is None:
            return loss
        moment_weights = torch.from_numpy((weights * np.diff(label_start)).astype(np.float32)).to(logits.device)
        return (1 - smoothing.sum()) * loss - ((log_p @ smoothing) * moment_weights).sum() / total

    def head_loss(
        self,
        network: Network,
        outputs: Tensor,
        segment: Segment,
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> Tensor:
        """Predict, and weigh and add up the loss."""
        memory = outputs.index_select(0, torch.from_numpy(segment.positions).to(outputs.device))

        def loss_of(memory: Tensor, start: int, stop: int) -> Tensor:
            part = segment.part(start, stop)
            logits = network.predict(memory[start:stop], part)
            return self.set_loss(logits, part.label_start, part.label_actions, weights[start:stop], total, smoothing)

        n, block = len(memory), block_moments(len(network.prior))
        if n <= block:
            return loss_of(memory, 0, n)
        # Logits of all moments at once would be O(vocabulary) in memory: those of a block are made again for gradients.
        # PyTorch keeps the random state of the devices of what it is given, so that the same values are dropped again.
        ends = [(at, min(at + block, n)) for at in range(0, n, block)]
        losses = [checkpoint(loss_of, memory, *own, use_reentrant=False) for own in ends]
        return torch.stack(losses).sum()
