"""Training learns what is there, keeps to its budget, and is the same every time."""

from __future__ import annotations

import gc
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from log_rows import DAY, habit_log, opened
from tiny_model import TINY
from torch.nn import functional as F

from luckyfast import checkpoint as checkpoint_module
from luckyfast import course as course_module
from luckyfast import models as models_module
from luckyfast.batches import Segment, cut_segment, measure
from luckyfast.course import Course, label_weights
from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError, ModelError
from luckyfast.models import ModelConfig
from luckyfast.models import ops as ops_module
from luckyfast.models.fused import FusedOps
from luckyfast.models.ops import Ops
from luckyfast.models.plain import PlainOps
from luckyfast.models.trained import score_visits
from luckyfast.progress import NullProgress
from luckyfast.training import choose_device, train, validate
from luckyfast.windows import Split, split_by_time


def cycle_log(n_customers: int = 40, n_visits: int = 18) -> list[Any]:
    """Every customer goes round the same circle of actions: what comes next follows from the last visit alone."""
    return [
        (f"c{c}", (3 * v + c % 3) * DAY, f"a{(v + c) % 5}", f"{c}-{v}")
        for c, v in itertools.product(range(n_customers), range(n_visits))
    ]


@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_plain_networks_learn_a_circle(arch: str) -> None:
    config = replace(TINY, arch=arch, habit=False, epochs=25, learning_rate=0.02, dropout=0.0)  # type: ignore[arg-type]
    with opened(cycle_log()) as dataset:
        split = split_by_time(dataset)
        model = train(dataset, split, config)
        metrics = validate(model.network(), config, model.constants, dataset, split, "test")
    assert metrics["test_hit1"] > 0.95


def test_habits_beat_the_plain_network_where_customers_have_favourites() -> None:
    with opened(habit_log(n_customers=80)) as dataset:
        split = split_by_time(dataset)
        hits = []
        for habit in (False, True):
            config = replace(TINY, habit=habit, epochs=4)
            model = train(dataset, split, config)
            assert model.config.habit == habit
            hits.append(validate(model.network(), config, model.constants, dataset, split, "test")["test_hit1"])
    assert hits[1] > hits[0] + 0.1


def test_training_is_the_same_every_time_and_tells_of_each_epoch() -> None:
    lines: list[dict[str, Any]] = []
    with opened(habit_log(n_customers=10)) as dataset:
        split = split_by_time(dataset)
        first = train(dataset, split, TINY, on_epoch=lines.append)
        before = torch.rand(1)
        second = train(dataset, split, TINY)
        other = train(dataset, split, replace(TINY, seed=1))
    for name, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[name])
    assert any((array != other.state[name]).any() for name, array in first.state.items())
    assert [line["epoch"] for line in lines] == [1, 2]
    keys = {
        "epoch",
        "passes",
        "seconds",
        "train_loss",
        "learning_rate",
        "valid_loss",
        "valid_hit1",
        "valid_hit3",
        "valid_seconds",
    }
    assert all(set(line) == keys for line in lines)
    assert [line["passes"] for line in lines] == [1.0, 2.0]
    # The caller's own random numbers are left alone.
    assert before != torch.rand(1)


def test_what_follows_the_test_start_is_never_trained_on() -> None:
    rows = habit_log(n_customers=10)
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        first = train(dataset, split, TINY)
    late = [(c, t, "action 0" if t >= split.test_start else a, v) for c, t, a, v in rows]
    with opened(late) as dataset:
        second = train(dataset, split, TINY)
    for name, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[name])


def test_the_blind_model_never_saw_validation() -> None:
    rows = habit_log(n_customers=10)
    config = replace(TINY, epochs=1)
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        first = train(dataset, split, config)
    late = [(c, t, "action 0" if t >= split.valid_start else a, v) for c, t, a, v in rows]
    with opened(late) as dataset:
        second = train(dataset, split, config)
    for name, array in first.blind.state.items():
        np.testing.assert_array_equal(array, second.blind.state[name])
    assert any((array != second.state[name]).any() for name, array in first.state.items())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_follows_its_schedule(schedule: str) -> None:
    lines: list[dict[str, Any]] = []
    with opened(habit_log(n_customers=40)) as dataset:
        config = replace(TINY, epochs=4, schedule=schedule, refit_epochs=0)  # type: ignore[arg-type]
        train(dataset, split_by_time(dataset), config, on_epoch=lines.append)
    falls = {
        "cosine": [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.5, 0.75, 1.0)],
        "linear": [0.75, 0.5, 0.25, 0.0],
        "constant": [1.0] * 4,
    }
    rates = [line["learning_rate"] / config.learning_rate for line in lines]
    assert rates == pytest.approx(falls[schedule], abs=0.1)


