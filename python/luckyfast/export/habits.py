"""Habits as part of a graph: the features of :mod:`luckyfast.habits`, for all actions at one moment."""

from __future__ import annotations

import numpy as np

from luckyfast.batches import Constants
from luckyfast.export.graph import Value
from luckyfast.export.history import Calendar, History

__all__ = ["habit_features"]


def habit_features(history: History, calendar: Calendar, constants: Constants) -> tuple[Value, Value]:
    """Compute the habits of every action; those of actions never taken are finite and mean nothing.

    Args:
        history: the visits.
        calendar: their calendar.
        constants: what was measured in the training time.

    Returns:
        Features float32 [B, V, n_habits], and which actions were ever taken, bool [B, V].
    """
    graph, times, n_before = history.graph, history.times, history.n_visits
    now, n_actions = times.take(n_before, 1), constants.n_actions
    since = (now - times.take(history.owner, 1)).cast(np.float64)
    missed = (n_before - 1 - history.owner).cast(np.float64)
    one = graph.constant(1.0, np.float64)
    contexts = list(zip(calendar.contexts, calendar.contexts_now, strict=True))
    addends = [
        *[_halved(since, half_life) for half_life in constants.half_lives],
        *[_halved(missed, span) for span in constants.visit_spans],
        graph.op("Expand", one, since.shape()),
        *[context.take(history.owner, 1).equals(at_moment).cast(np.float64) for context, at_moment in contexts],
    ]
    n_decays = len(addends) - 1 - len(contexts)
    present = history.present.cast(np.float64).insert_axis(2)
    empty = graph.zeros(np.float64, times.size(0), n_actions, len(addends))
    totals = graph.scatter(empty, history.actions, graph.stack(*addends) * present, reduction="add")
    columns = graph.ops("Split", totals, n_outputs=len(addends), axis=2, num_outputs=len(addends))
    decayed, (n_taken, *matched) = columns[:n_decays], [column.drop_axis(2) for column in columns[n_decays:]]

    prior = graph.constant(constants.strength * constants.popularity, np.float64)
    features = [(column.drop_axis(2) / prior).log1p() for column in decayed]
    features.append((n_taken / prior).log1p())
    features += _cadence(history, n_taken, constants)
    n_visits = n_before.cast(np.float64)
    share = n_taken.at_least(1.0) / n_visits.at_least(1.0)
    real = (history.position < n_before).cast(np.float64)
    for (context, at_moment), n_matched in zip(contexts, matched, strict=True):
        n_alike = (context.equals(at_moment).cast(np.float64) * real).sum(1).insert_axis(1)
        lift = (n_matched + 3.0 * share) / ((n_alike + 3.0) * share)
        features.append(graph.op("Log", lift))
    return graph.stack(*[feature.cast(np.float32) for feature in features]), n_taken >= 1.0


def _cadence(history: History, n_taken: Value, constants: Constants) -> list[Value]:
    """When each action was last taken, against the customer's own rhythm: eight columns float64 [B, V]."""
    graph, times, n_before = history.graph, history.times, history.n_visits
    # Padding lands in action 0, which is never taken.
    nowhere = graph.zeros(np.int64, times.size(0), constants.n_actions)
    last = graph.scatter(nowhere, history.actions, history.owner, reduction="max")
    first = n_before - graph.scatter(nowhere, history.actions, n_before - history.owner, reduction="max")
    last_time, first_time = times.take(last, 1), times.take(first, 1)
    since = (times.take(n_before, 1) - last_time).cast(np.float64)
    missed = (n_before - 1 - last).cast(np.float64)
    again = n_taken >= 2.0
    n_gaps = (n_taken - 1.0).at_least(1.0)
    tiny = constants.time_scale / 100
    own_gap = (last_time - first_time).cast(np.float64) / n_gaps
    own_span = ((last - first).cast(np.float64) / n_gaps).at_least(1.0)
    rho = graph.op("Log", (since + tiny) / (own_gap + tiny)).clip(-3.0, 3.0)
    pi = graph.op("Log", (missed + 1.0).at_least(1.0) / own_span).clip(-3.0, 3.0)
    rhythm = [rho, graph.op("Exp", -2.0 * rho * rho), pi, graph.op("Exp", -2.0 * pi * pi)]
    return [
        (since / constants.time_scale).log1p(),
        missed.at_least(0.0).log1p(),
        missed.equals(0.0).cast(np.float64),
        again.cast(np.float64),
        *[graph.where(again, column, 0.0) for column in rhythm],
    ]


def _halved(age: Value, half_life: float) -> Value:
    return age.graph.op("Exp", age * (-np.log(2.0) / half_life))
