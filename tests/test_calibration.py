"""Calibration finds the parameters that made the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_model import DAY, make_dataset

from luckyfast.calibration import (
    EARLIER,
    LEAST_SLOPE,
    RIDGE,
    Calibration,
    StatedChances,
    _fit_chance,
    _fit_odds,
    _fit_offsets,
    _fit_temperature,
    _Pairs,
    _ranks,
    calibrate,
    log_softmax,
    mean_by_visit,
    n_calibrated,
)
from luckyfast.dataset import Histories
from luckyfast.windows import Labels, known_actions, split_by_time


def draw(truth: Calibration, n: int, n_actions: int, seed: int) -> tuple[np.ndarray, Labels]:
    """Scores, and visits that hold each action with exactly the chance that a calibration gives it."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, n_actions)).astype(np.float32) * 2
    scores[:, 0] = -np.inf
    mean_size = rng.integers(1, 12, n).astype(np.float64)
    came = rng.random(scores.shape) < truth.in_visit(scores, mean_size)
    start = np.concatenate(([0], np.cumsum(came.sum(axis=1))))
    return scores, Labels(start, np.nonzero(came)[1].astype(np.int32), mean_size)


@pytest.mark.parametrize("dispersion", [0.001, 0.4, 1.0, 3.0])
def test_the_curve_is_recovered(dispersion: float) -> None:
    rng = np.random.default_rng(0)
    log_p = -np.sort(rng.exponential(size=(60_000, 10)) * 3, axis=1)
    mean_size = rng.integers(1, 12, (60_000, 1)).astype(np.float64)
    truth = Calibration(1.0, 1.3, -0.4, 0.6, dispersion)
    chances = truth.chance(log_p.astype(np.float32), mean_size)
    actions = np.ones(log_p.shape, np.int32)
    came = rng.random(chances.shape) < chances
    pairs = _Pairs(actions, log_p.astype(np.float32), came, np.log1p(mean_size[:, 0]), 1.0 / np.arange(1, 11), 2)
    fitted = Calibration(1.0, *_fit_chance(pairs))
    errors = np.abs(fitted.chance(log_p.astype(np.float32), mean_size) - chances)
    assert errors.max() < 0.02
    assert errors.mean() < 0.004
    assert fitted.dispersion == pytest.approx(dispersion, abs=0.1 * (1 + dispersion))


