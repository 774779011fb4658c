"""Cut histories into batches of similar length and into segments in time, as views of the memory-mapped shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luckyfast.dataset import Dataset, Histories
from luckyfast.features import FeatureMeter, FeatureScale, VisitFeatures, read_features
from luckyfast.habits import N_FIXED_FEATURES, Habits, compute_habits
from luckyfast.moments import DAY_US
from luckyfast.trend import Trend, measure_trend
from luckyfast.windows import bounded_parts

__all__ = [
    "GAP_EDGES",
    "Batch",
    "Constants",
    "Segment",
    "StepFeatures",
    "cut_segment",
    "measure",
    "training_batches",
]

N_CONTEXT_VALUES = 7
GAP_EDGES = (0.1, 0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Constants:
    """What features need to know about the training time.

    Args:
        popularity: float64 [n_actions], smoothed share of training visits that hold each action, in (0, 1).
        known: bool [n_actions], whether the action happened in the training time; id 0 never did.
        half_lives: half-lives of habits, in the dataset's time unit.
        visit_spans: half-lives of habits, in visits.
        time_scale: mean time between two visits of a customer, in the dataset's time unit.
        clock: whether times have weekdays and hours.
        strength: how many visits of an average customer the prior of a habit is worth.
        n_visits: visits in the training time.
        features: side columns that are read.
        trend: what is in demand on which day, the validation's and the test's days too: a moment only ever sees the row
            of its own day, which holds what came before; None where times of different customers do not compare.
    """

    popularity: NDArray[np.float64]
    known: NDArray[np.bool_]
    half_lives: tuple[float, ...]
    visit_spans: tuple[float, ...]
    time_scale: float
    clock: bool
    strength: float
    n_visits: int
    features: tuple[FeatureScale, ...] = ()
    trend: Trend | None = None

    @property
    def n_actions(self) -> int:
        """Size of the vocabulary, the unknown action included."""
        return len(self.popularity)

    @property
    def n_contexts(self) -> int:
        """How many contexts a moment has: gap, and with a clock weekday and part of the day."""
        return 3 if self.clock else 1

    @property
    def n_calendar(self) -> int:
        """Number of calendar features of a moment."""
        return 15 if self.clock else 4

    @property
    def n_habits(self) -> int:
        """Number of habit features of an action at a moment."""
        return N_FIXED_FEATURES + len(self.half_lives) + len(self.visit_spans) + self.n_contexts


@dataclass(frozen=True, eq=False)
class Moments:
    """Calendar of every visit of some histories, as the moment of its prediction: contents are not looked at.

    Args:
        calendar: float32 [n_visits, n_calendar].
        contexts: int32 [n_visits, n_contexts].
        action_start: int64 [n_visits + 1], that of the histories.
        features: the side columns of each visit, which only later moments may see; None where none are read.
    """

    calendar: NDArray[np.float32]
    contexts: NDArray[np.int32]
    action_start: NDArray[np.int64]
    features: VisitFeatures | None = None

    @classmethod
    def of(cls, histories: Histories, constants: Constants) -> Moments:
        """Compute the calendar: log gaps, whether and how many earlier visits, weekday, two harmonics of the hour."""
        time = histories.visit_time
        has_earlier = np.ones(len(time), np.bool_)
        starts = histories.visit_start[:-1]
        has_earlier[starts[starts < len(time)]] = False
        gap = np.where(has_earlier, np.diff(time, prepend=time[:1]), 0) / constants.time_scale
        n_earlier = np.arange(len(time)) - np.repeat(starts, np.diff(histories.visit_start))
        columns = [np.log1p(gap), np.log1p(100 * gap) / 5, has_earlier, np.log1p(n_earlier) / 3]
        contexts = [np.where(has_earlier, 1 + np.searchsorted(GAP_EDGES, gap, side="right"), 0)]
        if constants.clock:
            day, within = np.divmod(time, DAY_US)
            weekday, hour = (day + 3) % 7, within / DAY_US
            columns += [weekday == number for number in range(7)]
            columns += [wave(2 * np.pi * turns * hour) for turns in (1, 2) for wave in (np.sin, np.cos)]
            contexts += [weekday, (6 * within) // DAY_US]
        return cls(
            np.stack(columns, axis=1).astype(np.float32),
            np.stack(contexts, axis=1).astype(np.int32),
            histories.action_start.astype(np.int64),
            read_features(histories, constants.features) if constants.features else None,
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Customers whose histories run side by side.

    Args:
        histories: where they lie.
        moments: the calendar of these histories.
        first: int64 [B], first visit of each customer; the longest history comes first.
        stop: int64 [B], end of what is run of it.
    """

    histories: Histories
    moments: Moments
    first: NDArray[np.int64]
    stop: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StepFeatures:
    """The side columns of the visits that are seen, step by step.

    Args:
        numbers: float32 [T * B, 3 * numbers]; 0 where no visit is seen.
        category_start: int64 [T * B + 1]; step s has the rows ``categories[category_start[s]:category_start[s + 1]]``.
        categories: int64, rows of the common table.
    """

    numbers: NDArray[np.float32]
    category_start: NDArray[np.int64]
    categories: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Segment:
    """Some steps in time of a batch, as the arrays a model reads: T steps of B customers, n moments.

    The step of visit ``v`` sees visit ``v - 1``, and the calendar of both; its moment is the prediction of ``v``.

    Args:
        shape: (T, B).
        bag_actions: int64, actions of the visits seen, step by step; bag_start: int64 [T * B + 1] bounds each step's.
        steps: float32 [T, B, 2 + 2 * n_calendar].
        visits: int64 [n], the visit of each moment; positions: int64 [n], its step, as ``t * B + b``.
        calendar: float32 [n, n_calendar].
        habits: the habits at these moments, if wanted.
        label_actions: int64, the distinct known actions of each moment's visit; label_start: int64 [n + 1] bounds them.
        features: the side columns of the visits seen, if there are any.
        trend_rows: int64 [n], the row of the trends of each moment, if there are any.
    """

    shape: tuple[int, int]
    bag_actions: NDArray[np.int64]
    bag_start: NDArray[np.int64]
    steps: NDArray[np.float32]
    visits: NDArray[np.int64]
    positions: NDArray[np.int64]
    calendar: NDArray[np.float32]
    habits: Habits | None
    label_start: NDArray[np.int64]
    label_actions: NDArray[np.int64]
    features: StepFeatures | None = None
    trend_rows: NDArray[np.int64] | None = None

    def part(self, start: int, stop: int) -> Segment:
        """The moments ``start:stop`` of this segment, with all its steps."""
        if start == 0 and stop >= len(self.visits):
            return self
        labels = self.label_start[start : stop + 1]
        return replace(
            self,
            visits=self.visits[start:stop],
            positions=self.positions[start:stop],
            calendar=self.calendar[start:stop],
            habits=None if self.habits is None else self.habits.part(start, stop),
            label_start=labels - labels[0],
            label_actions=self.label_actions[labels[0] : labels[-1]],
            trend_rows=None if self.trend_rows is None else self.trend_rows[start:stop],
        )


