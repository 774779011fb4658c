"""Proposals, rungs and clock as pure logic: nothing is trained here."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import opened, visits_of
from tiny_model import make_dataset, make_trained

from luckyfast.errors import ModelError
from luckyfast.models import ModelConfig
from luckyfast.search.clock import Clock, CostModel, visit_cost
from luckyfast.search.importance import importance
from luckyfast.search.journal import Journal, Record, Trial
from luckyfast.search.memory import MemoryModel
from luckyfast.search.process import JobKilledError, OutOfMemoryError
from luckyfast.search.proposer import GP_OPTIMIZER, Proposer, lexicographic
from luckyfast.search.scheduler import RUNGS, Job, Scheduler
from luckyfast.search.space import Dimension, Space, default_space
from luckyfast.search.study import Study
from luckyfast.search.trial import _save, load_trial, share_holding

START = ModelConfig().to_dict()
PLANE = Space((Dimension("dropout", "linear", (0.0, 1.0)), Dimension("recency", "linear", (0.0, 1.0))), START)


def record(loss: float | None, *, seconds: float = 1.0, status: str | None = None, **figures: Any) -> Record:
    return Record(
        status or ("ok" if loss is not None else "failed"), loss, seconds, {"valid_seconds": 0.0, **figures}, 0.0
    )


def tried(space: Space, n: int, loss: Any = None, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    settings = [space.decode(point) for point in rng.uniform(size=(n, len(space.dimensions)))]
    losses = [float(loss(one)) if loss else float(rng.normal()) for one in settings]
    return [Trial(i, one, {0: record(value)}) for i, (one, value) in enumerate(zip(settings, losses, strict=True))]


@pytest.mark.parametrize("optimizer", ["DiscreteOnePlusOne", GP_OPTIMIZER, "DE", "CMA"])
def test_proposals_follow_from_seed_number_and_results(optimizer: str) -> None:
    space = default_space(ModelConfig())
    results = tried(space, 12)
    first, same, other = (Proposer(space, optimizer, seed).propose(12, results) for seed in (0, 0, 1))
    assert first == same
    assert first != other
    assert first != Proposer(space, optimizer, 0).propose(13, results)


def test_the_default_comes_first_and_nothing_comes_twice() -> None:
    few = Space((Dimension("habit_hidden", "ordered", (4, 8, 16)), Dimension("epochs", "linear", (1, 2))), START)
    few.start["epochs"], few.start["habit_hidden"] = 1, 8  # type: ignore[index]
    proposer, trials = Proposer(few), []
    while (settings := proposer.propose(len(trials), trials)) is not None:
        trials.append(Trial(len(trials), settings, {0: record(1.0)}))
    seen = [trial.settings for trial in trials]
    assert seen[0] == few.start
    assert len(seen) == len({(one["habit_hidden"], one["epochs"]) for one in seen}) == 6


@pytest.mark.parametrize("optimizer", ["NGOpt", "PSO", "TwoPointsDE", "NGOptBase"])
def test_optimizers_that_choose_others_propose(optimizer: str) -> None:
    space = default_space(ModelConfig())
    results = tried(space, 4)
    assert Proposer(space, optimizer).propose(5, results) not in [None, *(trial.settings for trial in results)]


@pytest.mark.parametrize("optimizer", ["NelderMead", "Cobyla", "Powell", "EDA"])
def test_optimizers_that_cannot_be_told_of_others_are_refused(optimizer: str) -> None:
    with pytest.raises(ModelError, match=f"'{optimizer}' cannot be used") as caught:
        Proposer(default_space(ModelConfig()), optimizer)
    assert caught.value.hint


def test_where_all_is_fixed_there_is_the_default_alone() -> None:
    space = Space((), START)
    assert Proposer(space).propose(0) == START
    assert Proposer(space).propose(1, [Trial(0, START, {2: record(1.0)})]) is None


def test_what_is_not_allowed_is_not_proposed() -> None:
    space = default_space(ModelConfig())
    results = tried(space, 10)
    for number in range(10, 30):
        settings = Proposer(space).propose(number, results, lambda one: one["hidden"] < 64)
        assert settings is not None
        assert settings["hidden"] < 64
    assert Proposer(space).propose(10, results, lambda one: False) is None


def test_an_optimizer_that_there_is_not() -> None:
    with pytest.raises(ModelError, match="NoSuchThing"):
        Proposer(PLANE, "NoSuchThing")


@pytest.mark.parametrize(("optimizer", "bound"), [("DiscreteOnePlusOne", 0.03), (GP_OPTIMIZER, 0.005)])
def test_proposals_approach_the_best(optimizer: str, bound: float) -> None:
    def loss(settings: dict[str, Any]) -> float:
        return float((settings["dropout"] - 0.31) ** 2 + (settings["recency"] - 0.77) ** 2)

    proposer, trials = Proposer(PLANE, optimizer), []
    for number in range(35):
        settings = proposer.propose(number, trials)
        assert settings is not None
        trials.append(Trial(number, settings, {0: record(loss(settings))}))
    least = min(loss(trial.settings) for trial in trials)
    assert least < bound
    random = min(loss(PLANE.decode(point)) for point in np.random.default_rng(5).uniform(size=(35, 2)))
    assert least < max(random, bound)


def test_the_model_learns_of_the_highest_rung_from_the_lower_ones() -> None:
    """The few results at the top are far from the best place, and the losses there are of another height."""

    def loss(settings: dict[str, Any]) -> float:
        return float((settings["dropout"] - 0.3) ** 2 + (settings["recency"] - 0.7) ** 2)

    trials = tried(PLANE, 40, loss)
    trials.sort(key=lambda trial: -loss(trial.settings))
    for trial in trials[:4]:
        trial.records[1] = record(loss(trial.settings) - 3.0)
    settings = Proposer(PLANE, GP_OPTIMIZER).propose(40, trials)
    assert settings is not None
    assert loss(settings) < 0.01
    trials[-1].records[0] = record(None)
    assert Proposer(PLANE, GP_OPTIMIZER).propose(40, trials) is not None


def test_the_process_predicts_what_the_textbook_says() -> None:
    from luckyfast.search.gaussian import MEAN_VARIANCE, _Process

    rng = np.random.default_rng(2)
    points, rungs, scores = rng.uniform(size=(9, 3)), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2]), rng.normal(size=9)
    logs = np.array([-0.5, 0.1, 0.4, math.log(0.03), 1.2])
    asked, top = rng.uniform(size=(4, 3)), 2

    def covariance(a: Any, rung_a: int, b: Any, rung_b: int) -> float:
        r = math.sqrt(5 * sum(((x - y) / math.exp(s)) ** 2 for x, y, s in zip(a, b, logs[:3], strict=True)))
        agreement = 1 / (1 + math.exp(-1.2))
        kernel = (1 + r + r * r / 3) * math.exp(-r) * agreement ** abs(rung_a - rung_b)
        return kernel + MEAN_VARIANCE * (1.25 if rung_a == rung_b else 0.25)

    known = np.array(
        [
            [covariance(a, i, b, j) for b, j in zip(points, rungs, strict=True)]
            for a, i in zip(points, rungs, strict=True)
        ]
    )
    cross = np.array([[covariance(a, top, b, j) for b, j in zip(points, rungs, strict=True)] for a in asked])
    inverse = np.linalg.inv(known + 0.03 * np.eye(9))
    process = _Process(points, rungs, scores, logs)
    mean, spread = process.predict(asked, top)
    np.testing.assert_allclose(mean, cross @ inverse @ scores, rtol=1e-6)
    variance = [covariance(a, top, a, top) for a in asked] - np.diag(cross @ inverse @ cross.T)
    np.testing.assert_allclose(spread**2, variance, rtol=1e-5)
    likelihood = -0.5 * scores @ inverse @ scores - 0.5 * np.linalg.slogdet(known + 0.03 * np.eye(9))[1]
    assert process.log_likelihood == pytest.approx(likelihood, rel=1e-8)


def test_of_equals_the_model_tries_the_cheaper() -> None:
    trials = tried(PLANE, 30, lambda settings: (settings["dropout"] - 0.3) ** 2)
    for sign in (1, -1):
        proposer = Proposer(
            PLANE, GP_OPTIMIZER, cost=lambda settings, sign=sign: math.exp(3 * sign * settings["recency"])
        )
        proposed = [proposer.propose(number, trials) for number in range(30, 36)]
        assert all(abs(settings["dropout"] - 0.3) < 0.2 for settings in proposed if settings is not None)
        recency = np.mean([settings["recency"] for settings in proposed if settings is not None])
        assert recency < 0.3 if sign > 0 else recency > 0.7


def test_halving_promotes_the_best_third_once() -> None:
    trials = {0: Trial(0, START, {2: record(0.9)})}
    for number in range(1, 10):
        trials[number] = Trial(number, START | {"seed": number}, {0: record(number / 10)})
    scheduler = Scheduler(Proposer(PLANE), RUNGS, trials)
    promoted = []
    while (job := scheduler.next_job()) is not None and job.rung > 0:
        promoted.append((job.number, job.rung))
        trials[job.number].records[job.rung] = record(job.number / 10)
    assert promoted == [(1, 1), (2, 1), (3, 1), (1, 2)]
    assert job is not None
    assert (job.number, job.rung) == (10, 0)


def test_a_promotion_that_takes_too_long_gives_way() -> None:
    trials = {n: Trial(n, START | {"seed": n}, {0: record(n / 10), 1: record(n / 10)}) for n in range(3)}
    scheduler = Scheduler(Proposer(PLANE), RUNGS, trials)
    assert scheduler.next_job() == Job(0, 2, trials[0].settings)
    job = scheduler.next_job(lambda job: job.rung < 2)
    assert job is not None
    assert (job.number, job.rung) == (3, 0)
    assert scheduler.next_job(lambda job: False) is None


def test_the_default_is_trained_in_full_first_then_what_is_given_then_proposals() -> None:
    trials: dict[int, Trial] = {}
    given = [START | {"dropout": 0.123}]
    scheduler = Scheduler(Proposer(PLANE), RUNGS, trials, n_proposals=3, first=given)
    assert scheduler.next_job() == Job(0, 2, START)
    trials[0] = Trial(0, START, open={2})
    assert scheduler.next_job() == Job(1, 0, given[0])
    trials[1] = Trial(1, given[0], open={0})
    job = scheduler.next_job()
    assert job is not None
    assert job.settings not in [START, *given]
    trials[2] = Trial(2, job.settings, open={0})
    assert scheduler.next_job() is None


def test_failures_are_told_as_the_worst_and_higher_rungs_come_first() -> None:
    assert lexicographic(Trial(0, START, open={0})) is None
    low, high = Trial(1, START, {0: record(0.1)}), Trial(2, START, {0: record(0.5), 1: record(0.6)})
    failed = Trial(3, START, {0: record(None)})
    ranks = [lexicographic(one) for one in (high, low, failed)]
    assert ranks == sorted(ranks)  # type: ignore[type-var]
    half = Trial(4, START, {0: record(0.2), 1: record(None, status="memory")})
    assert lexicographic(half) == lexicographic(Trial(5, START, {0: record(0.2)}))


def test_costs_follow_what_was_measured() -> None:
    trials: dict[int, Trial] = {}
    costs = CostModel(RUNGS, trials, {"train_s": 10.0, "valid_seconds": 2.0}, START)
    full = Job(0, 2, START)
    assert costs.estimate(full) == pytest.approx(2 + 10 * START["epochs"])
    small, large = costs.estimate(Job(1, 0, START)), costs.estimate(Job(1, 0, START | {"hidden": 512}))
    assert small == pytest.approx(2 + 10 * START["epochs"] / 9)
    assert large > 2 * small
    trials[0] = Trial(0, START, {2: record(1.0, seconds=5 * START["epochs"] + 3.0, valid_seconds=3.0, n_validations=1)})
    assert costs.estimate(Job(1, 2, START)) == pytest.approx(3 + 5 * START["epochs"])
    assert costs.finish_s(START) < costs.finish_s(START | {"refit_epochs": 2 * START["refit_epochs"]})
    assert costs.finish_s(START, left_s=20.0) < costs.finish_s(START)
    # A trial's own lower rung says more than others.
    slow = START | {"seed": 1}
    trials[1] = Trial(1, slow, {0: record(1.0, seconds=3.0 + 20 * START["epochs"] / 9, valid_seconds=3.0)})
    assert costs.estimate(Job(1, 1, slow)) == pytest.approx(3 + 20 * START["epochs"] / 3)
    assert visit_cost(START | {"batch_visits": 64}) > visit_cost(START)
    assert visit_cost(START | {"layers": 2}) > visit_cost(START)


def test_the_refit_keeps_its_time(tmp_path: Path) -> None:
    """However little is left, what the best needs in the end is not given to trials."""
    journal = Journal(tmp_path / "trials.jsonl", {})
    journal.begin(0, 2, START, 0.0)
    journal.end(0, 2, record(1.0, seconds=52.0, valid_seconds=2.0, n_validations=1, peak_bytes=1 << 28))
    (tmp_path / "trial-0-2").mkdir()
    costs = CostModel(RUNGS, journal.trials, {"train_s": 10.0, "valid_seconds": 2.0}, START)
    whole_s = costs.finish_s(START)
    assert whole_s > 1.2 * 10 * START["refit_epochs"]
    for left_s in (600.0, 60.0, 50.0, 30.0, 5.0):
        study = Study(
            dataset_path="",
            split=[0, 0, 0],
            scheduler=Scheduler(Proposer(PLANE), RUNGS, journal.trials),
            journal=journal,
            executor=ThreadPoolExecutor(1),
            clock=Clock(1000.0, time.monotonic() - (1000.0 - left_s)),
            costs=costs,
            memory=MemoryModel(300, 300 << 20),
            folder=tmp_path,
        )
        assert study.best is not None
        job = Job(1, 0, START)
        assert study._affordable(job) == (left_s >= whole_s + 1.15 * costs.estimate(job))
    journal.close()
    cut = record(1.0, seconds=10.0, cut_short=True)
    assert costs.finish_s(START, best=cut) == pytest.approx(costs.finish_s(START | {"refit_epochs": 0}) + 10 * 3 / 5)


def study_of(journal: Journal, executor: Executor, **more: Any) -> Study:
    n_proposals = more.pop("n_proposals", None)
    return Study(
        dataset_path="",
        split=[0, 0, 0],
        scheduler=Scheduler(Proposer(PLANE), RUNGS, journal.trials, n_proposals),
        journal=journal,
        executor=executor,
        clock=Clock(math.inf, time.monotonic()),
        costs=CostModel(RUNGS, journal.trials, {"train_s": 10.0, "valid_seconds": 2.0}, START),
        memory=MemoryModel(300, 300 << 20),
        folder=journal.path.parent,
        **more,
    )


class Fails(Executor):
    """Jobs that end with these errors, one after the other, and then with a loss that tells when it came."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.settings = list(errors), list[dict[str, Any]]()

    def submit(self, fn: Any, /, *arguments: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.settings.append(arguments[3])
        if self.errors:
            future.set_exception(self.errors.pop(0))
        else:
            figures = {"valid_hit1": 0.1, "valid_seconds": 1.0, "n_validations": 1, "interrupted": False}
            future.set_result(figures | {"valid_loss": 1 / len(self.settings), "seconds": 9.0, "peak_bytes": 1})
        return future


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([MemoryError("it is all gone")], OutOfMemoryError),
        ([JobKilledError("killed"), JobKilledError("killed again")], JobKilledError),
    ],
)
def test_a_single_training_that_lacked_memory_can_be_resumed(
    tmp_path: Path, errors: list[Exception], raised: type[Exception]
) -> None:
    journal = Journal(tmp_path / "trials.jsonl", {})
    with pytest.raises(raised):
        study_of(journal, Fails(*errors), n_proposals=1).run()
    journal.close()
    again = Journal(tmp_path / "trials.jsonl", {})
    assert again.open == [(0, 2)]
    assert study_of(again, Fails(), n_proposals=1).run() is not None
    again.close()


