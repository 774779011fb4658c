"""A network on its way through the histories: batches, steps, the learning rate, and what is needed to go on later."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from luckyfast.batches import Batch, Constants, Segment, cut_segment, training_batches
from luckyfast.checkpoint import Progressed
from luckyfast.dataset import Dataset
from luckyfast.models import ModelConfig, Schedule, build
from luckyfast.models.cores import n_cores
from luckyfast.models.fused import FusedOps
from luckyfast.models.network import Network, State
from luckyfast.optimiser import Optimiser
from luckyfast.progress import Progress

__all__ = ["Course", "label_weights"]

WARM_UP = 0.05
SHARED_RATE = 3.0
"""Learning rate of the weights that all actions share, relative to the others': they are few, and far from zero."""
_ARRAYS = ("weights", "means", "squares", "averages")


class Course:
    """A network on its way: optimiser, averaged weights, and the loop over histories.

    Args:
        dataset: what to train on.
        config: settings; their seed decides the order of batches.
        constants: what was measured in the training time.
        start: the weights to begin with; random ones if None.
        device: of torch.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ModelConfig,
        constants: Constants,
        start: Network | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        self.dataset, self.config, self.constants, self.device = dataset, config, constants, device
        self.network = build(config, constants, device=device)
        if start is not None:
            self.network.load_state_dict(start.state_dict())
        self._average = copy.deepcopy(self.network)
        self.optimiser = Optimiser(
            self.network,
            self._average,
            quick=[part.shared for part in (self.network.residual, self.network.trend) if part is not None],
            quick_scale=SHARED_RATE,
            decay=config.weight_decay,
            ema_decay=config.ema_decay,
            fused=isinstance(self.network.ops, FusedOps),
        )
        known = torch.from_numpy(constants.known)
        smoothing = config.label_smoothing * known.float() / known.sum()
        self.smoothing = smoothing.to(device) if config.label_smoothing else None
        self.rng = np.random.default_rng(config.seed)
        self.share, self.n_rounds, self.n_done, self.loss, self.weight = 0.0, 0, 0, 0.0, 0.0
        self._pass_began, self._n_batches = self.rng.bit_generator.state, 0
        self._n_visits, self._step_weight = 0, 1.0

    @property
    def average(self) -> Network:
        """A network with the averaged weights, in evaluation mode."""
        return copy.deepcopy(self._average).eval()

    @property
    def passes(self) -> float:
        """Passes made over the visits that the last run trained on."""
        return self.n_done / max(self._n_visits, 1)

    @property
    def finished(self) -> bool:
        """Whether all is done that was asked for."""
        return self.share == 1

    def run(
        self,
        stop_time: int,
        epochs: int,
        peak_rate: float,
        limit_s: float,
        listener: Progress,
        between: Callable[[], None] = lambda: None,
    ) -> Iterator[dict[str, float]]:
        """Train on all visits before a time; at the end of each epoch yields the mean loss of its labels, and the rate.

        Where the time does not suffice for all epochs, an epoch is the same share of the time instead.

        Args:
            stop_time: end of the visits to train on.
            epochs: passes over them.
            peak_rate: largest learning rate.
            limit_s: wall-clock seconds for what is left.
            listener: told of the share done.
            between: called between batches, when the state can be kept.

        Raises:
            FloatingPointError: the loss or its gradient is no number.
        """
        began, share_before = time.monotonic(), self.share
        n_visits, weight = self._count_visits(stop_time)
        self._n_visits = n_visits
        self._step_weight = weight * min(self.config.batch_visits / max(n_visits, 1), 1.0)
        listener.advance(self.share)
        self.network.train()
        while not self.finished:
            for batch in self._batches(stop_time):
                for segment, state in self._segments(batch):
                    rate = peak_rate * _relative_rate(self.config.schedule, self.share)
                    self._step(segment, batch, state, stop_time, rate)
                    self.n_done += len(segment.visits)
                    spent = (time.monotonic() - began) / max(limit_s, 1e-9)
                    spent = share_before + (1 - share_before) * spent
                    before = self.share
                    self.share = min(max(self.n_done / (epochs * n_visits), spent, before), 1.0)
                    listener.advance(self.share - before)
                    if self.finished:
                        break
                self._n_batches += 1
                if self.share * epochs >= self.n_rounds + 1 or self.finished:
                    self.n_rounds = int(self.share * epochs)
                    loss, self.loss, self.weight = self.loss / (self.weight or 1.0), 0.0, 0.0
                    yield {"train_loss": loss, "learning_rate": rate}
                between()
                if self.finished:
                    break

    def progressed(self) -> Progressed:
        """How far it has come; only between batches."""
        values = {name: getattr(self, name) for name in ("share", "n_rounds", "n_done", "loss", "weight", "_n_batches")}
        values |= {"n_steps": self.optimiser.n_steps, "_pass_began": self._pass_began}
        arrays = {name: getattr(self.optimiser, name).cpu().numpy() for name in _ARRAYS}
        arrays["random"] = torch.get_rng_state().numpy()
        if self.device != "cpu":
            arrays["random_there"] = torch.cuda.get_rng_state().numpy()
        return Progressed(values, arrays)

    def go_on_from(self, state: Progressed) -> None:
        """Return to where :meth:`progressed` was."""
        values = dict(state.values)
        self.optimiser.n_steps = values.pop("n_steps")
        for name, value in values.items():
            setattr(self, name, value)
        for name in _ARRAYS:
            getattr(self.optimiser, name).copy_(torch.from_numpy(state.arrays[name]))
        torch.set_rng_state(torch.from_numpy(state.arrays["random"]))
        if self.device != "cpu" and "random_there" in state.arrays:
            torch.cuda.set_rng_state(torch.from_numpy(state.arrays["random_there"]))

    def _ages(self, times: NDArray[np.int64], stop_time: int) -> NDArray[np.float64]:
        """Age of visits, from 0 at the end of the training time to 1 at its beginning."""
        ages: NDArray[np.float64] = (stop_time - times) / max(stop_time - int(self.dataset.manifest["time"]["min"]), 1)
        return ages

    def _count_visits(self, stop_time: int) -> tuple[int, float]:
        """How many visits there are, and what the labels of all of them weigh together."""
        n_visits, weight = 0, 0.0
        for histories in self.dataset.batches():
            for visits in histories.stretches():
                times = histories.visit_time[visits]
                early = times < stop_time
                ages = self._ages(times[early], stop_time)
                n_visits += len(ages)
                n_labels = np.diff(histories.action_start[visits.start : visits.stop + 1])[early]
                weight += float(n_labels @ self._weights_at(n_labels, ages))
        return n_visits, weight

    def _batches(self, stop_time: int) -> Iterator[Batch]:
        """The batches of a pass; those that were done before are left out."""
        self.rng.bit_generator.state = self._pass_began
        config = self.config
        batches = training_batches(
            self.dataset, self.constants, stop_time, config.batch_visits, config.segment_visits, self.rng
        )
        for number, batch in enumerate(batches):
            if number >= self._n_batches:
                yield batch
        self._pass_began, self._n_batches = self.rng.bit_generator.state, 0

    def _segments(self, batch: Batch) -> Iterator[tuple[Segment, list[State]]]:
        """The segments of a batch, each with the state before it, in place of which goes the one after.

        As few as there can be, and of equal length but for what is left to the last.
        """
        config, held = self.config, [self.network.start(len(batch.first))]
        longest = int((batch.stop - batch.first).max())
        n_steps = math.ceil(longest / math.ceil(longest / config.segment_visits))
        for offset in range(0, longest, n_steps):
            segment = cut_segment(batch, self.constants, offset, n_steps, None, habit=config.habit, n_threads=n_cores())
            held[0] = tuple(part[: segment.shape[1]].detach() for part in held[0])
            yield segment, held

    def _step(self, segment: Segment, batch: Batch, held: list[State], stop_time: int, rate: float) -> None:
        """Learn from a segment.

        Its loss is a sum over labels divided by what a full step's labels weigh on average, and not by what its own do:
        a step of few or old visits then adds less to what moves the weights, and every label counts as its weight says.
        """
        ages = self._ages(batch.histories.visit_time[segment.visits], stop_time)
        n_labels = np.diff(segment.label_start)
        weights = self._weights_at(n_labels, ages)
        found, held[0] = self.network.loss(segment, held[0], weights, self._step_weight, self.smoothing)
        found.backward()  # type: ignore[no-untyped-call]
        loss = float(found.detach())
        if not (math.isfinite(loss) and self.optimiser.step(rate)):
            raise FloatingPointError(f"the loss is no longer a number after {self.optimiser.n_steps} steps")
        self.loss += loss * self._step_weight
        self.weight += float(weights @ n_labels)

    def _weights_at(self, n_labels: NDArray[np.int64], ages: NDArray[np.float64]) -> NDArray[np.float32]:
        """Weight of each label of visits of these ages, float32 [n]."""
        return label_weights(n_labels, self.config.size_power, 2.0 ** (-self.config.recency * ages))


def label_weights(
    n_labels: NDArray[np.int64], size_power: float, visit_weights: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Weight of each label of visits: of one of n labels ``n ** -size_power``, times the visit's own.

    With power 0 the most probable actions are those most often in a visit; with power 1 every visit weighs the same,
    and what is predicted is the distribution of one action drawn from it.

    Args:
        n_labels: int64 [n], labels of each visit.
        size_power: how much less the labels of large visits weigh.
        visit_weights: float64 [n]; 1 if None.

    Example:
        >>> label_weights(np.array([1, 4]), 0.5).tolist()
        [1.0, 0.5]
    """
    weights: NDArray[np.float64] = np.maximum(n_labels, 1.0) ** -size_power
    return (weights if visit_weights is None else weights * visit_weights).astype(np.float32)


def _relative_rate(schedule: Schedule, share: float) -> float:
    """Learning rate relative to its peak: a short rise, then what the schedule says."""
    fall = {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}[schedule]
    return min(1.0, (share + 1e-3) / WARM_UP) * fall