def measure(
    dataset: Dataset,
    stop_time: int,
    *,
    n_half_lives: int,
    visit_spans: tuple[float, ...],
    strength: float,
    features: bool = True,
) -> Constants:
    """Measure popularity, rhythm and, with ``features``, side columns in the visits before a time, in one pass.

    Trends are measured in two more, of all visits.

    Half-lives are spread geometrically from a mean gap between visits to the whole time before ``stop_time``.
    """
    meter = FeatureMeter(dataset.features if features else ())
    n_holding = np.zeros(dataset.n_actions, np.int64)
    n_visits, n_gaps, gaps, start_time = 0, 0, 0.0, stop_time
    for histories in dataset.batches():
        for visits in histories.stretches():
            inside = histories.visit_time[visits] < stop_time
            n_holding += np.bincount(histories.actions_of(visits, inside), minlength=dataset.n_actions)
            meter.add(histories, visits, inside)
        first, stop = histories.visit_start[:-1].astype(np.int64), histories.stops_before(stop_time)
        n_visits += int((stop - first).sum())
        first, last = first[stop > first], stop[stop > first] - 1
        gaps += float((histories.visit_time[last] - histories.visit_time[first]).sum(dtype=np.float64))
        n_gaps += int((last - first).sum())
        start_time = min(start_time, int(histories.visit_time.min(initial=start_time)))
    time_scale = max(gaps / max(n_gaps, 1), 1.0)
    longest = max(float(stop_time - start_time), 2 * time_scale)
    half_lives = tuple(float(h) for h in np.geomspace(time_scale / 2, longest, n_half_lives))
    known = n_holding > 0
    known[0] = False
    popularity = (n_holding + 0.5) / (n_visits + 1)
    return Constants(
        popularity=popularity,
        known=known,
        half_lives=half_lives,
        visit_spans=visit_spans,
        time_scale=time_scale,
        clock=dataset.time_kind == "clock",
        strength=strength,
        n_visits=n_visits,
        features=meter.scales(),
        trend=measure_trend(dataset, popularity),
    )


