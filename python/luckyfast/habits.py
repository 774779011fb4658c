"""Habits: what each customer does again and again, at every moment of the history, in one pass.

A *moment* is a visit about to happen: only its time and its context are used, never what it holds. For a moment at
time ``t`` of a customer with ``N`` earlier visits, every action ``a`` that the customer took before gets one row of
features. Unseen actions have no row: the cost is that of the actions in the history and not of the vocabulary.

With ``u`` running over the customer's earlier visits that hold ``a`` (``t_u`` their times, ``i_u = 0 .. N - 1`` their
positions), ``n = number of u``, ``last``/``first`` the latest/earliest of them, ``share = n / N``, and ``prior[a] =
strength * popularity[a]``:

====================================  =================================================================================
column                                formula
====================================  =================================================================================
``0 .. K - 1`` (per half-life h)      ``log1p(sum_u 2 ** (-(t - t_u) / h) / prior[a])``
``K .. K + M - 1`` (per visit span g)  ``log1p(sum_u 2 ** (-(N - 1 - i_u) / g) / prior[a])``
``K + M``                             ``log1p(n / prior[a])``
``K + M + 1``                         ``log1p((t - t_last) / time_scale)``
``K + M + 2``                         ``log1p(N - 1 - i_last)``
``K + M + 3``                         ``1`` if ``i_last == N - 1`` else ``0``
``K + M + 4``                         ``1`` if ``n >= 2`` else ``0``
``K + M + 5``                         ``rho = clip(log((t - t_last + e) / ((t_last - t_first) / (n - 1) + e)), -3, 3)``
                                      with ``e = time_scale / 100``; ``0`` if ``n < 2``
``K + M + 6``                         ``exp(-2 * rho ** 2)``; ``0`` if ``n < 2``
``K + M + 7``                         ``pi = clip(log((N - i_last) / ((i_last - i_first) / (n - 1))), -3, 3)``;
                                      ``0`` if ``n < 2``
``K + M + 8``                         ``exp(-2 * pi ** 2)``; ``0`` if ``n < 2``
``K + M + 9 + j`` (per context j)     ``log((m_j + 3 * share) / ((M_j + 3) * share))`` where ``M_j`` counts the earlier
                                      visits whose context ``j`` equals the moment's, ``m_j`` those of them with ``a``
====================================  =================================================================================

The engine computes them (``engine/src/habits.inl``); the sums behind the first ``K + M`` columns and all ages are
exact to about 1e-6 of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luckyfast import _engine
from luckyfast.dataset import Histories

__all__ = ["N_FIXED_FEATURES", "Habits", "compute_habits"]

N_FIXED_FEATURES = 9
"""Columns beside those of half-lives, visit spans and contexts."""


@dataclass(frozen=True, eq=False)
class Habits:
    """The habits at n moments of some customers, P rows in all.

    Args:
        row_start: int64 [n_customers + 1]; customer r has the moments ``row_start[r]:row_start[r + 1]``.
        pair_start: int64 [n + 1]; moment m has the rows ``pair_start[m]:pair_start[m + 1]``.
        actions: int64 [P], the action of each row, in order of first occurrence within a moment.
        features: float32 [n_habits, P], column by column.
    """

    row_start: NDArray[np.int64]
    pair_start: NDArray[np.int64]
    actions: NDArray[np.int64]
    features: NDArray[np.float32]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The moment of each row, int64 [P]."""
        return np.repeat(np.arange(len(self.pair_start) - 1), np.diff(self.pair_start))

    def part(self, start: int, stop: int) -> Habits:
        """The habits at the moments ``start:stop``."""
        bounds = self.pair_start[start : stop + 1]
        rows = np.clip(self.row_start, start, start + len(bounds) - 1) - start
        pairs = slice(bounds[0], bounds[-1])
        return Habits(rows, bounds - bounds[0], self.actions[pairs], np.ascontiguousarray(self.features[:, pairs]))


def compute_habits(
    histories: Histories,
    contexts: NDArray[np.int32],
    first: NDArray[np.int64],
    row_start: NDArray[np.int64],
    moments: NDArray[np.int64],
    *,
    prior: NDArray[np.float64],
    half_lives: tuple[float, ...],
    visit_spans: tuple[float, ...],
    time_scale: float,
    n_context_values: int,
    n_threads: int = 1,
) -> Habits:
    """Compute the habits of every action before each moment.

    Args:
        histories: where the customers lie.
        contexts: int32 [n_visits, J], each below ``n_context_values``.
        first: int64 [n_customers], first visit of each customer.
        row_start: int64 [n_customers + 1]; customer r has the moments ``row_start[r]:row_start[r + 1]``.
        moments: int64 [n], visits, ascending within a customer.
        prior: float64 [n_actions], positive.
        half_lives: K half-lives, in the dataset's unit of time.
        visit_spans: M half-lives, in visits.
        time_scale: in the dataset's unit of time.
        n_context_values: upper bound of the contexts.
        n_threads: cores to use.
    """
    first, row_start, moments = (np.ascontiguousarray(ids, np.int64) for ids in (first, row_start, moments))
    pair_start = np.empty(len(moments) + 1, np.int64)
    lists = histories.action_start, histories.actions
    _engine.count_pairs(first, row_start, moments, *lists, len(prior), pair_start)
    n_features = len(half_lives) + len(visit_spans) + N_FIXED_FEATURES + contexts.shape[1]
    actions = np.empty(pair_start[-1], np.int64)
    features = np.empty((n_features, len(actions)), np.float32)
    _engine.habit_features(
        first,
        row_start,
        moments,
        pair_start,
        histories.visit_time,
        *lists,
        contexts,
        prior,
        np.array(half_lives, np.float64),
        np.array(visit_spans, np.float64),
        time_scale,
        n_context_values,
        actions,
        features,
        n_threads,
    )
    return Habits(row_start, pair_start, actions, features)