def test_in_a_search_that_lacked_memory_the_others_go_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl", {})
    study = study_of(journal, Fails(MemoryError(), JobKilledError("a"), JobKilledError("b")), n_proposals=3)
    assert study.run() is not None
    assert [trial.records[min(trial.records)].status for trial in journal.trials.values()] == ["memory", "failed", "ok"]
    journal.close()


def test_a_trial_begun_again_is_heard_where_it_would_have_been(tmp_path: Path) -> None:
    """A killed process changes nothing of a search that repeats itself."""
    orders = []
    for name, errors in (("whole", []), ("killed", [JobKilledError("it")])):
        (tmp_path / name).mkdir()
        journal = Journal(tmp_path / name / "trials.jsonl", {})
        executor = Fails(*errors)
        study_of(journal, executor, n_proposals=6, n_workers=2, in_order=True).run()
        orders.append([(number, sorted(trial.records)) for number, trial in journal.trials.items()])
        events = [json.loads(line) for line in (tmp_path / name / "trials.jsonl").read_text().splitlines()]
        orders[-1].append([event["trial"] for event in events if event["event"] == "end"][:2])
        journal.close()
    assert orders[0] == orders[1]


def test_what_no_longer_fits_is_not_begun_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl", {})
    journal.begin(0, 2, START, 0.0)
    journal.end(0, 2, record(1.0, seconds=5.0, valid_seconds=1.0, n_validations=1, peak_bytes=1 << 28))
    journal.begin(1, 0, START | {"hidden": 4096, "batch_visits": 8192}, 1.0)
    (tmp_path / "trial-0-2").mkdir()
    executor = Fails()
    study_of(journal, executor, n_proposals=2, worker_bytes=1).run()
    assert not executor.settings
    study_of(journal, executor, n_proposals=2).run()
    assert [one["hidden"] for one in executor.settings] == [4096]
    journal.close()


