"""The ruler measures right, and cannot be cheated."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from log_rows import DAY, habit_log, opened, visits_of

from luckyfast.baselines import BASELINES, PersonalFrequency, Popularity, fit_baseline
from luckyfast.calibration import Calibration
from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import ModelError
from luckyfast.evaluation import assert_blind, evaluate, lead
from luckyfast.figures import CHANCE_EDGES, Tally
from luckyfast.windows import Split, split_by_time, target_visits


@dataclass
class Rule:
    """A scorer made of a function of (histories, visit) that gives one row."""

    row: Callable[[Histories, int], np.ndarray]
    name: str = "rule"

    def score(self, histories: Histories, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(targets), 7):
            block = targets[start : start + 7]
            yield block, np.stack([self.row(histories, int(visit)) for visit in block]).astype(np.float32)


N_ACTIONS = 13


def actions_of(histories: Histories, visit: int) -> np.ndarray:
    return histories.actions[histories.action_start[visit] : histories.action_start[visit + 1]]


def knows(*visits: int) -> Callable[[Histories, int], np.ndarray]:
    """Score the actions of the visits at these offsets from the target, where they are the same customer's."""

    def row(histories: Histories, visit: int) -> np.ndarray:
        scores = np.zeros(N_ACTIONS)
        customer = np.searchsorted(histories.visit_start, visit, side="right") - 1
        for other in (visit + offset for offset in visits):
            if histories.visit_start[customer] <= other < histories.visit_start[customer + 1]:
                scores[actions_of(histories, other)] += 1.0
        return scores

    return row


@pytest.fixture(scope="module")
def dataset() -> Iterator[Dataset]:
    with opened(habit_log(), batch_pairs=400) as opened_dataset:
        assert opened_dataset.n_actions == N_ACTIONS
        yield opened_dataset


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return split_by_time(dataset)


@pytest.mark.parametrize("offsets", [(0,), (1,), (-1, 0), (-1, 2)])
def test_a_model_that_sees_the_future_is_caught(dataset: Dataset, split: Split, offsets: tuple[int, ...]) -> None:
    cheat = Rule(knows(*offsets), "cheat")
    with pytest.raises(ModelError, match="cheat sees the future"):
        evaluate(cheat, dataset, split)


def test_a_model_that_counts_what_follows_is_caught(dataset: Dataset, split: Split) -> None:
    def row(histories: Histories, visit: int) -> np.ndarray:
        customer = np.searchsorted(histories.visit_start, visit, side="right") - 1
        return np.arange(N_ACTIONS) * (histories.visit_start[customer + 1] - visit)

    with pytest.raises(ModelError, match="sees the future"):
        evaluate(Rule(row), dataset, split)


@pytest.mark.parametrize("attribute", ["visit_key", "counts"])
def test_a_model_that_reads_the_visit_itself_is_caught(dataset: Dataset, split: Split, attribute: str) -> None:
    def row(histories: Histories, visit: int) -> np.ndarray:
        place = histories.action_start[visit] if attribute == "counts" else visit
        return np.arange(N_ACTIONS) * float(getattr(histories, attribute)[place] % 97)

    with pytest.raises(ModelError, match="sees the future"):
        evaluate(Rule(row), dataset, split)