def test_label_smoothing_lifts_what_is_improbable_and_never_the_unknown() -> None:
    rows = habit_log(n_customers=20)
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        probabilities = []
        for smoothing in (0.0, 0.3):
            config = replace(TINY, epochs=6, learning_rate=0.02, label_smoothing=smoothing, refit_epochs=0)
            model = train(dataset, split, config)
            histories = next(dataset.batches())
            scores = np.concatenate([block for _, block in model.score(histories, np.arange(histories.n_visits))])
            probabilities.append(F.softmax(torch.from_numpy(scores), 1).numpy())
        known = model.constants.known
    sharp, smooth = (one[:, known].min(axis=1).mean() for one in probabilities)
    assert smooth > 1.4 * sharp
    assert probabilities[1][:, ~known].max() < 1e-8


def test_a_budget_ends_the_training_with_a_model() -> None:
    lines: list[dict[str, Any]] = []
    with opened(habit_log(n_customers=40)) as dataset:
        split = split_by_time(dataset)
        config = replace(TINY, epochs=100_000, refit_epochs=0)
        model = train(dataset, split, config, budget_s=2.0, on_epoch=lines.append)
    assert lines
    assert lines[-1]["learning_rate"] < 0.2 * config.learning_rate
    assert all(np.isfinite(array).all() for array in model.state.values())


def test_a_share_of_the_customers_is_trained_on_and_all_are_validated() -> None:
    rows = habit_log(n_customers=30)
    with opened(rows) as dataset:
        split = split_by_time(dataset)
        firsts = {name for histories in dataset.sample(0.3).batches() for name in histories.customers.to_pylist()}
        assert len(firsts) == 9
        model = train(dataset, split, TINY, customers=0.3).blind
        loss = validate(model.network(), TINY, model.constants, dataset, split, "valid")["valid_loss"]
    # What the others do before validation changes the measured constants alone: keep those by swapping two customers.
    others = sorted({row[0] for row in rows} - firsts)
    swap = {others[0]: others[1], others[1]: others[0]}
    with opened([(swap.get(c, c), *rest) for c, *rest in rows]) as dataset:
        same = train(dataset, split, TINY, customers=0.3).blind
        whole = train(dataset, split, TINY).blind
    for name, array in model.state.items():
        np.testing.assert_array_equal(array, same.state[name])
    assert any((array != whole.state[name]).any() for name, array in model.state.items())
    assert math.isfinite(loss)


def test_validation_at_the_end_alone_gives_one_line() -> None:
    lines: list[dict[str, Any]] = []
    with opened(habit_log(n_customers=10)) as dataset:
        split = split_by_time(dataset)
        model = train(dataset, split, replace(TINY, epochs=3), every_epoch=False, on_epoch=lines.append)
        loss = validate(model.blind.network(), TINY, model.constants, dataset, split, "valid")["valid_loss"]
    assert [line["valid_loss"] for line in lines] == [pytest.approx(loss, rel=1e-6)]
    assert [(line["epoch"], line["passes"]) for line in lines] == [(3, 3.0)]


def test_ctrl_c_keeps_the_best_model_so_far() -> None:
    kept: list[dict[str, Any]] = []

    def stop(line: dict[str, Any]) -> None:
        kept.append(line)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with opened(habit_log(n_customers=10)) as dataset:
        split = split_by_time(dataset)
        config = replace(TINY, epochs=5)
        model = train(dataset, split, config, on_epoch=stop)
        loss = validate(model.network(), config, model.constants, dataset, split, "valid")["valid_loss"]
    assert model.interrupted
    assert loss == pytest.approx(kept[0]["valid_loss"], rel=1e-6)


