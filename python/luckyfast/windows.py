"""Cut histories into what is learnt from, what is tuned on and what is tested, by time alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from luckyfast.config import MAX_VISITS
from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import DatasetError

__all__ = [
    "Labels",
    "Part",
    "Scorer",
    "Split",
    "bounded_parts",
    "first_visits",
    "known_actions",
    "runs_of_customers",
    "split_by_time",
    "target_visits",
]

Part = Literal["train", "valid", "test"]
_DIGIT_BITS = 16


@dataclass(frozen=True)
class Split:
    """A global split by time: train < ``valid_start`` <= validation < ``test_start`` <= test.

    Args:
        valid_start: first time of validation, in the dataset's time unit (µs since the epoch, or order numbers).
        test_start: first time of the test.
        min_history: earlier visits that a customer needs before a visit counts as a prediction target.

    Example:
        >>> Split(valid_start=10, test_start=20).bounds("valid")
        (10, 20)
    """

    valid_start: int
    test_start: int
    min_history: int = 3

    def bounds(self, part: Part) -> tuple[int | None, int | None]:
        """Times ``(start, stop)`` of a part, half open; ``None`` means without bound."""
        edges = {
            "train": (None, self.valid_start),
            "valid": (self.valid_start, self.test_start),
            "test": (self.test_start, None),
        }
        return edges[part]


@runtime_checkable
class Scorer(Protocol):
    """What every model and every baseline can do: score all actions for given visits, blind to those visits."""

    @property
    def name(self) -> str:
        """What the scorer is called in tables."""
        ...

    def score(
        self, histories: Histories, targets: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Score every action at the given visits.

        A prediction for visit ``v`` may use all visits of its customer before ``v``, the time of ``v``, and what other
        customers did on earlier days.

        Args:
            histories: one batch of histories.
            targets: int64 [n], ascending visit indices local to the batch.

        Yields:
            Blocks ``(targets int64 [m], scores float32 [m, n_actions])`` that cover the targets in order. Their softmax
            is a distribution of the next action; only id 0 may be ``-inf``.
        """
        ...


@dataclass(frozen=True, eq=False)
class Labels:
    """What happened in some target visits, and how large the customer's visits were before.

    Args:
        start: int64 [n + 1]; target ``i`` has the actions ``actions[start[i]:start[i + 1]]``.
        actions: int32 [n_pairs], distinct actions; 0 where the action was unknown before the test.
        mean_size: float64 [n], mean number of distinct actions in the customer's earlier visits (0 where none).
    """

    start: NDArray[np.int64]
    actions: NDArray[np.int32]
    mean_size: NDArray[np.float64]

    @classmethod
    def of(cls, histories: Histories, targets: NDArray[np.int64], known: NDArray[np.bool_]) -> Labels:
        """Collect the labels of some visits.

        Args:
            histories: one batch of histories.
            targets: int64 [n], visit indices local to the batch.
            known: bool [n_actions], see :func:`known_actions`.
        """
        bounds = histories.action_start
        first = first_visits(histories, targets)
        starts, sizes = bounds[targets].astype(np.int64), bounds[targets + 1] - bounds[targets]
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))
        pairs = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        actions = histories.actions[pairs]
        mean_size = (starts - bounds[first]) / np.maximum(targets - first, 1)
        return cls(offsets, np.where(known[actions], actions, 0).astype(np.int32), mean_size)


def split_by_time(
    dataset: Dataset, *, test_quantile: float = 0.85, valid_quantile: float = 0.765, min_history: int = 3
) -> Split:
    """Split a dataset at two quantiles of visit time over all visits.

    The quantiles are exact order statistics; memory does not grow with the dataset, which is read a few times.

    Args:
        dataset: the dataset.
        test_quantile: share of visits before the test.
        valid_quantile: share of visits before validation.
        min_history: earlier visits that a customer needs before a visit counts as a prediction target; fewer where
            validation or test would have no target.

    Returns:
        The split.

    Raises:
        DatasetError: the dataset has no visits, or too few distinct times to make three parts.

    Example:
        >>> split = split_by_time(dataset)
        >>> split.valid_start < split.test_start
        True
    """
    if dataset.n_visits == 0:
        raise DatasetError(f"{dataset.path} has no visits", hint="ingest a log with accepted rows")
    ranks = [int(quantile * (dataset.n_visits - 1)) for quantile in (valid_quantile, test_quantile)]
    valid_start, test_start = (_visit_time_at(dataset, rank) for rank in ranks)
    if not dataset.manifest["time"]["min"] < valid_start < test_start:
        raise DatasetError(
            f"{dataset.path} has too few distinct times to be split into training, validation and test",
            hint="give a log that spans more time",
        )
    split = Split(valid_start, test_start, min_history)
    while split.min_history > 0 and not _has_targets(dataset, split):
        split = replace(split, min_history=split.min_history - 1)
    return split