def training_batches(
    dataset: Dataset,
    constants: Constants,
    stop_time: int,
    batch_visits: int,
    segment_visits: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Go through all histories once, cut off at a time, in shuffled batches of histories of similar length."""
    for histories in itertools.chain.from_iterable(map(bounded_parts, dataset.batches())):
        moments = Moments.of(histories, constants)
        first, stop = histories.visit_start[:-1].astype(np.int64), histories.stops_before(stop_time)
        lengths = stop - first
        order = np.argsort(-lengths * np.exp(rng.uniform(-0.05, 0.05, len(lengths))), kind="stable")
        order = order[lengths[order] > 0]
        # A batch ends where its first segment is full, were that as long as it may be.
        budget = np.cumsum(np.minimum(lengths[order], segment_visits))
        groups = np.split(order, np.flatnonzero(np.diff(budget // batch_visits)) + 1) if len(order) else []
        for number in rng.permutation(len(groups)):
            rows = groups[number]
            rows = rows[np.argsort(-lengths[rows], kind="stable")]
            yield Batch(histories, moments, first[rows], stop[rows])


def cut_segment(
    batch: Batch,
    constants: Constants,
    offset: int,
    n_steps: int,
    wanted: NDArray[np.bool_] | None,
    *,
    habit: bool,
    n_threads: int = 1,
) -> Segment:
    """Cut one segment: the steps ``offset:offset + n_steps`` of all histories that reach them.

    Args:
        batch: the batch.
        constants: what was measured in the training time.
        offset: first step.
        n_steps: number of steps, at most.
        wanted: bool [n_visits], the visits to predict; None takes every visit.
        habit: whether habit features are wanted.
        n_threads: cores to use.
    """
    histories, calendar = batch.histories, batch.moments.calendar
    alive = batch.stop - batch.first > offset
    first, stop = batch.first[alive], np.minimum(batch.stop, batch.first + offset + n_steps)[alive]
    T, B = int((stop - first).max()) - offset, len(first)
    visits = first + offset + np.arange(T)[:, None]
    inside = visits < stop
    visits = np.where(inside, visits, first)
    seen = np.where(inside & (visits > first), visits - 1, -1)
    bounds = batch.moments.action_start
    sizes = np.where(seen >= 0, bounds[seen + 1] - bounds[seen], 0)
    steps = np.concatenate(
        (
            np.log1p(sizes)[..., None],
            (seen >= 0)[..., None],
            np.where((seen >= 0)[..., None], calendar[seen], 0),
            calendar[visits],
        ),
        axis=2,
    ).astype(np.float32)
    pairs, bag_start = _ranges(bounds[seen.ravel()], sizes.ravel())
    side = batch.moments.features

    starts = first + offset
    chosen, row_start = _ranges(starts, stop - starts)
    if wanted is not None:
        kept = wanted[chosen]
        row_start = np.concatenate((np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)))[row_start]
        chosen = chosen[kept]
    column = np.repeat(np.arange(B), np.diff(row_start))
    label_pairs, label_start = _ranges(bounds[chosen], bounds[chosen + 1] - bounds[chosen])
    label_actions = histories.actions[label_pairs].astype(np.int64)
    known = constants.known[label_actions]
    habits = None
    if habit:
        habits = compute_habits(
            histories,
            batch.moments.contexts,
            first,
            row_start,
            chosen,
            prior=constants.strength * constants.popularity,
            half_lives=constants.half_lives,
            visit_spans=constants.visit_spans,
            time_scale=constants.time_scale,
            n_context_values=N_CONTEXT_VALUES,
            n_threads=n_threads,
        )
    return Segment(
        shape=(T, B),
        bag_actions=histories.actions[pairs].astype(np.int64),
        bag_start=bag_start,
        steps=steps,
        visits=chosen,
        positions=(chosen - first[column] - offset) * B + column,
        calendar=calendar[chosen],
        habits=habits,
        label_start=np.concatenate((np.zeros(1, np.int64), np.cumsum(known, dtype=np.int64)))[label_start],
        label_actions=label_actions[known],
        features=None if side is None else _features_of(side, seen.ravel()),
        trend_rows=None if constants.trend is None else constants.trend.rows_at(histories.visit_time[chosen]),
    )


def _features_of(side: VisitFeatures, seen: NDArray[np.int64]) -> StepFeatures:
    """The side columns of the visits seen; -1 for none."""
    there = seen >= 0
    n_categories = side.categories.shape[1]
    return StepFeatures(
        np.where(there[:, None], side.numbers[seen], np.float32(0)),
        np.concatenate((np.zeros(1, np.int64), np.cumsum(n_categories * there))),
        side.categories[seen[there]].ravel(),
    )


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concatenate ``arange(start, start + size)``, and say where each begins and the last ends."""
    bounds = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    return np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], sizes), bounds