def test_honest_models_pass(dataset: Dataset, split: Split) -> None:
    def time_and_past(histories: Histories, visit: int) -> np.ndarray:
        return knows(-1, -2)(histories, visit) * (histories.visit_time[visit] // DAY % 7)

    for histories in dataset.batches():
        assert_blind(Rule(time_and_past), histories, target_visits(histories, split, "test"))


@pytest.mark.parametrize("offers", [False, True])
def test_figures_against_plain_python(dataset: Dataset, split: Split, offers: bool) -> None:
    scorer = Rule(lambda h, v: knows(-1, -2)(h, v) + np.arange(N_ACTIONS) / 100)
    offsets = tuple(np.linspace(-1.0, 1.0, N_ACTIONS).tolist())
    calibration = Calibration(1.3, 1.1, -0.1, 0.9, offsets=offsets)
    result = evaluate(scorer, dataset, split, calibration, offers=offers)
    measured = ("hit@1", "hit@3", "recall@10", "ndcg@10", "nll", "brier")
    sums: dict[str, list[float]] = {name: [] for name in (*measured, "before", "repeat", "explore", "short")}
    sums |= {"repeat first": [], "explore first": []}
    pairs: list[tuple[float, bool]] = []
    for histories in dataset.batches():
        visit = 0
        for visits in visits_of(histories):
            for i, (time, actions) in enumerate(visits):
                scores = scorer.row(histories, visit).astype(np.float32)[None]
                visit += 1
                if time < split.test_start:
                    continue
                ranked = (np.argsort(-scores[0, 1:]) + 1).tolist()
                sizes = [len(earlier) for _, earlier in visits[:i]] or [0]
                chances = calibration.in_visit(scores, np.array([np.mean(sizes)]))[0]
                if offers:
                    ranked.sort(key=lambda action: action != 1 + chances[1:].argmax())
                if i < split.min_history:
                    sums["short"].append(ranked[0] in actions)
                    continue
                chance = float(chances[ranked[0]])
                pairs += [(float(chances[action]), action in actions) for action in range(1, N_ACTIONS)]
                plain = float(Calibration().in_visit(scores, np.array([np.mean(sizes)]))[0, ranked[0]])
                sums["before"].append((plain - (ranked[0] in actions)) ** 2)
                p = calibration.next_action(scores)[0]
                places = [ranked.index(action) + 1 for action in actions]
                best = sum(1 / np.log2(place + 1) for place in range(1, len(actions) + 1))
                sums["hit@1"].append(ranked[0] in actions)
                sums["hit@3"].append(min(places) <= 3)
                sums["recall@10"].append(np.mean([place <= 10 for place in places]))
                sums["ndcg@10"].append(sum(1 / np.log2(place + 1) for place in places if place <= 10) / best)
                sums["nll"].append(-np.log(p[actions]).mean())
                sums["brier"].append((chance - (ranked[0] in actions)) ** 2)
                old = {action for _, earlier in visits[:i] for action in earlier}
                for name, part in (("repeat", set(actions) & old), ("explore", set(actions) - old)):
                    sums[name] += [np.mean([ranked.index(action) < 10 for action in part])] if part else []
                    sums[f"{name} first"] += [ranked[0] in part] if part else []
    assert result.n_visits == len(sums["hit@1"])
    for name in measured:
        assert result.figures[name].value == pytest.approx(np.mean(sums[name]), rel=1e-5), name
        assert result.figures[name].low < result.figures[name].value < result.figures[name].high
    for name in ("repeat", "explore"):
        part = getattr(result, name)
        assert part.n_visits == len(sums[name])
        assert part.figures["recall@10"].value == pytest.approx(np.mean(sums[name]))
        assert part.figures["hit@1"].value == pytest.approx(np.mean(sums[f"{name} first"]))
    assert result.short.n_visits == len(sums["short"])
    assert result.calibration == {name: own for name, own in calibration.to_dict().items() if name != "offsets"}
    bins = result.reliability
    gap = sum(bin_.n * abs(bin_.mean_predicted - bin_.observed) for bin_ in bins) / result.n_visits
    assert result.figures["ece"].value == pytest.approx(gap, abs=1e-6)
    assert result.before["brier"].value == pytest.approx(np.mean(sums["before"]), rel=1e-5)
    assert result.before["brier"].value != pytest.approx(result.figures["brier"].value, rel=1e-3)
    gaps: dict[int, float] = {}
    for chance, came in pairs:
        bin_ = sum(chance >= edge for edge in CHANCE_EDGES.tolist())
        gaps[bin_] = gaps.get(bin_, 0.0) + chance - came
    expected = sum(map(abs, gaps.values())) / len(pairs)
    assert result.figures["ece_pairs"].value == pytest.approx(expected, abs=1e-6)
    assert [bin_.n for bin_ in result.reliability_pairs] == [
        sum(sum(chance >= edge for edge in CHANCE_EDGES.tolist()) == bin_ for chance, _ in pairs)
        for bin_ in sorted(gaps)
    ]


def test_rows_shuffled_inside_visits_change_nothing() -> None:
    rows = habit_log()
    visits: dict[str, list] = {}
    for row in rows:
        visits.setdefault(row[3], []).append(row)
    rng = random.Random(1)
    shuffled = [row for visit in visits.values() for row in rng.sample(visit, len(visit))]
    assert shuffled != rows
    results = []
    for log in (rows, shuffled):
        with opened(log) as dataset:
            split = split_by_time(dataset)
            systems = [fit_baseline(kind, dataset, split) for kind in BASELINES]
            results.append([evaluate(scorer, dataset, split, fitted).to_dict() for scorer, fitted in systems])
    assert results[0] == results[1]


def test_actions_first_seen_in_the_test_are_misses() -> None:
    rows = [("c", day * DAY, "old", f"v{day}") for day in range(18)]
    rows += [("c", day * DAY, "new", f"v{day}") for day in range(18, 20)]
    with opened(rows) as dataset:
        split = Split(10 * DAY, 18 * DAY)
        always_new = Rule(lambda h, v: np.array([0.0, 5.0, 0.0]))
        assert dataset.vocabulary[1] == "new"
        result = evaluate(always_new, dataset, split)
        assert result.figures["hit@1"].value == 0.0
        unknown = float(-np.log(Calibration().next_action(np.array([[0.0, 5.0, 0.0]], np.float32))[0, 0]))
        assert result.figures["nll"].value == pytest.approx(unknown)


def test_customers_with_short_histories_are_reported_apart() -> None:
    rows = [*habit_log(n_customers=10), *[(f"new {i}", 97 * DAY, "action 1", f"n{i}") for i in range(4)]]
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        result = evaluate(Popularity().fit(dataset, split), dataset, split)
        n_targets = sum(len(target_visits(h, split, "test")) for h in dataset.batches())
    assert result.n_visits == n_targets
    assert result.short.n_visits == 4
    assert set(result.short.figures) >= {"hit@1", "nll"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (lambda h, v: np.full(N_ACTIONS, np.nan), "no numbers"),
        (lambda h, v: np.append(np.zeros(N_ACTIONS - 1), -np.inf), "no numbers"),
        (lambda h, v: np.zeros(N_ACTIONS + 1), "did not score each target"),
    ],
)
def test_scores_that_cannot_be_measured_are_refused(
    dataset: Dataset, split: Split, row: Callable, message: str
) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(ModelError, match=message):
        evaluate(Rule(row), dataset, split)


