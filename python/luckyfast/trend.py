"""Trends: what all customers take more, or less, these days than in the whole training time.

A *trend* of an action on a day looks at the visits of all customers on earlier days, and at nothing of the day itself:
whatever the hour, a prediction sees what a shop knows in the morning. With ``n_h`` the number of those visits that hold
the action and ``N_h`` the number of all of them, where a visit of ``d`` days before counts ``2 ** (-d / h)``,

    ``trend_h = clip(log((n_h + SHRINKAGE) / (N_h * popularity + SHRINKAGE)), -LARGEST, LARGEST)``

for each half-life ``h`` of :data:`HALF_LIVES`: the log of the ratio of what came to what was to be expected, shrunk as
by a gamma prior (DuMouchel, 1999), so that an action of which little was to be expected has a trend near 0. After the
last day of a log, when nothing new is known, a trend halves within ``h``.

A visit counts on the day of its last row, since only then a shop knows all that it holds: open carts, and sessions past
midnight, last for days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.moments import DAY_US

if TYPE_CHECKING:
    from luckyfast.dataset import Dataset

__all__ = ["HALF_LIVES", "LARGEST", "SHRINKAGE", "Trend", "measure_trend"]

HALF_LIVES = (1.0, 4.0, 16.0)
"""In days."""
SHRINKAGE = 10.0
"""Visits with an action that a trend of 0 is worth."""
LARGEST = 1.0
"""A season such as Christmas has trends that no day of the training time had: weights learnt on those would be
multiplied by far more than they ever were."""
AHEAD = (2, 4, 8, 16, 32, 64, 128)
"""Days after the last one for which there are rows as well; from the last of these on there are no trends."""
MAX_VALUES = 2**20
"""Of a half-life, about: with more days times actions a row is that of a first day for several."""


@dataclass(frozen=True, eq=False)
class Trend:
    """The trends of all actions, row by row.

    Args:
        starts: int64 [n_rows], ascending, in days since 1970. Row ``r`` is for moments from the day ``starts[r]`` on
            and holds what came before that day.
        values: float32 [n_half_lives, n_rows, n_actions].
        end: the day after the last one of the log.
    """

    starts: NDArray[np.int64]
    values: NDArray[np.float32]
    end: int

    def rows_at(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows for moments int64 [n], in µs since 1970; the first row, which holds nothing, for those before it too."""
        return np.maximum(_rows_of(times // DAY_US, self.starts), 0)

    @property
    def latest(self) -> NDArray[np.float32]:
        """What is known at the end of the log, float32 [n_half_lives, n_actions]."""
        return self.values[:, self.rows_at(np.array([self.end * DAY_US]))[0]]


def measure_trend(
    dataset: Dataset,
    popularity: NDArray[np.float64],
    translate: Callable[[NDArray[Any], NDArray[np.int32]], NDArray[np.int64]] | None = None,
) -> Trend | None:
    """Measure the trends of every day with visits, and of every day after one, in two passes over a dataset.

    Args:
        dataset: the dataset.
        popularity: float64 [n_actions], share of visits that hold each action, in (0, 1).
        translate: for actions with other ids than those of ``popularity``: gives these, 0 where there is none, from the
            first action of each visit, int [n_visits + 1], and the actions of all visits. None where ids are the same.

    Returns:
        The trends; None where times of different customers do not compare.

    Example:
        >>> trend = measure_trend(dataset, np.full(dataset.n_actions, 0.1))
        >>> trend.latest.shape == (len(HALF_LIVES), dataset.n_actions)
        True
    """
    if not dataset.has_common_times or dataset.n_visits == 0:
        return None
    n_actions = len(popularity)
    days = np.zeros(0, np.int64)
    for histories in dataset.batches():
        for visits in histories.stretches():
            days = np.union1d(days, histories.visit_time[visits] // DAY_US)
            if histories.visit_days is not None and histories.visit_days[visits].any():
                days = np.union1d(days, histories.last_days(visits))
    end = int(days[-1]) + 1
    starts = np.union1d(days, days + 1)
    n_days = -(-len(starts) // max(MAX_VALUES // n_actions, 1))
    starts = np.union1d(starts[::n_days], end)
    held, n_visits = np.zeros((len(HALF_LIVES), len(starts), n_actions)), np.zeros((len(HALF_LIVES), len(starts)))
    for histories in dataset.batches():
        for visits in histories.stretches():
            own_days = histories.last_days(visits)
            rows = _rows_of(own_days, starts) + 1
            bounds = histories.action_start[visits.start : visits.stop + 1]
            actions: NDArray[Any] = histories.actions[bounds[0] : bounds[-1]]
            if translate is not None:
                actions = translate(bounds - bounds[0], actions)
            pairs = np.repeat((rows * n_actions).astype(np.int32), np.diff(bounds)) + actions
            for k, half_life in enumerate(HALF_LIVES):
                weights = 2.0 ** ((own_days - starts[rows]) / half_life)
                n_visits[k] += np.bincount(rows, weights, len(starts))
                weights = np.repeat(weights, np.diff(bounds))
                held[k] += np.bincount(pairs, weights, held[k].size).reshape(held[k].shape)
    values = np.zeros((len(HALF_LIVES), len(starts) + len(AHEAD), n_actions), np.float32)
    for k, half_life in enumerate(HALF_LIVES):
        late, n_late = np.zeros(n_actions), 0.0
        for row, fade in enumerate((2.0 ** (-np.diff(starts) / half_life)).tolist(), start=1):
            late, n_late = fade * late + held[k, row], fade * n_late + n_visits[k, row]
            values[k, row] = np.log((late + SHRINKAGE) / (n_late * popularity + SHRINKAGE))
    np.clip(values, -LARGEST, LARGEST, out=values)
    values[:, :, 0] = 0.0
    for row, ahead in enumerate(AHEAD[:-1], start=len(starts)):
        values[:, row] = values[:, len(starts) - 1] * (0.5 ** ((ahead - 1) / np.array(HALF_LIVES)))[:, None]
    return Trend(np.append(starts, days[-1] + np.array(AHEAD)), values, end)


def _rows_of(days: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last row that begins on a day or before; -1 for none."""
    rows: NDArray[np.int64] = np.searchsorted(starts, days, side="right") - 1
    return rows
