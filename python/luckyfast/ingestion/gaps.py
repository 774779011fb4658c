"""Times of logs without a clock that say how many days lie between a customer's visits.

A row has the number of its visit and the days since the visit before. Both are one sortable number until the merge,
below a day of microseconds; when a customer's visits are in order, the days from the first one on are added. So the
time of a visit holds all that a later merge needs, whatever visits are then added before or behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from luckyfast.ingestion.giants import Giant, Visits
from luckyfast.ingestion.merge import Histories
from luckyfast.kernels import merge as kernel
from luckyfast.kernels import parse as parse_kernel
from luckyfast.moments import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.plan import TimeFormat

__all__ = ["VisitDays", "has_gaps"]


def has_gaps(form: TimeFormat) -> bool:
    """Whether the times of a run are numbers and days in between."""
    return form.kind == "gaps"


class VisitDays:
    """Gives the visits of merged histories their days.

    Attributes:
        time_range: smallest and largest time so far.
    """

    def __init__(self) -> None:
        self.time_range = np.iinfo(np.int64).max, np.iinfo(np.int64).min

    def add_up(self, parts: Iterable[Histories | Giant]) -> Iterator[Histories | Giant]:
        """The same histories, with times from 1970-01-01 on: each customer's first visit is of that day."""
        for part in parts:
            if isinstance(part, Giant):
                yield part._replace(parts=self._add_up_parts(part.parts))
            else:
                self._move(part.n_visits, part.visit_time, np.array([-1, 0], np.int64))
                yield part

    def _add_up_parts(self, parts: Iterable[Visits]) -> Iterator[Visits]:
        state = np.array([-1, 0], np.int64)
        for part in parts:
            self._move(np.array([len(part.time)], np.int64), part.time, state)
            yield part

    def _move(self, n_visits: NDArray[np.int64], times: NDArray[np.int64], state: NDArray[np.int64]) -> None:
        kernel.add_up_gaps(n_visits, times, parse_kernel.GAP_BITS, DAY_US, state)
        if len(times):
            low, high = self.time_range
            self.time_range = min(low, int(times.min())), max(high, int(times.max()))