def test_a_loss_that_is_no_number_is_an_error_with_a_hint() -> None:
    with opened(habit_log(n_customers=10)) as dataset, pytest.raises(ModelError, match="diverged") as caught:
        train(dataset, split_by_time(dataset), replace(TINY, learning_rate=1e30))
    assert "lower learning rate than 1e+30" in str(caught.value)


def test_a_later_divergence_keeps_the_best_epoch() -> None:
    kept: list[dict[str, Any]] = []

    class Poison(NullProgress):
        """Spoils the weights after the second epoch; they are found where the optimiser holds them."""

        def note(self, text: str) -> None:
            if len(kept) == 1:
                for course in gc.get_objects():
                    if type(course) is Course:
                        course.optimiser.weights.fill_(math.nan)

    with opened(habit_log(n_customers=10)) as dataset:
        split = split_by_time(dataset)
        config = replace(TINY, epochs=5, refit_epochs=0)
        model = train(dataset, split, config, on_epoch=kept.append, progress=Poison())
        loss = validate(model.network(), config, model.constants, dataset, split, "valid")["valid_loss"]
    assert len(kept) == 2
    assert loss == pytest.approx(min(line["valid_loss"] for line in kept), rel=1e-6)


def test_blocks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, dropout=0.0, refit_epochs=0)
    with opened(habit_log(n_customers=10)) as dataset:
        split = split_by_time(dataset)
        whole = train(dataset, split, config)
        for limit in ("_BLOCK_LOGITS", "_MOST_LOGITS"):
            monkeypatch.setattr(models_module, limit, 1)
        blocks = train(dataset, split, config)
    for name, array in whole.state.items():
        np.testing.assert_allclose(blocks.state[name], array, atol=2e-4)


