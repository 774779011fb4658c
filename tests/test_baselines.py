"""Baseline kernels against plain Python, and what every baseline promises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log, logs, opened, visits_of
from luckyfast.kernels.baselines import count_transitions, fill_frequencies, fill_groups, fill_transitions

from luckyfast import baselines
from luckyfast.baselines import BASELINES, Baseline, DecayedFrequency, LastVisit, Markov, TifuKnn, fit_baseline
from luckyfast.dataset import Dataset
from luckyfast.evaluation import assert_blind
from luckyfast.windows import Split, first_visits, split_by_time, target_visits

Visits = list[tuple[int, list[int]]]


def moments(dataset: Dataset) -> Iterator[tuple]:
    """Each batch with all its visits as targets, and for each target the earlier visits and its time."""
    for histories in dataset.batches():
        targets = np.arange(histories.n_visits)
        plain = [(visits[:i], visits[i][0]) for visits in visits_of(histories) for i in range(len(visits))]
        yield histories, targets, first_visits(histories, targets), plain


@settings(max_examples=30, deadline=None)
@given(logs(), st.sampled_from([0.0, 0.1, 3.0]))
def test_frequencies(rows: list, rate_per_day: float) -> None:
    with opened(rows) as dataset:
        for histories, targets, first, plain in moments(dataset):
            expected = np.zeros((len(targets), dataset.n_actions))
            for row, (earlier, now) in enumerate(plain):
                for time, actions in earlier:
                    expected[row, actions] += math.exp(-rate_per_day * (now - time) / DAY)
            found = np.empty(expected.shape, np.float32)
            rate = rate_per_day / DAY
            fill_frequencies(
                first, targets, histories.visit_time, histories.action_start, histories.actions, rate, found
            )
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(logs(), st.integers(1, 3), st.sampled_from([0.5, 1.0]), st.sampled_from([0.3, 0.9]))
def test_groups(rows: list, size: int, within: float, across: float) -> None:
    with opened(rows) as dataset:
        for histories, targets, first, plain in moments(dataset):
            expected = np.zeros((len(targets), dataset.n_actions))
            for row, (earlier, _) in enumerate(plain):
                newest_first = earlier[::-1]
                groups = [newest_first[start : start + size] for start in range(0, len(newest_first), size)]
                for age, group in enumerate(groups):
                    for place, (_, actions) in enumerate(group):
                        expected[row, actions] += across**age * within**place / size / len(groups)
            found = np.empty(expected.shape, np.float32)
            fill_groups(first, targets, histories.action_start, histories.actions, size, within, across, found)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(logs(), st.integers(0, 31))
def test_transitions(rows: list, before_day: int) -> None:
    with opened(rows) as dataset:
        V = dataset.n_actions
        table_row = np.array([-1 if action % 3 == 2 else action - action // 3 for action in range(V)], np.int32)
        table = np.zeros((table_row.max() + 1, V), np.float32)
        expected = np.zeros_like(table)
        for histories in dataset.batches():
            count_transitions(
                histories.visit_start,
                histories.visit_time,
                histories.action_start,
                histories.actions,
                before_day * DAY,
                table_row,
                table,
            )
            for visits in visits_of(histories):
                for (_, sources), (time, actions) in itertools.pairwise(visits):
                    for source in sources:
                        if time < before_day * DAY and table_row[source] >= 0:
                            expected[table_row[source], actions] += 1
        np.testing.assert_array_equal(table, expected)
        for histories, targets, first, plain in moments(dataset):
            found = np.empty((len(targets), V), np.float32)
            fill_transitions(first, targets, histories.action_start, histories.actions, table_row, table, found)
            for row, (earlier, _) in enumerate(plain):
                sources = [a for a in earlier[-1][1] if table_row[a] >= 0] if earlier else []
                np.testing.assert_allclose(found[row], expected[table_row[sources]].sum(axis=0))


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with opened(habit_log(), batch_pairs=400) as opened_dataset:
        yield opened_dataset


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return split_by_time(dataset)


@pytest.mark.parametrize("kind", BASELINES)
def test_contract(kind: type[Baseline], dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, calibration = fit_baseline(kind, dataset, split)
    assert calibration.temperature > 0
    for histories in dataset.batches():
        targets = target_visits(histories, split, "test")
        whole = np.concatenate([scores for _, scores in scorer.score(histories, targets)])
        assert whole.shape == (len(targets), dataset.n_actions)
        np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1.0, rtol=1e-4)
        assert_blind(scorer, histories, targets)
        with monkeypatch.context() as patch:
            patch.setattr(baselines, "BLOCK_VALUES", 3 * dataset.n_actions)
            blocks = list(scorer.score(histories, targets))
        assert len(blocks) > 1
        assert np.concatenate([block for block, _ in blocks]).tolist() == targets.tolist()
        np.testing.assert_allclose(np.concatenate([scores for _, scores in blocks]), whole, rtol=1e-5)


@pytest.mark.parametrize("kind", BASELINES)
def test_what_happens_after_the_test_begins_changes_no_fitted_value(kind: type[Baseline]) -> None:
    rows = habit_log()
    cut = sorted(time for _, time, _, _ in rows)[len(rows) * 8 // 10]
    changed = [(c, t, "action 0" if t >= cut else a, s) for c, t, a, s in rows]
    fitted = []
    for log in (rows, changed):
        with opened(log) as dataset:
            scorer = kind().fit(dataset, Split(cut // 2, cut))
            fitted.append({k: v for k, v in vars(scorer).items() if isinstance(v, np.ndarray)})
    assert fitted[0].keys() == fitted[1].keys()
    for name in fitted[0]:
        np.testing.assert_array_equal(fitted[0][name], fitted[1][name])


def test_last_visit_prefers_its_actions(dataset: Dataset, split: Split) -> None:
    scorer = LastVisit(prior=1.0).fit(dataset, split)
    for histories in dataset.batches():
        visits = [visit for customer in visits_of(histories) for visit in customer]
        for block, scores in scorer.score(histories, target_visits(histories, split, "test")):
            for visit, row in zip(block, scores, strict=True):
                last = visits[visit - 1][1]
                assert row[last].min() > np.delete(row, last).max()


def test_ages_count_visits_where_there_is_no_clock() -> None:
    rows = [("c", order, f"a{order % 2}", f"v{order}") for order in (1, 2, 50, 1000)]
    with opened(rows, time_kind="order") as dataset:
        scorer = DecayedFrequency(prior=1e-6, half_life=1.0).fit(dataset, Split(2, 2000))
        histories = next(dataset.batches())
        ((_, scores),) = scorer.score(histories, np.array([3]))
    # Before the last visit: a1 three visits ago, a0 two and one visit ago.
    np.testing.assert_allclose(np.exp(scores[0, 1:]), np.array([0.25 + 0.5, 0.125]) / 0.875, rtol=1e-4)


def test_tables_stay_within_their_share_of_memory(
    dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "TABLE_VALUES", 5 * dataset.n_actions)
    assert Markov().fit(dataset, split).table.shape == (5, dataset.n_actions)
    knn = TifuKnn(n_neighbours=10).fit(dataset, split)
    assert knn.sample.shape == (5, dataset.n_actions)
    for histories in dataset.batches():
        for _, scores in knn.score(histories, target_visits(histories, split, "test")):
            assert np.isfinite(scores).all()
