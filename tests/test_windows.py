"""Splits and targets, against sorting and counting in plain Python."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import habit_log, logs, opened, visits_of

from luckyfast.baselines import Popularity
from luckyfast.batches import measure
from luckyfast.dataset import Histories
from luckyfast.errors import DatasetError
from luckyfast.windows import Labels, Split, first_visits, known_actions, split_by_time, target_visits


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 300), min_size=1, max_size=30), st.floats(0.1, 0.9))
def test_split_times_are_exact_order_statistics(times: list[int], quantile: float) -> None:
    rows = [("c", time, "a", f"v{index}") for index, time in enumerate(times)]
    ordered = sorted(times)
    expected = [ordered[int(q * (len(times) - 1))] for q in (quantile * 0.9, quantile)]
    with opened(rows, time_kind="order") as dataset:
        if not ordered[0] < expected[0] < expected[1]:
            with pytest.raises(DatasetError, match="too few distinct times"):
                split_by_time(dataset, test_quantile=quantile, valid_quantile=quantile * 0.9)
            return
        split = split_by_time(dataset, test_quantile=quantile, valid_quantile=quantile * 0.9)
    assert [split.valid_start, split.test_start] == expected


def test_stretches_of_visits_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(habit_log(n_customers=7, n_visits=13), batch_pairs=40) as dataset:

        def found() -> tuple[Split, list[bool], object, object]:
            split = split_by_time(dataset)
            constants = measure(dataset, split.valid_start, n_half_lives=2, visit_spans=(3.0,), strength=1.0)
            baseline = Popularity().fit(dataset, split)
            known = known_actions(dataset, split.test_start)
            return split, known.tolist(), constants.popularity.tolist(), baseline.popularity.tolist()

        expected = found()
        for size in (1, 3, 1000):
            monkeypatch.setattr(Histories.stretches, "__defaults__", (size,))
            assert found() == expected
        histories = next(dataset.batches())
        assert [visits.stop - visits.start for visits in histories.stretches(9)][:-1] == [9] * (histories.n_visits // 9)


@settings(max_examples=25, deadline=None)
@given(logs(), st.integers(-1, 40))
def test_stops_before_a_time(rows: list, day: int) -> None:
    moment = day * 86_400_000_000
    with opened(rows, batch_pairs=9) as dataset:
        for histories in dataset.batches():
            times = [[time for time, _ in visits] for visits in visits_of(histories)]
            first = histories.visit_start[:-1].tolist()
            expected = [start + bisect_left(own, moment) for start, own in zip(first, times, strict=True)]
            assert histories.stops_before(moment).tolist() == expected


@settings(max_examples=25, deadline=None)
@given(logs(), st.integers(1, 15), st.integers(1, 15), st.integers(0, 4))
def test_targets_labels_and_known_actions(rows: list, valid_day: int, n_test_days: int, min_history: int) -> None:
    day = 86_400_000_000
    split = Split(valid_day * day, (valid_day + n_test_days) * day, min_history)
    edges = [-(10**18), split.valid_start, split.test_start, 10**18]
    with opened(rows, batch_pairs=5) as dataset:
        known = known_actions(dataset, split.test_start)
        seen = {
            a for h in dataset.batches() for vs in visits_of(h) for t, actions in vs if t < edges[2] for a in actions
        }
        assert np.flatnonzero(known).tolist() == sorted(seen)
        for histories in dataset.batches():
            plain = [(i, visits) for visits in visits_of(histories) for i in range(len(visits))]
            for number, part in enumerate(("train", "valid", "test")):
                for short in (False, True):
                    targets = target_visits(histories, split, part, short=short)  # type: ignore[arg-type]
                    assert targets.tolist() == [
                        v
                        for v, (i, visits) in enumerate(plain)
                        if (i < min_history) == short and edges[number] <= visits[i][0] < edges[number + 1]
                    ]
                    labels = Labels.of(histories, targets, known)
                    first = first_visits(histories, targets)
                    for row, v in enumerate(targets):
                        i, visits = plain[v]
                        sizes = [len(actions) for _, actions in visits[:i]]
                        assert first[row] == v - i
                        assert labels.mean_size[row] == pytest.approx(sum(sizes) / i if i else 0.0)
                        found = labels.actions[labels.start[row] : labels.start[row + 1]].tolist()
                        assert found == [a if a in seen else 0 for a in visits[i][1]]


def test_default_split_leaves_the_asked_shares() -> None:
    with opened(habit_log()) as dataset:
        split = split_by_time(dataset)
        times = sorted(t for h in dataset.batches() for t in h.visit_time.tolist())
    assert bisect_left(times, split.test_start) / len(times) == pytest.approx(0.85, abs=0.06)
    assert bisect_left(times, split.valid_start) / len(times) == pytest.approx(0.765, abs=0.06)


def test_a_dataset_without_visits_is_refused() -> None:
    with opened([]) as dataset, pytest.raises(DatasetError, match="no visits"):
        split_by_time(dataset)


@pytest.mark.parametrize(("n_visits", "least"), [(1, 0), (2, 1), (3, 2), (8, 3)])
def test_short_histories_are_targets_where_there_are_no_others(n_visits: int, least: int) -> None:
    rows = habit_log(n_customers=60, n_visits=n_visits)
    rows = [(customer, time + 10**9 * int(customer[9:]), action, session) for customer, time, action, session in rows]
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        assert split.min_history == least
        for part in ("valid", "test"):
            assert sum(len(target_visits(h, split, part)) for h in dataset.batches()) > 0
