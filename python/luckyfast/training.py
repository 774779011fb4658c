"""Train a model on the visits before validation, within a budget of wall-clock time."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from luckyfast.batches import Constants, Segment, cut_segment, measure, training_batches
from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError
from luckyfast.models import ModelConfig, build
from luckyfast.models.network import Network
from luckyfast.models.ops import Ops
from luckyfast.models.trained import TrainedModel, score_visits
from luckyfast.optimiser import Optimiser
from luckyfast.progress import NullProgress, Progress
from luckyfast.windows import Labels, Part, Split, known_actions, target_visits

__all__ = ["refit", "train", "validate", "visit_loss"]

PATIENCE = 0.3
"""Share of all epochs without a better validation loss, after which training ends."""
WARM_UP = 0.05
REFIT_RATE = 0.3
SHARED_RATE = 3.0
"""Learning rate of the weights that all habits share, relative to the others': they are few, and far from zero."""
VALIDATION_VISITS = 20_000
VALIDATION_POWER = 0.25
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
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a model; what it returns is the best of all epochs, whatever ended the training.

    The first part of the time trains on visits before ``split.valid_start`` and keeps the weights with the least
    validation loss. Then, with ``config.refit_epochs``, training goes on over all visits before ``split.test_start``;
    :attr:`TrainedModel.blind` is the model as it was before it saw validation, for calibration. Without a binding
    budget the result depends on dataset, split, settings and seed alone. Ctrl-C ends training and keeps the best.

    Args:
        dataset: the dataset.
        split: where training and validation end.
        config: settings.
        budget_s: wall-clock seconds; the schedule is fitted into them. None runs all epochs.
        customers: share of the customers to train on, a random sample that a larger share holds too; validation takes
            all of them.
        every_epoch: whether to validate after each epoch, and not only after the last.
        threads: torch threads.
        on_epoch: receives the line of curve.jsonl after each epoch: epoch, seconds, losses, hits, learning_rate.
        progress: listener.

    Returns:
        The trained model.

    Raises:
        DatasetError: there is no visit before validation.

    Example:
        >>> model = train(dataset, split_by_time(dataset), ModelConfig(epochs=1, hidden=8))
        >>> model.name
        'lstm-embed'
    """
    began, budget_s = time.monotonic(), math.inf if budget_s is None else budget_s
    listener = progress or NullProgress()
    torch.set_num_threads(threads)
    constants = measure(
        dataset,
        split.valid_start,
        n_half_lives=config.n_half_lives,
        visit_spans=config.visit_spans,
        strength=config.habit_strength,
    )
    if constants.n_visits == 0:
        raise DatasetError(f"{dataset.path} has no visit before validation", hint="choose a later validation time")
    interrupted, best_loss, n_worse, n_epochs = False, math.inf, 0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        course = _Course(dataset.sample(customers), config, constants)
        best = course.average
        n_planned = config.epochs + config.refit_epochs
        listener.start("Training", 1.0, "share")
        try:
            limit_s = (0.9 * budget_s - (time.monotonic() - began)) * config.epochs / n_planned
            for epoch in course.run(split.valid_start, config.epochs, config.learning_rate, limit_s, listener):
                if not (every_epoch or course.finished):
                    continue
                validation_began = time.monotonic()
                epoch |= validate(course.average, config, constants, dataset, split, "valid")
                epoch["valid_seconds"] = time.monotonic() - validation_began
                n_epochs += 1
                listener.note("loss {valid_loss:.4f}, hit@1 {valid_hit1:.3f}, hit@3 {valid_hit3:.3f}".format(**epoch))
                if on_epoch:
                    on_epoch({"epoch": n_epochs, "seconds": time.monotonic() - began, **epoch})
                n_worse = n_worse + 1 if epoch["valid_loss"] >= best_loss else 0
                if n_worse == 0:
                    best_loss, best = epoch["valid_loss"], copy.deepcopy(course.average)
                if n_worse >= max(3.0, PATIENCE * config.epochs):
                    break
        except KeyboardInterrupt:
            interrupted = True
        listener.finish()
    state = _freeze(best)
    model = TrainedModel(config, constants, state, blind_state=state, interrupted=interrupted)
    if config.refit_epochs and not interrupted:
        limit_s = 0.95 * budget_s - (time.monotonic() - began)
        model = refit(model, dataset, split, budget_s=limit_s, threads=threads, progress=listener)
    return model


def refit(
    model: TrainedModel,
    dataset: Dataset,
    split: Split,
    *,
    budget_s: float = math.inf,
    threads: int = 1,
    progress: Progress | None = None,
) -> TrainedModel:
    """Train a model further, over all visits before the test: the last of them are the most like what comes.

    Args:
        model: as it was when validation chose it; its ``config.refit_epochs`` passes are made.
        dataset: the dataset.
        split: where the test begins.
        budget_s: wall-clock seconds; the schedule is fitted into them.
        threads: torch threads.
        progress: listener.

    Returns:
        The model; its :attr:`~TrainedModel.blind` is the one given. Ctrl-C gives back the one given.

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
    torch.set_num_threads(threads)
    constants = replace(model.constants, known=known_actions(dataset, split.test_start))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        course = _Course(dataset, config, constants, replace(model, constants=constants).network())
        listener.start("Refitting", 1.0, "share")
        try:
            for _ in course.run(
                split.test_start, config.refit_epochs, REFIT_RATE * config.learning_rate, budget_s, listener
            ):
                pass
        except KeyboardInterrupt:
            return replace(model, interrupted=True)
        listener.finish()
    return replace(model, constants=constants, state=_freeze(course.average))


