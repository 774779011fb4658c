"""Batches and segments, against going through histories in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log, logs, opened, visits_of

from luckyfast import windows
from luckyfast.batches import Moments, cut_segment, measure, training_batches


@settings(max_examples=40, deadline=None)
@given(logs(), st.integers(1, 30), st.integers(1, 20), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_visits_every_moment_once(rows: list, stop_day: int, batch: int, steps: int, seed: int) -> None:
    with opened(rows, batch_pairs=9) as dataset:
        stop = stop_day * DAY
        constants = measure(dataset, stop, n_half_lives=2, visit_spans=(3.0,), strength=1.0)
        plain = [(i, visits) for h in dataset.batches() for visits in visits_of(h) for i in range(len(visits))]
        expected = Counter(v for v, (i, visits) in enumerate(plain) if visits[i][0] < stop)
        met: Counter[int] = Counter()
        for group in training_batches(dataset, constants, stop, batch, steps, np.random.default_rng(seed)):
            lengths = group.stop - group.first
            assert (np.diff(lengths) <= 0).all()
            for offset in range(0, int(lengths.max()), steps):
                segment = cut_segment(group, constants, offset, steps, None, habit=False)
                T, B = segment.shape
                assert steps >= T
                met.update((segment.visits + group.histories.first_visit).tolist())
                bags = np.split(segment.bag_actions, segment.bag_start[1:-1])
                labels = np.split(segment.label_actions, segment.label_start[1:-1])
                for row, (visit, position) in enumerate(zip(segment.visits, segment.positions, strict=True)):
                    i, visits = plain[visit + group.histories.first_visit]
                    assert position // B == i - offset
                    assert bags[position].tolist() == (visits[i - 1][1] if i else [])
                    assert labels[row].tolist() == visits[i][1]
        assert met == expected


def test_measure_counts_training_visits_alone() -> None:
    rows = [("c", 0, "x", "1"), ("c", 4 * DAY, "y", "2"), ("c", 6 * DAY, "x", "3"), ("d", 9 * DAY, "z", "4")]
    with opened(rows) as dataset:
        constants = measure(dataset, 8 * DAY, n_half_lives=3, visit_spans=(1.0,), strength=2.0)
    assert constants.n_visits == 3
    assert constants.time_scale == 3 * DAY
    np.testing.assert_allclose(constants.popularity, [0.5 / 4, 2.5 / 4, 1.5 / 4, 0.5 / 4])
    assert constants.known.tolist() == [False, True, True, False]
    np.testing.assert_allclose(constants.half_lives, [1.5 * DAY, (1.5 * 8) ** 0.5 * DAY, 8 * DAY])


def test_calendar_of_a_known_day() -> None:
    # 1970-01-05 was a Monday.
    rows = [("c", 4 * DAY, "x", "1"), ("c", 4 * DAY + DAY // 4, "x", "2")]
    with opened(rows) as dataset:
        constants = measure(dataset, 10 * DAY, n_half_lives=1, visit_spans=(1.0,), strength=2.0)
        moments = Moments.of(next(dataset.batches()), constants)
    assert moments.calendar.shape == (2, constants.n_calendar)
    assert moments.calendar[0, :4].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(moments.calendar[1, :4], [np.log(2), np.log(101) / 5, 1, np.log(2) / 3], rtol=1e-6)
    assert moments.calendar[:, 4:11].argmax(1).tolist() == [0, 0]
    np.testing.assert_allclose(moments.calendar[1, 11:], [1, 0, 0, -1], atol=1e-6)
    assert moments.contexts.tolist() == [[0, 0, 0], [4, 0, 1]]


def test_batches_hold_histories_of_similar_length() -> None:
    rows = [(f"c{c}", v * DAY, "x", f"{c}-{v}") for c in range(200) for v in range(1 + c % 50)]
    with opened(rows + habit_log(n_customers=3)) as dataset:
        constants = measure(dataset, 60 * DAY, n_half_lives=1, visit_spans=(1.0,), strength=2.0)
        used = slots = 0
        for group in training_batches(dataset, constants, 200 * DAY, 256, 64, np.random.default_rng(0)):
            lengths = group.stop - group.first
            used += int(lengths.sum())
            slots += int(lengths.max()) * len(lengths)
    assert used == dataset.n_visits
    assert used > 0.75 * slots


def test_a_rhythm_of_very_far_times_is_no_wonder() -> None:
    """The sum of these spans is beyond 64 bits of microseconds."""
    century = 117 * 365 * 86_400_000_000
    rows = [(f"c{i}", t * century, "a", f"{i}-{t}") for i in range(3000) for t in (-1, 0)]
    with opened(rows) as dataset:
        constants = measure(dataset, 1, n_half_lives=3, visit_spans=(2.0,), strength=7.0)
    assert constants.time_scale == pytest.approx(century)


@settings(max_examples=25, deadline=None)
@given(logs(max_customers=5, max_visits=9), st.integers(1, 6))
def test_long_histories_become_pieces_that_hold_all(rows: list, most: int) -> None:
    with opened(rows) as dataset, pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "MAX_VISITS", most)
        for histories in dataset.batches():
            whole = visits_of(histories)
            parts = list(windows.bounded_parts(histories))
            pieces = [piece for part in parts for piece in visits_of(part)]
            assert [visit for piece in pieces for visit in piece] == [visit for visits in whole for visit in visits]
            assert sorted(len(piece) for piece in pieces) == sorted(
                size for visits in whole for size in [most] * (len(visits) // most) + [len(visits) % most] if size
            )
            names = [name for part in parts for name in part.customers.to_pylist()]
            assert sorted(set(names)) == sorted(histories.customers.to_pylist())
            assert [part.first_visit for part in parts] == np.cumsum([0, *(p.n_visits for p in parts[:-1])]).tolist()
