"""Train a model on the visits before validation, within a budget of wall-clock time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from luckyfast.batches import Constants, measure
from luckyfast.checkpoint import Checkpoint, Progressed
from luckyfast.course import Course
from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError, ModelError
from luckyfast.models import ModelConfig, refit_share
from luckyfast.models.cores import use_cores
from luckyfast.models.network import Network
from luckyfast.models.trained import TrainedModel, score_visits
from luckyfast.progress import NullProgress, Progress
from luckyfast.windows import Labels, Part, Split, known_actions, target_visits

__all__ = [
    "VALIDATION_VISITS",
    "choose_device",
    "refit",
    "sample_customers",
    "train",
    "validate",
]

PATIENCE = 0.3
"""Share of all epochs without a better validation loss, after which training ends."""
VALIDATION_VISITS = 20_000
VALIDATION_POWER = 0.5
"""The same ``size_power`` for every configuration's validation loss: losses can be compared whatever was trained on."""


def train(
    dataset: Dataset,
    split: Split,
    config: ModelConfig,
    *,
    budget_s: float | None = None,
    customers: float = 1.0,
    every_epoch: bool = True,
    threads: int = 1,
    device: str = "auto",
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a model; what it returns is the best of all epochs, whatever ended the training.

    The first part of the time trains on visits before ``split.valid_start`` and keeps the weights with the least
    validation loss. Then, with ``config.refit_epochs``, training goes on over all visits before ``split.test_start``;
    :attr:`TrainedModel.blind` is the model as it was before it saw validation, for calibration. Without a binding
    budget the result depends on dataset, split, settings, seed and threads alone. Ctrl-C ends training and keeps the
    best, and so does a loss that is no longer a number.

    Args:
        dataset: the dataset.
        split: where training and validation end.
        config: settings.
        budget_s: wall-clock seconds; the schedule is fitted into them. None runs all epochs.
        customers: share of the customers to train on, a random sample that a larger share holds too; the visits that
            are validated on are the same for every share.
        every_epoch: whether to validate after each epoch, and not only after the last.
        threads: cores to use.
        device: see :func:`choose_device`.
        checkpoint: file to keep the training in, every half minute; the refit goes to another beside it, whose name
            begins with ``refit-``. Where they exist, training goes on from them, with the same result as if it had
            never stopped. They stay there for the caller to delete when the result is safe.
        on_epoch: receives the line of curve.jsonl after each validated epoch: epoch, passes, seconds, losses,
            hits, learning_rate.
        progress: listener.

    Returns:
        The trained model.

    Raises:
        DatasetError: there is no visit before validation.
        ModelError: the loss was no number before the first validation, the checkpoint belongs to something else, or
            there is no such device.

    Example:
        >>> model = train(dataset, split_by_time(dataset), ModelConfig(epochs=1, hidden=8))
        >>> model.name
        'lstm-embed'
    """
    began, budget_s, earlier_s = time.monotonic(), math.inf if budget_s is None else budget_s, 0.0
    listener, device = progress or NullProgress(), choose_device(device)
    constants = measure(
        dataset,
        split.valid_start,
        n_half_lives=config.n_half_lives,
        visit_spans=config.visit_spans,
        strength=config.habit_strength,
        features=config.features,
    )
    if constants.n_visits == 0:
        raise DatasetError(f"{dataset.path} has no visit before validation", hint="choose a later validation time")
    kept = Checkpoint(checkpoint, _key("train", dataset, split, config) | {"customers": customers})
    interrupted, best, lines = False, _Best(), list[dict[str, Any]]()
    with use_cores(threads), _own_random_numbers(device):
        torch.manual_seed(config.seed)
        course = Course(sample_customers(dataset, customers, split.valid_start), config, constants, device=device)

        def seconds() -> float:
            return earlier_s + time.monotonic() - began

        def progressed() -> Progressed:
            state = course.progressed()
            own = {"best_loss": best.loss, "n_worse": best.n_worse, "lines": lines, "seconds": seconds()}
            arrays = {f"best.{name}": array for name, array in best.state.items()}
            return Progressed({"share": course.share, "course": state.values, **own}, state.arrays | arrays)

        earlier = kept.load()
        if earlier is not None:
            course.go_on_from(Progressed(earlier.values["course"], earlier.arrays))
            earlier_s = earlier.values["seconds"]
            best = _Best(
                earlier.values["best_loss"],
                earlier.values["n_worse"],
                {name[5:]: array for name, array in earlier.arrays.items() if name.startswith("best.")},
            )
            for line in earlier.values["lines"]:
                lines.append(line)
                if on_epoch:
                    on_epoch(line)
        listener.start("Training", 1.0, "share")
        if earlier is not None:
            listener.note(f"goes on at {course.share:.0%}")
        try:
            limit_s = (0.9 * budget_s - (time.monotonic() - began)) * (
                1 - refit_share(config.epochs, config.refit_epochs)
            )
            for epoch in course.run(
                split.valid_start,
                config.epochs,
                config.learning_rate,
                limit_s,
                listener,
                lambda: kept.save_in_time(progressed),
            ):
                if not (every_epoch or course.finished):
                    continue
                validation_began = time.monotonic()
                average = course.average
                epoch |= validate(average, config, constants, dataset, split, "valid")
                epoch["valid_seconds"] = time.monotonic() - validation_began
                listener.note(
                    "loss {valid_loss:.4f}, by score hit@1 {valid_hit1:.3f}, hit@3 {valid_hit3:.3f}".format(**epoch)
                )
                done = {"epoch": course.n_rounds, "passes": round(course.passes, 2), "seconds": seconds()}
                lines.append(done | epoch)
                if on_epoch:
                    on_epoch(lines[-1])
                best.meet(epoch["valid_loss"], average)
                if best.n_worse >= max(3.0, PATIENCE * config.epochs):
                    break
        except KeyboardInterrupt:
            interrupted = True
        except FloatingPointError as error:
            if not best.state:
                rate = config.learning_rate
                hint = f"train with a lower learning rate than {rate:g}"
                raise ModelError(f"training diverged: {error}", hint=hint) from error
            listener.note(f"{error}: the best epoch is kept")
        listener.finish()
    state = best.state or _freeze(course.average)
    model = TrainedModel(config, constants, state, blind_state=state, interrupted=interrupted)
    if config.refit_epochs and not interrupted:
        model = refit(
            model,
            dataset,
            split,
            budget_s=0.95 * budget_s - (time.monotonic() - began),
            threads=threads,
            device=device,
            checkpoint=None if checkpoint is None else checkpoint.with_name(f"refit-{checkpoint.name}"),
            progress=listener,
        )
    return model


def refit(
    model: TrainedModel,
    dataset: Dataset,
    split: Split,
    *,
    budget_s: float = math.inf,
    threads: int = 1,
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a model further, over all visits before the test: the last of them are the most like what comes.

    Args:
        model: as it was when validation chose it; its ``config.refit_epochs`` passes are made.
        dataset: the dataset.
        split: where the test begins.
        budget_s: wall-clock seconds; the schedule is fitted into them.
        threads: cores to use.
        device: see :func:`choose_device`.
        checkpoint: file to keep the refit in, as in :func:`train`.
        progress: listener.

    Returns:
        The model; its :attr:`~TrainedModel.blind` is the one given. Ctrl-C, or a loss that is no longer a number, gives
        back the one given.

    Example:
        >>> split = split_by_time(dataset)
        >>> model = train(dataset, split, ModelConfig(epochs=1, hidden=8))
        >>> again = refit(model.blind, dataset, split)
        >>> bool((again.state["output"] == model.state["output"]).all())
        True
    """
    config, listener = model.config, progress or NullProgress()
    if config.refit_epochs == 0:
        return model
    constants = replace(model.constants, known=known_actions(dataset, split.test_start))
    device = choose_device(device)
    kept = Checkpoint(checkpoint, _key("refit", dataset, split, config) | {"start": _digest(model.state)})
    with use_cores(threads), _own_random_numbers(device):
        torch.manual_seed(config.seed)
        start = replace(model, constants=constants).network()
        course = Course(dataset, config, constants, start, device=device)

        def progressed() -> Progressed:
            state = course.progressed()
            return Progressed({"share": course.share, "course": state.values}, state.arrays)

        earlier = kept.load()
        if earlier is not None:
            course.go_on_from(Progressed(earlier.values["course"], earlier.arrays))
        listener.start("Refitting", 1.0, "share")
        try:
            for _ in course.run(
                split.test_start,
                config.refit_epochs,
                config.learning_rate,
                budget_s,
                listener,
                lambda: kept.save_in_time(progressed),
            ):
                pass
        except KeyboardInterrupt:
            return replace(model, interrupted=True)
        except FloatingPointError as error:
            listener.note(f"{error}: the model before the refit is kept")
            return model
        listener.finish()
    return replace(model, constants=constants, state=_freeze(course.average), refit_passes=course.passes)


def sample_customers(dataset: Dataset, share: float, stop_time: int) -> Dataset:
    """A sample of the customers that has something to train on: the share is doubled until it has.

    Args:
        dataset: the dataset.
        share: how many of the customers, in (0, 1].
        stop_time: end of the visits to train on.

    Example:
        >>> sample = sample_customers(dataset, 1e-9, split_by_time(dataset).valid_start)
        >>> any((histories.visit_time < split_by_time(dataset).valid_start).any() for histories in sample.batches())
        True
    """
    while True:
        sample = dataset.sample(share)
        if share >= 1 or any((histories.visit_time < stop_time).any() for histories in sample.batches()):
            return sample
        share = min(2 * share, 1.0)


def choose_device(name: str) -> str:
    """Choose where a network is trained: ``auto`` is CUDA where there is a GPU, and else the CPU.

    Raises:
        ModelError: ``cuda`` is asked for where there is none.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    if name == "cpu":
        return name
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        why = "no GPU is found" if torch.version.cuda else f"this build of torch ({torch.__version__}) has none"
        raise ModelError(f"there is no CUDA here: {why}", hint="use --device auto or --device cpu")
    return "cuda" if there else "cpu"


@dataclass
class _Best:
    """The best epoch so far, and for how long there was no better one."""

    loss: float = math.inf
    n_worse: int = 0
    state: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def meet(self, loss: float, network: Network) -> None:
        self.n_worse = self.n_worse + 1 if loss >= self.loss else 0
        if self.n_worse == 0:
            self.loss, self.state = loss, _freeze(network)


def _key(part: str, dataset: Dataset, split: Split, config: ModelConfig) -> dict[str, Any]:
    manifest = hashlib.sha256(json.dumps(dataset.manifest, sort_keys=True).encode()).hexdigest()
    return {"part": part, "dataset": manifest, "split": asdict(split), "model": config.to_dict()}


def _digest(state: dict[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].tobytes())
    return digest.hexdigest()


def _own_random_numbers(device: str) -> AbstractContextManager[None]:
    """A context that leaves the caller's random numbers as they were."""
    generators = [] if device == "cpu" else [torch.cuda.current_device()]
    context: AbstractContextManager[None] = torch.random.fork_rng(devices=generators)
    return context


def validate(
    network: Network, config: ModelConfig, constants: Constants, dataset: Dataset, split: Split, part: Part
) -> dict[str, float]:
    """Measure loss, hit@1 and hit@3 on the target visits of a part, on the first 20,000 of them where there are more.

    Returns:
        ``{part}_loss`` (mean of ``-log p`` over the labels of all visits, those of one of n weighing ``n ** -0.5``),
        ``{part}_hit1``, ``{part}_hit3``, of actions ranked by score, since chances are not calibrated yet: hit@1 is
        higher in the end; NaN where there are no targets.
    """
    loss, weight, hits, n = 0.0, 0.0, np.zeros(2), 0
    for histories in dataset.batches():
        targets = target_visits(histories, split, part)[: VALIDATION_VISITS - n]
        for visits, scores in score_visits(network, config, constants, histories, targets):
            labels = Labels.of(histories, visits, constants.known)
            sizes = np.diff(labels.start)
            rows = np.repeat(np.arange(len(visits)), sizes)
            log_p = F.log_softmax(torch.from_numpy(scores), 1).numpy()
            log_p[:, 0] = -100.0
            own, known = log_p[rows, labels.actions], labels.actions > 0
            weights = (sizes.astype(np.float64) ** -VALIDATION_POWER)[rows] * known
            loss, weight = loss - float(weights @ own), weight + float(weights.sum())
            above = (log_p > np.maximum.reduceat(own, labels.start[:-1])[:, None]).sum(1)
            hits += (above < 1).sum(), (above < 3).sum()
            n += len(visits)
        if n == VALIDATION_VISITS:
            break
    hit1, hit3 = (hits / n).tolist() if n else (math.nan, math.nan)
    loss = loss / weight if weight else math.nan
    return {f"{part}_loss": loss, f"{part}_hit1": hit1, f"{part}_hit3": hit3}


def _freeze(network: Network) -> dict[str, NDArray[np.float32]]:
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}