@pytest.mark.parametrize("slopes", [(1.0, 1.0, 1.0, 1.0), (0.8, 1.2, 1.1, 0.5), (0.5, 0.9, 0.1, 0.3)])
def test_bends_are_recovered(slopes: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    z = np.sort(rng.normal(-1.5, 1.5, (30_000, 10)))[:, ::-1]
    actions = rng.integers(1, 20, z.shape)

    def fit(came: np.ndarray) -> Calibration:
        return Calibration(**_fit_odds(z, pairs_of(actions, came, 20)))

    knots = fit(np.zeros(z.shape, np.bool_)).knots
    truth = Calibration(odds_slope=slopes[0], odds_intercept=0.2, knots=knots, bends=tuple(np.diff(slopes).tolist()))
    chances = 1 / (1 + np.exp(-truth._bend(z)))
    fitted = fit(rng.random(z.shape) < chances)
    errors = np.abs(1 / (1 + np.exp(-fitted._bend(z))) - chances)
    assert np.quantile(errors, 0.999) < 0.05
    assert errors.mean() < 0.004
    assert np.abs(fitted.offsets).max() < 0.1


@pytest.mark.parametrize("given", [None, (0.0, 0.4, -0.7, 0.1, 0.0, 0.2, 1.1, -0.3)])
def test_bends_and_offsets_are_the_best_together(
    monkeypatch: pytest.MonkeyPatch, given: tuple[float, ...] | None
) -> None:
    """A step in any of them makes the penalised loss larger, but for offsets that are given."""
    rng = np.random.default_rng(5)
    z, actions = rng.normal(-1.0, 1.5, (400, 6)), rng.integers(0, 7, (400, 6))
    came = rng.random(z.shape) < 1 / (1 + np.exp(-0.9 * z - 0.3 * (actions - 3)))
    pairs = pairs_of(actions, came, 8)
    monkeypatch.setattr("luckyfast.calibration._STRETCH_PAIRS", 700)  # stretches of visits that do not come out even
    fitted = Calibration(**_fit_odds(z, pairs, offsets=None if given is None else np.array(given)))

    def loss(calibration: Calibration) -> float:
        log_odds = calibration._bend(z) + np.array(calibration.offsets)[actions]
        slopes = (calibration.odds_slope - 1.0, *calibration.bends)
        prior = 0.5 * (calibration.odds_intercept**2 + sum(slope**2 for slope in slopes))
        prior += 0.5 * RIDGE * sum(offset**2 for offset in calibration.offsets)
        return float((pairs.weights * (np.logaddexp(0.0, log_odds) - came * log_odds)).sum()) + prior

    assert min(np.cumsum((fitted.odds_slope, *fitted.bends))) > 0.1  # no bound is in play
    best = loss(fitted)
    if given is None:
        assert fitted.offsets[7] == 0.0  # it is nowhere
    else:
        assert fitted.offsets == given
    for step in (-0.02, 0.02):
        others = [
            replace(fitted, odds_slope=fitted.odds_slope + step),
            replace(fitted, odds_intercept=fitted.odds_intercept + step),
            *(replace(fitted, bends=moved(fitted.bends, k, step)) for k in range(3)),
            *(replace(fitted, offsets=moved(fitted.offsets, k, step)) for k in range(8) if given is None),
        ]
        assert best < min(map(loss, others))


def pairs_of(actions: np.ndarray, came: np.ndarray, n_actions: int) -> _Pairs:
    """What a fit of odds reads of visits whose actions have ranks from 1 on."""
    nothing, weights = np.zeros(actions.shape, np.float32), 1.0 / np.arange(1, actions.shape[1] + 1)
    return _Pairs(actions.astype(np.int32), nothing, came, nothing[:, 0], weights, n_actions)


def test_what_is_stated_the_wrong_way_round_is_worth_its_mean() -> None:
    """The more sure, the rarer: slopes are held at their bound, and all else is fitted to that."""
    rng = np.random.default_rng(6)
    z, actions = rng.normal(0.0, 2.0, (20_000, 6)), rng.integers(1, 7, (20_000, 6))
    came = rng.random(z.shape) < 1 / (1 + np.exp(0.5 * z + 1.0))
    fitted = Calibration(**_fit_odds(z, pairs_of(actions, came, 7)))
    assert np.cumsum((fitted.odds_slope, *fitted.bends)) == pytest.approx([LEAST_SLOPE] * 4)
    chances = 1 / (1 + np.exp(-fitted._bend(z) - np.array(fitted.offsets)[actions]))
    assert chances.max() - chances.min() < 0.1
    assert chances.mean() == pytest.approx(came.mean(), abs=0.003)


def moved(values: tuple[float, ...], place: int, step: float) -> tuple[float, ...]:
    return (*values[:place], values[place] + step, *values[place + 1 :])


def test_an_action_that_is_bought_alone_is_not_promised_too_often() -> None:
    truth = Calibration(1.0, 1.1, -0.2, 0.8, offsets=(0.0, -1.2, 0.8, *[0.0] * 27))
    fitted = Calibration.fit(draw(truth, 10_000, 30, seed) for seed in range(8))
    scores, labels = draw(truth, 20_000, 30, 99)
    chances, true = fitted.in_visit(scores, labels.mean_size), truth.in_visit(scores, labels.mean_size)
    first = scores.argmax(axis=1)
    for action in (1, 2, 3):
        rows = first == action
        assert chances[rows, action].mean() == pytest.approx(true[rows, action].mean(), abs=0.02)
    without = replace(fitted, offsets=()).in_visit(scores, labels.mean_size)
    assert without[first == 1, 1].mean() > true[first == 1, 1].mean() + 0.1


def drawn_on_days(
    offsets: np.ndarray, swing: float, n_days: int, seed: int
) -> tuple[list[tuple[np.ndarray, Labels]], np.ndarray]:
    """Visits of some days, where log odds of each action differ from day to day with a standard deviation."""
    rng = np.random.default_rng(seed)
    shocks = rng.normal(0, 1, (n_days, len(offsets))) * swing
    blocks, days = [], []
    for number in range(4 * n_days):
        day = number % n_days
        truth = Calibration(1.0, 1.1, -0.2, 0.8, offsets=tuple((offsets + shocks[day]).tolist()))
        blocks.append(draw(truth, 250, len(offsets), 1000 * seed + number))
        days.append(np.full((250, 1), day - 3))
    return blocks, np.concatenate(days)


def test_offsets_that_hold_day_after_day_are_found() -> None:
    true = np.random.default_rng(8).normal(0, 0.5, 30)
    found = _fit_offsets(*drawn_on_days(true, 0.0, 10, 1))
    assert np.corrcoef(found[1:], true[1:])[0, 1] > 0.95
    assert 0.3 < np.std(found[1:]) < 0.55  # the prior holds them back
    moving = _fit_offsets(*drawn_on_days(true, 0.5, 40, 1))  # they are seen through what changes from day to day
    assert np.corrcoef(moving[1:], true[1:])[0, 1] > 0.9


@pytest.mark.parametrize(("n_days", "share"), [(1, 1.01), (2, 1.01), (3, 0.6), (8, 0.5)])
def test_what_differs_from_day_to_day_is_no_offset(n_days: int, share: float) -> None:
    """Of few days with promotions little is what actions are like; visits on their own tell nothing of that."""
    blocks, days = drawn_on_days(np.zeros(30), 0.8, n_days, 2)
    found = _fit_offsets(blocks, days)
    believed = np.array(Calibration.fit(blocks).offsets)
    assert np.std(believed[1:]) > 0.15
    assert len(found) == 0 or np.std(found[1:]) < share * np.std(believed[1:])
    one_by_one = np.arange(len(days))[:, None]
    np.testing.assert_allclose(_fit_offsets(blocks, one_by_one), believed, atol=0.02)
    beside = _fit_offsets(blocks, np.concatenate((one_by_one, days), axis=1))  # of two partitions the worse counts
    np.testing.assert_array_equal(beside, found)


@pytest.mark.parametrize(("n_days", "most"), [(1, 0.06), (12, 0.03)])
def test_actions_that_are_alike_have_no_offsets(n_days: int, most: float) -> None:
    found = _fit_offsets(*drawn_on_days(np.zeros(30), 0.0, n_days, 3))
    assert len(found) == 0 or np.std(found) < most
    assert len(_fit_offsets([], np.zeros(0, np.int64))) == 0


def test_offsets_where_all_is_certain() -> None:
    scores = np.tile(np.array([-np.inf, 80.0, -80.0], np.float32), (40, 1))
    always = Labels(np.arange(41), np.ones(40, np.int32), np.ones(40))
    assert np.isfinite(_fit_offsets([(scores, always)], np.arange(40)[:, None])).all()
    everything = Labels(2 * np.arange(41), np.tile(np.array([1, 2], np.int32), 40), np.ones(40))
    assert np.isfinite(_fit_offsets([(scores, everything)], np.zeros((40, 2), np.int64))).all()


class Partial:
    """Knows most of what comes, and thinks better of some actions than of others for no reason."""

    name = "partial"

    def __init__(self, n_actions: int, clock: bool) -> None:
        self.n_actions, self.clock = n_actions, clock

    def score(self, histories: Histories, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        scores = np.tile(np.linspace(-1.0, 1.0, self.n_actions, dtype=np.float32), (len(targets), 1))
        for row, visit in enumerate(targets.tolist()):
            actions = histories.actions[histories.action_start[visit] : histories.action_start[visit + 1]]
            wrong = int(histories.visit_time[visit]) // (DAY if self.clock else 1) % 4 // 3  # on some days
            scores[row, (actions + wrong) % self.n_actions] += 2.0
        yield targets, scores


@pytest.mark.parametrize("clock", [True, False])
def test_offsets_come_from_before_validation_and_all_else_from_validation(
    tmp_path: Path, clock: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luckyfast.calibration.RIDGE", 0.01)  # so that days and customers decide
    dataset = make_dataset(tmp_path / "data", clock=clock)
    scorer, split = Partial(dataset.n_actions, clock), split_by_time(dataset)
    known = known_actions(dataset, split.valid_start)
    start = split.valid_start - EARLIER * (split.test_start - split.valid_start)
    histories = next(dataset.batches())
    position = np.arange(histories.n_visits) - np.repeat(histories.visit_start[:-1], np.diff(histories.visit_start))

    def sample(since: int) -> tuple[list[tuple[np.ndarray, Labels]], np.ndarray]:
        time = histories.visit_time
        visits = np.flatnonzero((time >= since) & (time < split.test_start) & (position >= split.min_history))
        ((_, scores),) = scorer.score(histories, visits)
        owners = np.searchsorted(histories.visit_start, visits, side="right")
        groups = np.stack((owners, time[visits] // DAY)[: 1 + clock], axis=1)
        return [(scores, Labels.of(histories, visits, known))], groups

    whole, groups = sample(start)
    valid, _ = sample(split.valid_start)
    assert len(groups) > 1.5 * len(valid[0][0])
    offsets = _fit_offsets(whole, groups)
    assert np.std(offsets) > 0.05
    expected = Calibration(_fit_temperature(valid))._with_chances(valid, offsets)
    assert calibrate(scorer, dataset, split, earlier=True) == expected
    assert calibrate(scorer, dataset, split) == Calibration.fit(valid) != expected
    n_valid = len(valid[0][0])
    assert n_calibrated(dataset.n_actions, n_valid) == n_valid * (2 + EARLIER)
    assert n_calibrated(2**20, n_valid) == 32


@pytest.mark.parametrize("n_actions", [1, 5, 10, 11, 30, 302, 50_000])
def test_ranks_stand_for_all(n_actions: int) -> None:
    ranks, weights = _ranks(n_actions)
    assert len(set(ranks.tolist())) == len(ranks) == len(weights) == min(n_actions, 22)
    assert ranks.min() == 1
    assert ranks.max() <= n_actions
    assert weights.sum() == pytest.approx((1.0 / np.arange(1, n_actions + 1)).sum(), rel=0.01)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_stated_chances_keep_their_level(power: float) -> None:
    """Visits that are said to be small are; what is said too surely, the odds squared, is mended."""
    rng = np.random.default_rng(3)

    def blocks(n: int) -> tuple[np.ndarray, Labels, np.ndarray]:
        log_odds = rng.normal(-2.0, 1.0, (n, 40)) + rng.choice([-2.0, 1.5], (n, 1))
        came = rng.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))
        start = np.concatenate(([0], np.cumsum(came.sum(axis=1))))
        scores = -np.logaddexp(0.0, -power * log_odds)
        labels = Labels(start, np.nonzero(came)[1].astype(np.int32), np.full(n, 5.0))
        return scores.astype(np.float32), labels, log_odds

    fitted = StatedChances.fit(blocks(4000)[:2] for _ in range(5))
    scores, labels, log_odds = blocks(2000)
    true = 1 / (1 + np.exp(-log_odds))
    assert true.sum(axis=1).min() < 1.5 < 12 < true.sum(axis=1).max()
    assert np.abs(fitted.in_visit(scores, labels.mean_size) - true)[:, 1:].mean() < 0.006
    forgetful = Calibration.fit(blocks(4000)[:2] for _ in range(5))
    assert np.abs(forgetful.in_visit(scores, labels.mean_size) - true)[:, 1:].mean() > 0.05
    assert (StatedChances().in_visit(np.zeros((1, 2), np.float32), np.ones(1)) > 0.999999).all()


@pytest.mark.parametrize(("other", "worth"), [(1e-13, 0.4), (1e-3, 0.4), (1e-13, 0.03)])
def test_certain_predictions_are_taken_at_their_worth(other: float, worth: float) -> None:
    """Chances of 1 for five actions, which seldom come: the logistic curve is flat where they lie."""
    rng = np.random.default_rng(0)
    named = np.zeros((4000, 40), np.bool_)
    np.put_along_axis(named, rng.random((4000, 39)).argsort(axis=1)[:, :5] + 1, True, axis=1)
    came = rng.random(named.shape) < np.where(named, worth, 0.02)
    came[:, 0] = False
    labels = Labels(np.cumsum([0, *came.sum(axis=1)]), np.nonzero(came)[1].astype(np.int32), np.full(4000, 3.0))
    scores = np.log(np.where(named, 1.0, other)).astype(np.float32)
    chances = StatedChances.fit([(scores, labels)]).in_visit(scores, labels.mean_size)
    assert chances[named].mean() == pytest.approx(worth, abs=0.02)
    assert chances[~named].mean() == pytest.approx(0.02, abs=0.005)


def test_actions_that_a_list_does_not_name_are_not_told_apart_by_their_ids() -> None:
    """Low ids come more often, as where ids go by frequency: those not named come as often as said on the whole."""
    rng = np.random.default_rng(8)
    often = 0.5 / np.arange(1, 60)
    came = rng.random((8000, 59)) < often
    named = rng.random((8000, 59)).argsort(axis=1)[:, :3]
    scores = np.full((8000, 60), -5.0, np.float32)
    np.put_along_axis(scores, named + 1, np.array([[0.0, -1.0, -2.0]], np.float32), axis=1)
    labels = Labels(np.cumsum([0, *came.sum(axis=1)]), np.nonzero(came)[1].astype(np.int32) + 1, np.full(8000, 3.0))
    chances = Calibration.fit([(scores, labels)]).in_visit(scores, labels.mean_size)[:, 1:]
    rest = scores[:, 1:] == -5.0
    assert chances[rest].mean() == pytest.approx(came[rest].mean(), rel=0.04)


def test_rare_actions_come_as_often_as_said() -> None:
    truth = Calibration(1.0, 1.3, 0.6, 0.8, 0.2, 0.8, -0.3)
    fitted = Calibration.fit(draw(truth, 3000, 200, seed) for seed in range(6))
    scores, labels = draw(truth, 3000, 200, 99)
    chances = fitted.in_visit(scores, labels.mean_size)[:, 1:]
    true = truth.in_visit(scores, labels.mean_size)[:, 1:]
    for low, high in ((0.0, 0.003), (0.003, 0.01), (0.01, 0.05), (0.05, 1.0)):
        inside = (true >= low) & (true < high)
        assert inside.sum() > 1000
        assert chances[inside].mean() == pytest.approx(true[inside].mean(), rel=0.2)


def test_the_chance_is_that_of_a_negative_binomial_event() -> None:
    rng = np.random.default_rng(0)
    log_p = np.log(np.array([0.02, 0.2, 0.6], np.float32))
    for dispersion in (0.3, 1.0, 2.5):
        intensities = rng.gamma(1 / dispersion, dispersion, 200_000)
        events = rng.poisson(intensities[:, None] * np.exp(log_p) * 4.0)
        chances = Calibration(1.0, 1.0, 0.0, 1.0, dispersion).chance(log_p, np.array(3.0))
        np.testing.assert_allclose((events > 0).mean(axis=0), chances, atol=0.005)


@pytest.mark.parametrize(("n_visits", "gap"), [(1, 0.2), (5, 0.12), (40, 0.06)])
def test_few_visits_do_not_lead_astray(n_visits: int, gap: float) -> None:
    truth = Calibration()
    scores, labels = draw(truth, 500, 30, 99)
    chances = truth.in_visit(scores, labels.mean_size)
    for seed in range(20):
        fitted = Calibration.fit([draw(truth, n_visits, 30, seed)])
        assert np.abs(fitted.in_visit(scores, labels.mean_size) - chances).mean() < gap


def test_chances_come_true() -> None:
    truth = Calibration(slope=1.2, intercept=-0.4, size_weight=0.7)
    fitted = Calibration.fit(draw(truth, 2000, 30, seed) for seed in range(5))
    scores, labels = draw(truth, 20_000, 30, 99)
    best = scores.argmax(axis=1)
    chances = fitted.in_visit(scores, labels.mean_size)[np.arange(len(best)), best]
    rows = np.repeat(np.arange(len(best)), np.diff(labels.start))
    came = np.bincount(rows, labels.actions == best[rows], minlength=len(best))
    for fifth in np.array_split(np.argsort(chances), 5):
        assert chances[fifth].mean() == pytest.approx(came[fifth].mean(), abs=0.03)


def test_the_temperature_minimises_the_loss() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(4000, 20)).astype(np.float32) * 3
    chances = np.exp(log_softmax(scores / np.float32(1.7)))
    actions = np.array([rng.choice(20, p=row / row.sum()) for row in chances.astype(np.float64)], np.int32)
    labels = Labels(np.arange(4001), actions, np.ones(4000))
    assert Calibration.fit([(scores, labels)]).temperature == pytest.approx(1.7, rel=0.05)

    def loss(temperature: float) -> float:
        return -float(mean_by_visit(Calibration(temperature).log_next_action(scores), labels).mean())

    best = Calibration.fit([(scores, labels)]).temperature
    assert loss(best) <= min(loss(best * 0.97), loss(best * 1.03))


def test_probabilities_are_probabilities() -> None:
    scores = np.array([[-np.inf, 800.0, 0.0], [-np.inf, -800.0, -900.0], [0.0, 0.0, 0.0]], np.float32)
    for calibration in (
        Calibration(),
        Calibration(0.2, 3.0, -2.0, 0.0, 10.0, 0.05, 3.0, (-3.0, 0.0), (0.5, -0.5)),
        Calibration(0.1, 9.0, 200.0, 9.0, 0.001),
        Calibration(1.0, 2.0, 0.1, 0.5, 2.0, 1.0, 0.0, (), (), (0.3, 0.3, 0.3)),
    ):
        p = calibration.next_action(scores)
        chance = calibration.in_visit(scores, np.array([0.0, 5.0, 1e6]))
        assert p.dtype == chance.dtype == np.float32
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
        assert ((chance >= 0) & (chance <= 1)).all()
        assert (np.argmax(p, axis=1) == np.argmax(chance, axis=1)).all()


def test_json_round_trip() -> None:
    calibration = Calibration(0.9, 1.3, -0.2, 0.8, 0.1, 1.1, -0.1, (-2.5, 0.5), (0.25, -0.5), (0.0, -1.5))
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


def test_nothing_to_fit_gives_the_default() -> None:
    assert Calibration.fit([]) == Calibration()
    empty = Labels(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0))
    assert Calibration.fit([(np.zeros((0, 3), np.float32), empty)]) == Calibration()


def test_no_more_than_a_sample_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luckyfast.calibration.SAMPLE_VALUES", 5000)
    read = []

    def blocks():  # type: ignore[no-untyped-def]
        for seed in range(100):
            read.append(seed)
            yield draw(Calibration(), 100, 20, seed)

    Calibration.fit(blocks())
    assert len(read) == 3


def test_a_visit_of_unknown_actions_costs_the_unknown_share() -> None:
    log_next = np.log(np.array([[0.1, 0.9], [0.5, 0.5]], np.float32))
    labels = Labels(np.array([0, 1, 3]), np.array([0, 0, 1], np.int32), np.ones(2))
    np.testing.assert_allclose(mean_by_visit(log_next, labels), np.log([0.1, 0.5]), rtol=1e-6)


def test_a_larger_share_of_an_action_is_never_a_smaller_chance_of_it() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3000, 20)).astype(np.float32) * 3
    worst = scores.argmin(axis=1)
    labels = Labels(np.arange(3001), worst.astype(np.int32), rng.integers(1, 9, 3000).astype(np.float64))
    fitted = Calibration.fit([(scores, labels)])
    shares = fitted.log_next_action(scores)
    order = np.argsort(shares, axis=0)
    chances = fitted.chance(np.take_along_axis(shares, order, axis=0), np.full((3000, 1), 5.0))
    assert (np.diff(chances, axis=0) >= 0).all()


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_scores_of_any_scale_give_the_same_probabilities(scale: float) -> None:
    scores, labels = draw(Calibration(), 3000, 60, 4)
    fitted, scaled = Calibration.fit([(scores, labels)]), Calibration.fit([(np.float32(scale) * scores, labels)])
    assert scaled.temperature == pytest.approx(scale * fitted.temperature, rel=1e-3)


def test_ranks_alone_are_worth_what_they_are_worth() -> None:
    """Scores that are places in a long list: far behind the first there is still something."""
    rng = np.random.default_rng(0)
    places = np.minimum(rng.exponential(15.0, 4000).astype(int), 98) + 1
    scores = np.tile(-np.arange(100, dtype=np.float32), (4000, 1))
    scores[:, 0] = -np.inf
    labels = Labels(np.arange(4001), places.astype(np.int32), np.ones(4000))
    assert Calibration.fit([(scores, labels)]).temperature == pytest.approx(15.0, rel=0.05)


def test_what_always_came_is_not_certain() -> None:
    scores = np.tile(np.log(np.array([1e-30, 0.99, 0.01], np.float32)), (200, 1))
    labels = Labels(np.arange(201), np.ones(200, np.int32), np.ones(200))
    other = Calibration.fit([(scores, labels)]).next_action(scores)[0, 2]
    assert other == pytest.approx(0.5 / 201, rel=0.01)