def _has_targets(dataset: Dataset, split: Split) -> bool:
    """Whether validation and test have a target."""
    found: set[Part] = set()
    for histories in dataset.batches():
        parts: tuple[Part, Part] = ("valid", "test")
        found |= {part for part in parts if len(target_visits(histories, split, part))}
        if len(found) == len(parts):
            return True
    return False


def _visit_time_at(dataset: Dataset, rank: int) -> int:
    """Visit time of a given rank, found 16 bits at a time: each pass over the dataset counts one digit."""
    low, high = (int(dataset.manifest["time"][name]) for name in ("min", "max"))
    mask = np.uint64((1 << _DIGIT_BITS) - 1)
    prefix = 0
    for shift in reversed(range(0, max((high - low).bit_length(), 1), _DIGIT_BITS)):
        counts = np.zeros(1 << _DIGIT_BITS, np.int64)
        for histories in dataset.batches():
            for visits in histories.stretches():
                # The difference wraps around and is right as uint64, however far apart the times are.
                offsets = (histories.visit_time[visits] - np.int64(low)).view(np.uint64)
                inside = offsets[offsets >> np.uint64(shift + _DIGIT_BITS) == prefix]
                digits = (inside >> np.uint64(shift)) & mask
                counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
        below = np.cumsum(counts)
        digit = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[digit] - counts[digit])
        prefix = prefix << _DIGIT_BITS | digit
    return low + prefix


def bounded_parts(histories: Histories) -> Iterator[Histories]:
    """The same visits, where a customer with more than ``MAX_VISITS`` becomes several, one after the other.

    What is computed of a visit, and how often, grows with the history that is run: this bounds it, and memory with it.
    """
    for customers, start, end, size in runs_of_customers(histories):
        for begin in range(start, end, size):
            yield histories.part(customers, slice(begin, min(begin + size, end)))


def runs_of_customers(histories: Histories) -> Iterator[tuple[slice, int, int, int]]:
    """Customers that follow one another and have at most ``MAX_VISITS`` visits each, or one that has more.

    Yields:
        The customers; start and end of their visits; and how many of these to run at once.
    """
    long = np.flatnonzero(np.diff(histories.visit_start) > MAX_VISITS)
    edges = np.unique(np.concatenate(([0], long, long + 1, [histories.n_customers])))
    for first, stop in itertools.pairwise(edges.tolist()):
        start, end = histories.visit_start[[first, stop]].tolist()
        if start < end:
            yield slice(first, stop), start, end, MAX_VISITS if first in long else end - start


def target_visits(histories: Histories, split: Split, part: Part, *, short: bool = False) -> NDArray[np.int64]:
    """Find the visits of a part that are prediction targets.

    Args:
        histories: one batch of histories.
        split: the split.
        part: which part's time the visits must lie in.
        short: instead find the visits whose customer has fewer than ``split.min_history`` earlier visits.

    Returns:
        int64 [n], ascending visit indices local to the batch.

    Example:
        >>> split = split_by_time(dataset)
        >>> sum(len(target_visits(histories, split, "test")) for histories in dataset.batches()) > 0
        True
    """
    inside = np.ones(histories.n_visits, np.bool_)
    start, stop = split.bounds(part)
    if start is not None:
        inside &= histories.visit_time >= start
    if stop is not None:
        inside &= histories.visit_time < stop
    visits = np.flatnonzero(inside)
    n_earlier = visits - first_visits(histories, visits)
    return visits[(n_earlier < split.min_history) if short else (n_earlier >= split.min_history)]


def first_visits(histories: Histories, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """First visit of the customer of each target, int64 [n], local to the batch."""
    customers = np.searchsorted(histories.visit_start, targets, side="right") - 1
    return histories.visit_start[customers].astype(np.int64)


def known_actions(dataset: Dataset, before: int) -> NDArray[np.bool_]:
    """Tell which actions happened in a visit before a time, bool [n_actions]; id 0 is never known."""
    known = np.zeros(dataset.n_actions, np.bool_)
    for histories in dataset.batches():
        for visits in histories.stretches():
            known[histories.actions_of(visits, histories.visit_time[visits] < before)] = True
    known[0] = False
    return known
