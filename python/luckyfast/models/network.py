"""The whole network: visits are read, remembered by a core, and turned into logits, to which habits are added."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from luckyfast.batches import Constants, Segment
from luckyfast.models import ModelConfig
from luckyfast.models.lstm import LSTMCore
from luckyfast.models.mlp import WindowCore
from luckyfast.models.ops import Ops, drop_in
from luckyfast.models.residual import HabitResidual
from luckyfast.models.side import SideInput
from luckyfast.models.trend import TrendResidual

__all__ = ["Network", "State"]

State = tuple[Tensor, ...]
NEVER = -30.0
"""Prior log-probability of actions that did not happen in the training time."""


class Network(nn.Module):
    """Reads a visit as the sum of its actions' vectors, remembers, and predicts the next.

    Args:
        config: settings.
        constants: what was measured in the training time.
        ops: in which form its operations are.
    """

    def __init__(self, config: ModelConfig, constants: Constants, ops: Ops) -> None:
        super().__init__()
        self.dropout, self.ops = config.dropout, ops
        V, E, H = constants.n_actions, config.embedding, config.hidden
        n_steps_in = 2 + 2 * constants.n_calendar
        self.core: LSTMCore | WindowCore
        if config.arch == "mlp":
            self.core = WindowCore(n_steps_in, E, H, config.window, config.layers, config.dropout, ops)
        else:
            self.core = LSTMCore(n_steps_in, H, config.layers, config.dropout, ops)
        n_table = 4 * H if config.arch == "lstm" else E
        self.table = nn.Parameter(torch.randn(V, n_table) / n_table**0.5)
        self.project = nn.Linear(E, self.core.n_in, bias=False) if config.arch == "lstm-embed" else nn.Identity()
        self.summary = nn.Linear(H + constants.n_calendar, E)
        self.output = nn.Parameter(torch.zeros(V, E))
        self.calendar = nn.Linear(constants.n_calendar, V)
        nn.init.zeros_(self.calendar.weight)
        nn.init.zeros_(self.calendar.bias)
        popularity = torch.from_numpy(constants.popularity).float()
        prior = popularity.log()
        prior[~torch.from_numpy(constants.known)] = NEVER
        self.prior: Tensor
        self.register_buffer("prior", prior, persistent=False)
        self.residual: HabitResidual | None = None
        if config.habit:
            n_state = constants.n_calendar + E
            self.residual = HabitResidual(
                constants.n_habits, len(constants.half_lives), n_state, config.habit_hidden, popularity, ops
            )
        self.trend = TrendResidual(constants.trend) if constants.trend is not None else None
        self.side = SideInput(constants.features, n_table, ops) if constants.features else None

    def start(self, n_customers: int) -> State:
        """State before the first visit of each customer."""
        return self.core.start(n_customers)

    def forward(self, segment: Segment, state: State) -> tuple[Tensor, State]:
        """Run one segment.

        Args:
            segment: T steps of B customers, with n moments among them.
            state: the core's, of B customers.

        Returns:
            Logits float32 [n, n_actions], and the state after the segment.
        """
        outputs, state = self._read(segment, state)
        return self.predict(outputs.index_select(0, self._here(segment.positions)), segment), state

    def loss(
        self,
        segment: Segment,
        state: State,
        weights: NDArray[np.float32],
        total: float,
        smoothing: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Run one segment, and add up the loss of its labels: see :meth:`Ops.set_loss <luckyfast.models.ops.Ops>`.

        Args:
            segment: T steps of B customers, with n moments among them.
            state: the core's, of B customers.
            weights: float32 [n], of every label of a moment.
            total: what the weighted sum is divided by.
            smoothing: float32 [n_actions], share of each label that goes to other actions.

        Returns:
            The loss, and the state after the segment.
        """
        outputs, state = self._read(segment, state)
        return self.ops.head_loss(self, outputs, segment, weights, total, smoothing), state

    def _read(self, segment: Segment, state: State) -> tuple[Tensor, State]:
        """Read the visits of a segment; what is remembered at each step, float32 [T * B, H], and the state after it."""
        T, B = segment.shape
        steps = self._here(segment.steps)
        bags = self.ops.sum_bags(segment.bag_start, segment.bag_actions, self.table)
        if self.side is not None and segment.features is not None:
            bags = self.side(bags, segment.features)
        bags = drop_in(self, bags)
        if isinstance(self.project, nn.Linear):
            bags = self.ops.linear(bags, self.project.weight, None)
        outputs, state = self.core(bags, steps, state)
        return outputs.reshape(T * B, -1), state

    def predict(self, memory: Tensor, segment: Segment) -> Tensor:
        """Turn what is remembered at the moments of a segment into logits float32 [n, n_actions]."""
        trend = self.trend(segment.trend_rows) if self.trend is not None else None
        calendar = self._here(segment.calendar)
        summary = self.ops.linear(torch.cat((memory, calendar), 1), self.summary.weight, self.summary.bias)
        summary = drop_in(self, F.gelu(summary))
        logits = self.ops.linear(calendar, self.calendar.weight, self.calendar.bias + self.prior, trend)
        logits = self.ops.linear(summary, self.output, None, onto=logits)
        if self.residual is not None and segment.habits is not None:
            logits = self.residual(logits, segment.habits, torch.cat((calendar, summary), 1))
        return logits

    def _here(self, array: NDArray[Any]) -> Tensor:
        """An array as a tensor on the network's device."""
        return torch.from_numpy(array).to(self.prior.device)
