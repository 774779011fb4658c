"""The raw history as inputs of a graph, and the calendar of its steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luckyfast.batches import GAP_EDGES, Constants
from luckyfast.export.graph import Graph, Value
from luckyfast.moments import DAY_US

__all__ = ["Calendar", "History"]


@dataclass(frozen=True)
class History:
    """A batch of raw histories: B customers, N visits, P pairs, padded at the end.

    Args:
        graph: the graph.
        times: int64 [B, N + 1], the moment of prediction following the last visit, and again as padding.
        position: int64 [1, N + 1].
        n_visits: int64 [B, 1].
        actions: int64 [B, P], 0 for padding.
        owner: int64 [B, P], visit of each pair, 0 for padding.
        present: bool [B, P], pairs that are no padding.
    """

    graph: Graph
    times: Value
    position: Value
    n_visits: Value
    actions: Value
    owner: Value
    present: Value

    @classmethod
    def declare(cls, graph: Graph) -> History:
        """Declare the inputs of the graph."""
        times = graph.input("times", np.int64, ["B", "N"], "times of the visits, ascending, padded at the end")
        n_visits = graph.input("n_visits", np.int64, ["B"], "number of visits that are no padding").insert_axis(1)
        actions = graph.input("actions", np.int64, ["B", "P"], "action ids, distinct within a visit")
        owner = graph.input("visits", np.int64, ["B", "P"], "visit of each action, from 0; -1 is padding")
        moment = graph.input("moment", np.int64, ["B"], "moment of prediction").insert_axis(1)
        times = graph.concat(1, times, moment)
        n_steps = times.size(1).drop_axis(0)
        position = graph.op("Range", graph.constant(0), n_steps, graph.constant(1)).insert_axis(0)
        present = owner >= 0
        return cls(
            graph=graph,
            times=graph.where(position < n_visits, times, moment),
            position=position,
            n_visits=n_visits,
            actions=graph.where(present, actions, 0),
            owner=graph.where(present, owner, 0),
            present=present,
        )

    def mean_size(self) -> Value:
        """Mean number of distinct actions of the visits, float32 [B]; 0 where there is none."""
        return self.present.cast(np.float32).sum(1) / self.n_visits.drop_axis(1).cast(np.float32).at_least(1.0)

    def has_earlier(self) -> Value:
        """Whether a step has a visit before it, bool [B, N + 1]."""
        return self.graph.op("Expand", self.position >= 1, self.times.shape())


@dataclass(frozen=True)
class Calendar:
    """What the calendar says at every step of a history, and at the moment of prediction.

    Args:
        steps: float32 [B, N + 1, n_calendar].
        now: float32 [B, n_calendar].
        contexts: per context, int64 [B, N + 1].
        contexts_now: per context, int64 [B, 1].
    """

    steps: Value
    now: Value
    contexts: list[Value]
    contexts_now: list[Value]

    @classmethod
    def of(cls, history: History, constants: Constants) -> Calendar:
        """Compute the calendar as :class:`luckyfast.batches.Moments` does."""
        graph, times, last = history.graph, history.times, history.n_visits
        has_earlier = history.has_earlier()
        earlier = graph.concat(1, times.slice(1, 0, 1), times.slice(1, 0, -1))
        gap = (times - earlier).cast(np.float64) / constants.time_scale
        n_earlier = graph.op("Expand", history.position.cast(np.float64), times.shape())
        columns = [gap.log1p(), (100.0 * gap).log1p() / 5.0, has_earlier.cast(np.float64), n_earlier.log1p() / 3.0]
        reached = graph.stack(*[gap >= edge for edge in GAP_EDGES]).cast(np.int64).sum(2)
        contexts = [graph.where(has_earlier, reached + 1, 0)]
        if constants.clock:
            within = times.modulo(DAY_US)
            weekday = ((times - within) / DAY_US + 3).modulo(7)
            columns += [weekday.equals(number).cast(np.float64) for number in range(7)]
            for turns in (1, 2):
                angle = within.cast(np.float64) * (2 * np.pi * turns / DAY_US)
                columns += [graph.op("Sin", angle), graph.op("Sin", angle + np.pi / 2)]
            contexts += [weekday, (within * 6) / DAY_US]
        steps = graph.stack(*[column.cast(np.float32) for column in columns])
        now = graph.op("GatherND", steps, last, batch_dims=1)
        return cls(steps, now, contexts, [context.take(last, 1) for context in contexts])
