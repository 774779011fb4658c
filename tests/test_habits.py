"""Habit features against sums over all earlier visits, written down as they are defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import logs, opened, visits_of

from luckyfast.batches import Batch, Constants, Moments, cut_segment
from luckyfast.dataset import Histories

DAY = 86_400_000_000


def constants_of(n_actions: int, clock: bool = True) -> Constants:
    return Constants(
        popularity=np.linspace(0.05, 0.9, n_actions),
        known=np.arange(n_actions) > 0,
        half_lives=(2.0 * DAY, 11.5 * DAY),
        visit_spans=(1.5, 7.0),
        time_scale=3.0 * DAY,
        clock=clock,
        strength=2.0,
        n_visits=1,
    )


def naive_contexts(times: list[int], index: int, constants: Constants) -> list[int]:
    gap = 0
    if index:
        share = (times[index] - times[index - 1]) / constants.time_scale
        gap = 1 + sum(share >= edge for edge in (0.1, 0.5, 1.0, 2.0))
    if not constants.clock:
        return [gap]
    day, within = divmod(times[index], DAY)
    return [gap, (day + 3) % 7, 6 * within // DAY]


def naive_habits(visits: list[tuple[int, list[int]]], index: int, constants: Constants) -> dict[int, list[float]]:
    """Features of every action taken before visit ``index``."""
    times = [time for time, _ in visits]
    now, contexts = times[index], [naive_contexts(times, i, constants) for i in range(index + 1)]
    result = {}
    for action in {action for _, actions in visits[:index] for action in actions}:
        taken = [i for i in range(index) if action in visits[i][1]]
        prior = constants.strength * constants.popularity[action]
        n, last, since = len(taken), taken[-1], now - times[taken[-1]]
        row = [math.log1p(sum(2 ** (-(now - times[i]) / h) for i in taken) / prior) for h in constants.half_lives]
        row += [math.log1p(sum(2 ** (-(index - 1 - i) / g) for i in taken) / prior) for g in constants.visit_spans]
        row += [math.log1p(n / prior), math.log1p(since / constants.time_scale), math.log1p(index - 1 - last)]
        row += [float(last == index - 1), float(n >= 2)]
        if n >= 2:
            e = constants.time_scale / 100
            rho = math.log((since + e) / ((times[last] - times[taken[0]]) / (n - 1) + e))
            pi = math.log((index - last) / ((last - taken[0]) / (n - 1)))
            for ratio in (min(max(rho, -3), 3), min(max(pi, -3), 3)):
                row += [ratio, math.exp(-2 * ratio**2)]
        else:
            row += [0.0] * 4
        for j, context in enumerate(contexts[index]):
            alike = [i for i in range(index) if contexts[i][j] == context]
            share = n / index
            row.append(math.log((sum(i in taken for i in alike) + 3 * share) / ((len(alike) + 3) * share)))
        result[action] = row
    return result


def whole(histories: Histories, constants: Constants) -> Batch:
    """All customers, the longest history first."""
    order = np.argsort(-np.diff(histories.visit_start), kind="stable")
    start = histories.visit_start.astype(np.int64)
    return Batch(histories, Moments.of(histories, constants), start[:-1][order], start[1:][order])


@settings(max_examples=60, deadline=None)
@given(logs(), st.booleans(), st.integers(0, 5), st.integers(1, 8), st.integers(0, DAY))
def test_habits_are_their_definition(rows: list, clock: bool, offset: int, n_steps: int, shift: int) -> None:
    rows = [(customer, time + shift, action, visit) for customer, time, action, visit in rows]
    with opened(rows, time_kind="clock" if clock else "order") as dataset:
        constants = constants_of(dataset.n_actions, clock)
        histories = next(dataset.batches())
        if offset >= np.diff(histories.visit_start).max():
            return
        segment = cut_segment(whole(histories, constants), constants, offset, n_steps, None, habit=True)
        plain = [(visits, i) for visits in visits_of(histories) for i in range(len(visits))]
        found: dict[int, dict[int, np.ndarray]] = {int(visit): {} for visit in segment.visits}
        habits = segment.habits
        assert habits is not None
        for moment, action, features in zip(habits.rows, habits.actions, habits.features.T, strict=True):
            found[int(segment.visits[moment])][int(action)] = features
        assert sorted(found) == [v for v, (_, i) in enumerate(plain) if offset <= i < offset + n_steps]
        for visit, features in found.items():
            expected = naive_habits(*plain[visit], constants)
            assert sorted(features) == sorted(expected)
            for action, row in expected.items():
                np.testing.assert_allclose(features[action], row, rtol=2e-6, atol=2e-6)


def test_naive_habits_by_hand() -> None:
    constants = constants_of(4)
    visits = [(0, [1, 2]), (2 * DAY, [2]), (4 * DAY, [3])]
    features = naive_habits(visits, 2, constants)
    assert sorted(features) == [1, 2]
    prior = 2 * constants.popularity[2]
    assert features[2][0] == pytest.approx(math.log1p((0.25 + 0.5) / prior))
    assert features[2][4] == pytest.approx(math.log1p(2 / prior))
    assert features[1][7] == 0.0
    assert features[2][7] == 1.0
    # Taken two days ago, every two days: due now.
    assert features[2][9] == pytest.approx(0.0)