def test_a_search_without_patience_left_begins_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl", {})
    for number, loss in enumerate((1.0, 2.0, 3.0)):
        journal.begin(number, 0, START | {"dropout": number / 10}, float(number))
        journal.end(number, 0, replace(record(loss), at_s=float(number)))
    (tmp_path / "trial-0-0").mkdir()
    executor = Fails()
    study = study_of(journal, executor, patience=2)
    assert study.run() is not None
    assert study.stopped == "nothing better in 2 configurations"
    assert not executor.settings
    journal.close()


def test_weights_do_not_make_the_folder_of_a_study_again(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    model, _ = make_trained(dataset)
    with pytest.raises(FileNotFoundError):
        _save(model, [], tmp_path / "study" / "trial-0-0")
    assert not (tmp_path / "study").exists()
    (tmp_path / "study").mkdir()
    _save(model, [], tmp_path / "study" / "trial-0-0")
    assert load_trial(tmp_path / "study" / "trial-0-0")[1] == []


def test_memory_is_learnt_from_trials_and_never_forgotten_at_once() -> None:
    memory = MemoryModel(300, base_bytes=300 << 20)
    large = START | {"hidden": 4096, "batch_visits": 8192}
    assert memory.estimate(START) < memory.estimate(large) < memory.estimate(large | {"layers": 2})
    memory.learn(START, 500 << 20)
    before = memory.estimate(large)
    assert 500 << 20 < memory.estimate(START) < 560 << 20
    memory.learn(large, 2 * before, over=True)
    assert memory.estimate(large) > 2 * before
    assert memory.estimate(START) > 500 << 20


def test_importance_finds_what_matters() -> None:
    space = default_space(ModelConfig())
    results = [
        (one, i % 2, math.log(one["learning_rate"]) ** 2 + 0.1 * one["dropout"])
        for i, one in enumerate(trial.settings for trial in tried(space, 80))
    ]
    shares = importance(space, results)
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["learning_rate"] > 0.5
    assert importance(space, results[:5]) == {}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 60), st.integers(1, 20))
def test_a_probe_takes_as_many_customers_as_hold_the_visits_and_no_giant(
    sizes: list[int], wanted: int, batch_pairs: int
) -> None:
    rows = [(f"c{c}", visit, "a", f"{c}/{visit}") for c, size in enumerate(sizes) for visit in range(size)]
    with opened(rows, batch_pairs=batch_pairs) as dataset:
        by_hash = [len(visits) for histories in dataset.batches() for visits in visits_of(histories)]
        sample = dataset.sample(share_holding(dataset, wanted))
        taken = [len(visits) for histories in sample.batches() for visits in visits_of(histories)]
    assert taken == by_hash[: len(taken)]
    if sum(taken) < wanted and len(taken) < len(by_hash):
        assert sum(by_hash[: len(taken) + 1]) > 2 * wanted
    elif len(taken) > 1:
        assert sum(taken[:-1]) < wanted
        assert sum(taken) <= 2 * wanted