class _Course:
    """A network on its way: optimiser, averaged weights, and the loop over histories."""

    def __init__(
        self, dataset: Dataset, config: ModelConfig, constants: Constants, start: Network | None = None
    ) -> None:
        self.dataset, self.config, self.constants = dataset, config, constants
        self.network = build(config, constants)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = Optimiser(
            self.network,
            self.average,
            quick=[] if self.network.residual is None else [self.network.residual.shared],
            quick_scale=SHARED_RATE,
            decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )
        self.rng = np.random.default_rng(config.seed)
        self.finished = False

    def run(
        self, stop_time: int, epochs: int, peak_rate: float, limit_s: float, listener: Progress
    ) -> Iterator[dict[str, float]]:
        """Train on all visits before a time; yields the mean loss and the learning rate at the end of each epoch.

        Where the time does not suffice for all epochs, an epoch is the same share of the time instead.
        """
        config, constants, began = self.config, self.constants, time.monotonic()
        share, n_rounds, losses = 0.0, 0, []
        n_visits = sum(int((histories.visit_time < stop_time).sum()) for histories in self.dataset.batches())
        n_done, span = 0, max(stop_time - int(self.dataset.manifest["time"]["min"]), 1)
        while share < 1:
            for batch in training_batches(
                self.dataset, constants, stop_time, config.batch_visits, config.segment_visits, self.rng
            ):
                state = self.network.start(len(batch.first))
                self.network.train()
                for offset in range(0, int((batch.stop - batch.first).max()), config.segment_visits):
                    segment = cut_segment(
                        batch,
                        constants,
                        offset,
                        config.segment_visits,
                        None,
                        habit=config.habit,
                        n_threads=torch.get_num_threads(),
                    )
                    state = tuple(part[: segment.shape[1]].detach() for part in state)
                    logits, state = self.network(segment, state)
                    age = (stop_time - batch.histories.visit_time[segment.visits]) / span
                    loss = visit_loss(
                        logits, segment, config.size_power, 2.0 ** (-config.recency * age), ops=self.network.ops
                    )
                    rate = peak_rate * _schedule(share)
                    self._step(loss, rate)
                    losses.append(float(loss.detach()))
                    n_done += len(segment.visits)
                    spent = (time.monotonic() - began) / max(limit_s, 1e-9)
                    share, before = min(max(n_done / (epochs * n_visits), spent, share), 1.0), share
                    listener.advance(share - before)
                    if share == 1:
                        break
                if share * epochs >= n_rounds + 1 or share == 1:
                    n_rounds = int(share * epochs)
                    self.finished = share == 1
                    yield {"train_loss": float(np.mean(losses)), "learning_rate": rate}
                    losses = []
                if share == 1:
                    break

    def _step(self, loss: Tensor, rate: float) -> None:
        if not torch.isfinite(loss):
            return
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(rate)


def visit_loss(
    logits: Tensor, segment: Segment, size_power: float, visit_weights: NDArray[np.float64] | None = None, *, ops: Ops
) -> Tensor:
    """Mean of ``-log p(action)`` over the actions of visits, of one of n weighing ``n ** -size_power`` each.

    With power 0 the most probable actions are those most often in a visit; with power 1 every visit weighs the same and
    ``p`` is the distribution of one action drawn from it. ``visit_weights`` float64 [n_moments] come on top.
    """
    weights = np.maximum(np.diff(segment.label_start), 1.0) ** -size_power
    if visit_weights is not None:
        weights = weights * visit_weights
    return ops.set_loss(logits, segment.label_start, segment.label_actions, weights.astype(np.float32))


def validate(
    network: Network, config: ModelConfig, constants: Constants, dataset: Dataset, split: Split, part: Part
) -> dict[str, float]:
    """Measure loss, hit@1 and hit@3 on the target visits of a part, on about 20,000 of them where there are more.

    Returns:
        ``{part}_loss`` (:func:`visit_loss` with power ``VALIDATION_POWER``), ``{part}_hit1``, ``{part}_hit3``; NaN
        where there are no targets.
    """
    loss, weight, hits, n = 0.0, 0.0, np.zeros(2), 0
    for histories in dataset.batches():
        for visits, scores in score_visits(
            network, config, constants, histories, target_visits(histories, split, part)
        ):
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
        if n >= VALIDATION_VISITS:
            break
    hit1, hit3 = (hits / n).tolist() if n else (math.nan, math.nan)
    loss = loss / weight if weight else math.nan
    return {f"{part}_loss": loss, f"{part}_hit1": hit1, f"{part}_hit3": hit3}


def _schedule(share: float) -> float:
    """Learning rate relative to its peak: a short rise, then half a cosine down to zero."""
    return min(1.0, (share + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))


def _freeze(network: Network) -> dict[str, Any]:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
