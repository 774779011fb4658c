"""Baseline kernels against plain Python, and what every baseline promises."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log, logs, opened, visits_of
from luckyfast.kernels.baselines import (
    add_neighbours,
    count_transitions,
    fill_frequencies,
    fill_groups,
    fill_transitions,
    select_nearest,
    subtract_products,
)

from luckyfast import baselines
from luckyfast.baselines import (
    BASELINES,
    Baseline,
    DecayedFrequency,
    LastVisit,
    Markov,
    TifuKnn,
    _SampleIndex,
    fit_baseline,
)
from luckyfast.dataset import Dataset
from luckyfast.evaluation import assert_blind, evaluate
from luckyfast.windows import Split, first_visits, known_actions, split_by_time, target_visits

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


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_neighbours(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_sample, V = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    k = data.draw(st.integers(1, n_sample))
    sample = (rng.integers(0, 3, (n_sample, V)) * (rng.random((n_sample, V)) < 0.5)).astype(np.float32)
    rows = (rng.integers(0, 3, (5, V)) * (rng.random((5, V)) < 0.5)).astype(np.float32)
    index = _SampleIndex.of(sample)
    distances = np.tile(index.norms, (5, 1))
    subtract_products(rows, index.action_start, index.holders, index.held, distances)
    lengths = (rows**2).sum(axis=1, keepdims=True)
    expected = ((rows[:, None] - sample[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(distances + lengths, expected)
    nearest = np.empty((5, k), np.int32)
    select_nearest(distances, nearest)
    # Small whole numbers are exact, so equals are equal and the first of them comes first.
    np.testing.assert_array_equal(nearest, np.argsort(expected, axis=1, kind="stable")[:, :k])
    mixed = rows.copy()
    add_neighbours(nearest, index.start, index.actions, index.amounts, 0.25, mixed)
    for row in range(5):
        mean = np.mean([sample[neighbour] for neighbour in nearest[row]], axis=0)
        np.testing.assert_allclose(mixed[row], 0.25 * rows[row] + 0.75 * mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1e-38, 1e30])
def test_nearest_of_extreme_distances(spread: float) -> None:
    distances = (np.random.default_rng(0).random((3, 50)) * spread).astype(np.float32)
    nearest = np.empty((3, 7), np.int32)
    select_nearest(distances, nearest)
    np.testing.assert_array_equal(nearest, np.argsort(distances, axis=1, kind="stable")[:, :7])


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


@pytest.mark.parametrize("kind", BASELINES)
def test_settings_are_chosen_as_if_each_were_fitted_alone(
    kind: type[Baseline], dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "BLOCK_VALUES", 5 * dataset.n_actions)
    known = known_actions(dataset, split.valid_start)
    for learner, variants in kind().families():
        learner.fit(dataset, split, before=split.valid_start)
        losses = baselines._gains_lost(learner, variants, dataset, split, known)
        for loss, changes in zip(losses, variants, strict=True):
            alone = dataclasses.replace(learner, **changes).fit(dataset, split, before=split.valid_start)
            measured = evaluate(alone, dataset, split, part="valid").figures
            n_visits = sum(len(target_visits(h, split, "valid")) for h in dataset.batches())
            assert -loss / n_visits == pytest.approx(measured["ndcg@10"].value, rel=1e-5)
            likelihoods = baselines._log_likelihoods(alone, dataset, split, known)
            for prior, likelihood in zip(alone.priors, likelihoods, strict=True):
                scores = dataclasses.replace(alone, prior=prior)
                nll = evaluate(scores, dataset, split, part="valid").figures["nll"].value
                assert -likelihood / n_visits == pytest.approx(nll, rel=1e-4)


def test_dense_and_sparse_samples_give_the_same(
    dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(baselines, "SPARSE_SHARE", share)
        scorer = TifuKnn(n_neighbours=5, within=0.937).fit(dataset, split)
        histories = next(dataset.batches())
        scores.append(np.concatenate([s for _, s in scorer.score(histories, target_visits(histories, split, "test"))]))
    # Vectors that are equal to the last bit but one may change places.
    assert np.isclose(*scores, rtol=1e-3, atol=1e-3).mean() > 0.95


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