def test_a_scorer_that_leaves_targets_out_is_refused(dataset: Dataset, split: Split) -> None:
    class Lazy(Rule):
        def score(self, histories: Histories, targets: np.ndarray) -> Iterator:
            return super().score(histories, targets[:5])

    with pytest.raises(ModelError, match="scored 5 of"):
        evaluate(Lazy(knows(-1)), dataset, split)


def test_results_are_json(dataset: Dataset, split: Split) -> None:
    result = evaluate(PersonalFrequency().fit(dataset, split), dataset, split, name="mine")
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert read == result.to_dict()
    assert (read["name"], "resampled" in read) == ("mine", False)
    assert read["figures"]["hit@1"]["value"] == result.figures["hit@1"].value


def test_no_targets_give_no_figures(dataset: Dataset) -> None:
    split = Split(10**17, 10**18)
    result = evaluate(Popularity().fit(dataset, split), dataset, split)
    assert result.n_visits == 0
    assert all(figure["value"] is None for figure in result.to_dict()["figures"].values())


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    n_covered = 0
    for trial in range(60):
        tally = Tally(trial)
        skill = np.repeat(rng.random(200), 10)
        customers = np.repeat(np.arange(200), 10)
        values = np.repeat((rng.random(2000) < skill)[:, None].astype(np.float64), 4, axis=1)
        tally.add("all", customers, np.column_stack((values, values[:, :2])))
        figure = tally.figures("all").figures["hit@1"]
        n_covered += figure.low <= 0.5 <= figure.high
    assert n_covered >= 50


