"""Ranks with ties in expectation, against the mean over all orders of tied actions."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import logs, opened, visits_of
from luckyfast.kernels.ranking import mark_repeats, rank_targets, rate_best

from luckyfast.windows import first_visits


def naive_metrics(scores: list[float], right: list[int]) -> list[float]:
    """Mean hit@1, hit@3, recall@10, NDCG@10 over every order of the actions that agrees with the scores."""
    sums, n_orders = [0.0] * 4, 0
    for order in itertools.permutations(range(1, len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        n_orders += 1
        places = [place for place, action in enumerate(order, start=1) if action in right]
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(len(right), 10) + 1))
        sums[0] += any(place <= 1 for place in places)
        sums[1] += any(place <= 3 for place in places)
        sums[2] += sum(place <= 10 for place in places) / len(right)
        sums[3] += sum(1 / math.log2(place + 1) for place in places if place <= 10) / ideal
    return [value / n_orders for value in sums]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_matches_the_mean_over_all_orders(data: st.DataObject) -> None:
    n_actions = data.draw(st.integers(2, 7))
    scores = data.draw(st.lists(st.integers(0, 3).map(float), min_size=n_actions, max_size=n_actions))
    right = data.draw(st.lists(st.integers(1, n_actions - 1), min_size=1, unique=True))
    unknown = data.draw(st.booleans())
    targets = np.array(right + [0] * unknown, np.int32)
    metrics = np.empty((1, 4))
    rank_targets(np.array([scores], np.float32), np.array([0, len(targets)]), targets, metrics)
    np.testing.assert_allclose(metrics[0], naive_metrics(scores, targets.tolist()), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_first_of_each_row_is_rated_in_expectation(data: st.DataObject) -> None:
    n_actions = data.draw(st.integers(2, 6))
    rows = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.integers(-2, 1).map(float), min_size=n_actions, max_size=n_actions),
                st.lists(st.floats(0, 1, width=32), min_size=n_actions, max_size=n_actions),
                st.lists(st.integers(0, n_actions - 1), unique=True),
            ),
            min_size=1,
            max_size=4,
        )
    )
    scores, chances = (np.array([row[k] for row in rows], np.float32) for k in (0, 1))
    start = np.cumsum([0, *(len(row[2]) for row in rows)])
    rated = np.empty((len(rows), 2))
    rate_best(scores, chances, start, np.array([a for row in rows for a in row[2]], np.int32), rated)
    for own, (row_scores, row_chances, right) in zip(rated, rows, strict=True):
        first = [action for action in range(1, n_actions) if row_scores[action] == max(row_scores[1:])]
        errors = [(row_chances[action] - (action in right)) ** 2 for action in first]
        expected = [np.mean([row_chances[action] for action in first]), np.mean(errors)]
        np.testing.assert_allclose(own, expected, atol=1e-12)


def test_tied_actions_across_the_tenth_place() -> None:
    # 20 actions share places 1 to 20, two of them are right: each is among ten with chance 1/2.
    metrics = np.empty((1, 4))
    rank_targets(np.zeros((1, 21), np.float32), np.array([0, 2]), np.array([3, 20], np.int32), metrics)
    gain = sum(1 / math.log2(place + 1) for place in range(1, 11)) * 2 / 20 / (1 + 1 / math.log2(3))
    miss_3 = math.comb(18, 3) / math.comb(20, 3)
    np.testing.assert_allclose(metrics[0], [0.1, 1 - miss_3, 0.5, gain])


def test_the_unknown_action_is_not_ranked_and_empty_rows_are_marked() -> None:
    scores = np.array([[9.0, 1.0, 0.0], [9.0, 1.0, 0.0], [9.0, 1.0, 0.0]], np.float32)
    metrics = np.empty((3, 4))
    rank_targets(scores, np.array([0, 1, 1, 2]), np.array([1, 0], np.int32), metrics)
    assert metrics[0].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert np.isnan(metrics[1]).all()
    assert metrics[2].tolist() == [0.0, 0.0, 0.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_repeats_are_the_actions_of_earlier_visits(rows: list, random: object) -> None:
    with opened(rows) as dataset:
        for histories in dataset.batches():
            targets = np.array([v for v in range(histories.n_visits) if random.random() < 0.6], np.int64)  # type: ignore[attr-defined]
            expected, visit = [], 0
            for visits in visits_of(histories):
                seen: set[int] = set()
                for _, actions in visits:
                    if visit in targets:
                        expected += [action in seen for action in actions]
                    seen |= set(actions)
                    visit += 1
            repeated = np.zeros(len(expected), np.bool_)
            mark_repeats(
                first_visits(histories, targets),
                targets,
                histories.action_start,
                histories.actions,
                dataset.n_actions,
                repeated,
            )
            assert repeated.tolist() == expected