@pytest.mark.parametrize("arch", ["mlp", "lstm-embed"])
def test_what_a_gpu_is_given_trains_alike(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training and its refit with the plain operations and the plain optimiser step, here on the CPU."""
    config = replace(TINY, arch=arch, dropout=0.0, learning_rate=1e-3)  # type: ignore[arg-type]
    with opened(habit_log(n_customers=20)) as dataset:
        split = split_by_time(dataset)
        fused = train(dataset, split, config)
        monkeypatch.setattr(ops_module, "ops_for", lambda device: PlainOps())
        plain = train(dataset, split, config)
    assert any((fused.state[name] != plain.state[name]).any() for name in fused.state)
    for one, other in ((fused.blind_state, plain.blind_state), (fused.state, plain.state)):
        for name, array in one.items():
            np.testing.assert_allclose(other[name], array, atol=2e-3, err_msg=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_trains_alike_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "INTERVAL_S", 0.0)
    config = replace(TINY, dropout=0.0, learning_rate=1e-3)
    with opened(habit_log(n_customers=20)) as dataset:
        split = split_by_time(dataset)
        here, there = (train(dataset, split, config, device=device) for device in ("cpu", "cuda"))
        kept = train(dataset, split, config, device="auto", checkpoint=tmp_path / "kept")
        again = train(dataset, split, config, device="cuda", checkpoint=tmp_path / "kept")
    for name, array in here.state.items():
        np.testing.assert_allclose(there.state[name], array, atol=5e-3, err_msg=name)
        np.testing.assert_array_equal(again.state[name], kept.state[name])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    assert choose_device("auto") == "cpu"
    with opened(habit_log(n_customers=10)) as dataset, pytest.raises(ModelError, match="no CUDA here") as caught:
        train(dataset, split_by_time(dataset), TINY, device="cuda")
    assert caught.value.hint


def test_nothing_to_train_on_is_an_error() -> None:
    with opened(habit_log(n_customers=2)) as dataset, pytest.raises(DatasetError, match="before validation"):
        train(dataset, Split(valid_start=-1, test_start=10 * DAY), TINY)


@pytest.mark.parametrize("ops", [PlainOps(), FusedOps()])
@pytest.mark.parametrize("power", [0.0, 0.25, 1.0])
def test_the_loss_is_its_definition(power: float, ops: Ops) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(3, 6))).float()
    visits, ages = [[1, 2, 5], [], [4]], np.array([1.0, 0.5, 0.25])
    log_p = F.log_softmax(logits, 1)
    total = sum(
        -float(log_p[row, action]) * len(actions) ** -power * ages[row]
        for row, actions in enumerate(visits)
        for action in actions
    )
    weights = label_weights(np.array([3, 0, 1]), power, ages)
    labels = np.array([0, 3, 3, 4]), np.array([1, 2, 5, 4])
    assert float(ops.set_loss(logits, *labels, weights, 2.0)) == pytest.approx(total / 2.0, rel=1e-5)
    assert math.isfinite(total)


def still_course(dataset: Dataset, config: ModelConfig, stop_time: int) -> Course:
    """A course of a network with weights of some size that never change."""
    constants = measure(dataset, stop_time, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
    torch.manual_seed(7)
    course = Course(dataset, replace(config, dropout=0.0, epochs=1), constants)
    with torch.no_grad():
        course.optimiser.weights.normal_(std=0.3)
    return course


@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_every_label_counts_as_its_weight_says_however_steps_are_cut(arch: str) -> None:
    """The loss of a pass in which nothing is learnt is that of all labels, from scores of the whole histories."""
    small = replace(TINY, arch=arch, size_power=0.5, recency=1.5)  # type: ignore[arg-type]
    with opened(habit_log(n_customers=9, n_visits=17)) as dataset:
        histories = next(dataset.batches())
        times = histories.visit_time
        stop_time = int(np.quantile(times, 0.8))
        targets = np.flatnonzero(times < stop_time)
        course = still_course(dataset, small, stop_time)
        scores = np.concatenate(
            [s for _, s in score_visits(course.network.eval(), small, course.constants, histories, targets)]
        )
        ages = (stop_time - times) / (stop_time - times.min())
        log_p = F.log_softmax(torch.from_numpy(scores), 1).numpy()
        loss, weight = 0.0, 0.0
        for row, visit in enumerate(targets):
            actions = histories.actions[histories.action_start[visit] : histories.action_start[visit + 1]]
            each = len(actions) ** -0.5 * 2.0 ** (-1.5 * ages[visit])
            loss -= each * float(log_p[row, actions].sum())
            weight += each * len(actions)
        for segment_visits, batch_visits in ((1000, 1000), (4, 1000), (16, 8), (1, 1)):
            config = replace(small, segment_visits=segment_visits, batch_visits=batch_visits)
            course = still_course(dataset, config, stop_time)
            (lines,) = course.run(stop_time, 1, 0.0, math.inf, NullProgress())
            assert lines["train_loss"] == pytest.approx(loss / weight, rel=1e-4)
            # A full step weighs its share of all, and is all where there is no more.
            assert course._step_weight == pytest.approx(weight * min(batch_visits / len(targets), 1.0))


def test_the_gradients_of_steps_add_up() -> None:
    """Gradients of all steps add up to that of one step over everything, times what a full step weighs."""
    sums = []
    with opened([*habit_log(n_customers=9, n_visits=17), ("late", 190 * DAY, "action 1", "v")]) as dataset:
        for batch_visits in (1, 40, 1000):
            course = still_course(dataset, replace(TINY, batch_visits=batch_visits, segment_visits=1000), 200 * DAY)
            total = torch.zeros_like(course.optimiser.weights)

            def step(rate: float, course: Course = course, total: torch.Tensor = total) -> bool:
                total += course.optimiser.grads * course._step_weight
                course.optimiser.grads.zero_()
                return True

            course.optimiser.step = step  # type: ignore[method-assign]
            list(course.run(200 * DAY, 1, 1.0, math.inf, NullProgress()))
            sums.append(total.numpy())
    assert np.abs(sums[2]).max() > 1
    for found in sums[:2]:
        np.testing.assert_allclose(found, sums[2], atol=1e-3 * np.abs(sums[2]).max())


def test_segments_of_a_batch_are_of_equal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def cut(*arguments: Any, **settings: Any) -> Segment:
        segment = cut_segment(*arguments, **settings)
        lengths.append(segment.shape[0])
        return segment

    monkeypatch.setattr(course_module, "cut_segment", cut)
    for most, expected in ((16, [9, 8]), (17, [17]), (7, [6, 6, 5]), (1000, [17])):
        lengths.clear()
        config = replace(TINY, segment_visits=most, batch_visits=10_000)
        with opened(habit_log(n_customers=3, n_visits=17)) as dataset:
            list(still_course(dataset, config, 10_000 * DAY).run(10_000 * DAY, 1, 1.0, math.inf, NullProgress()))
        assert lengths == expected