def tally_of(bend: float, *, n: int = 20_000, n_customers: int = 500, seed: int = 1) -> Tally:
    """Visits whose first-ranked action comes with the chance given to it plus ``bend``."""
    rng = np.random.default_rng(seed)
    chances = rng.random(n).astype(np.float32) * 0.8
    outcomes = (rng.random(n) < chances + bend).astype(np.float64)
    tally = Tally(seed)
    customers = np.arange(n) % n_customers
    for section in ("all", "before"):
        tally.add(section, customers, np.zeros((n, 6)))
        tally.add_chances(section, customers, chances, outcomes)
    return tally


def test_the_usual_error_has_a_floor_and_the_debiased_one_has_none() -> None:
    perfect = [tally_of(0.0, seed=seed) for seed in range(12)]
    usual = [tally.figures("all").figures["ece"].value for tally in perfect]
    debiased = [tally.figures("all").figures["ece_debiased"].value for tally in perfect]
    floors = [tally.noise_floor() for tally in perfect]
    assert np.mean(usual) == pytest.approx(np.mean(floors), rel=0.15)
    assert np.mean(usual) > 0.008
    # Half of the time the squared estimate is negative and counts as 0; the other half is small.
    assert np.median(debiased) < 0.6 * np.mean(usual)


@pytest.mark.parametrize("bend", [0.02, 0.2])
def test_both_errors_find_a_bend(bend: float) -> None:
    figures = tally_of(bend).figures("all").figures
    for name in ("ece", "ece_debiased"):
        assert figures[name].value == pytest.approx(bend, abs=0.006)
        assert figures[name].low <= bend + 0.004
        assert figures[name].high >= bend - 0.004
    assert sum(bin_.n for bin_ in tally_of(bend).reliability()) == 20_000


def test_noise_is_that_of_customers_and_not_of_visits() -> None:
    # Customers who always hit or never: 500 draws and not 20,000.
    rng = np.random.default_rng(0)
    customers = np.arange(20_000) % 500
    outcomes = (rng.random(500) < 0.5)[customers].astype(np.float64)
    tally = Tally()
    tally.add("all", customers, np.zeros((20_000, 6)))
    tally.add_chances("all", customers, np.full(20_000, 0.5, np.float32), outcomes)
    assert tally.noise_floor() == pytest.approx(0.8 * 0.5 / np.sqrt(500), rel=0.2)


def test_the_lead_is_paired(dataset: Dataset, split: Split) -> None:
    scorer = PersonalFrequency().fit(dataset, split)
    own = evaluate(scorer, dataset, split)
    common = evaluate(Popularity().fit(dataset, split), dataset, split)
    difference = lead(own, common)["hit@1"]
    assert difference.value == pytest.approx(own.figures["hit@1"].value - common.figures["hit@1"].value)
    assert 0 < difference.low < difference.high
    for figure in lead(own, evaluate(scorer, dataset, split)).values():
        assert figure.low == figure.value == figure.high == 0.0


def test_one_customer_has_no_interval() -> None:
    with opened(habit_log(n_customers=1, n_visits=60)) as dataset:
        split = split_by_time(dataset)
        own = evaluate(PersonalFrequency().fit(dataset, split), dataset, split)
        common = evaluate(Popularity().fit(dataset, split), dataset, split)
    for figure in [*own.figures.values(), *lead(own, common).values()]:
        assert np.isfinite(figure.value)
        assert np.isnan(figure.low)
        assert np.isnan(figure.high)
    assert own.to_dict()["figures"]["hit@1"]["low"] is None
