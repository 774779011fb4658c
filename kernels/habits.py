"""Habits: what each customer does again and again, at every moment of the history, in one pass.

A *moment* is a visit about to happen: only its time and its context are used, never what it holds. For a moment at
time ``t`` of a customer with ``N`` earlier visits, every action ``a`` that the customer took before gets one row of
features. Unseen actions have no row: the cost is that of the actions in the history and not of the vocabulary.

With ``u`` running over the customer's earlier visits that hold ``a`` (``t_u`` their times, ``i_u = 0 .. N - 1`` their
positions), ``n = number of u``, ``last``/``first`` the latest/earliest of them, ``share = n / N``, and ``prior[a] =
strength * popularity[a]``, all in float64:

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
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_FIXED_FEATURES = 9
"""Columns beside those of half-lives, visit spans and contexts."""


@njit(cache=True, nogil=True)
def count_habits(
    first: NDArray[np.int64],
    row_start: NDArray[np.int64],
    moments: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    seen: NDArray[np.int64],
    pair_start: NDArray[np.int64],
) -> None:
    """Count the distinct actions before each moment.

    Args:
        first: int64 [n_rows], first visit of each customer.
        row_start: int64 [n_rows + 1]; customer r has moments ``row_start[r]:row_start[r + 1]``.
        moments: int64 [n_moments], visits, ascending within a customer.
        action_start: int32 [n_visits + 1].
        actions: int32 [n_pairs].
        seen: int64 [n_actions], scratch; below ``-1 - n_rows`` or any value never equal to a row, e.g. all -1.
        pair_start: int64 [n_moments + 1], written: running number of (moment, action) rows.
    """
    pair_start[0] = 0
    for row in range(len(first)):
        visit = first[row]
        n = 0
        for m in range(row_start[row], row_start[row + 1]):
            while visit < moments[m]:
                for p in range(action_start[visit], action_start[visit + 1]):
                    if seen[actions[p]] != row:
                        seen[actions[p]] = row
                        n += 1
                visit += 1
            pair_start[m + 1] = pair_start[m] + n


@njit(cache=True, nogil=True)
def fill_habits(
    first: NDArray[np.int64],
    row_start: NDArray[np.int64],
    moments: NDArray[np.int64],
    visit_time: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    contexts: NDArray[np.int32],
    prior: NDArray[np.float64],
    half_lives: NDArray[np.float64],
    visit_spans: NDArray[np.float64],
    time_scale: float,
    n_context_values: int,
    pair_action: NDArray[np.int64],
    features: NDArray[np.float32],
) -> None:
    """Compute the habit features of every action before each moment.

    Args:
        first, row_start, moments, action_start, actions: as in :func:`count_habits`.
        visit_time: int64 [n_visits].
        contexts: int32 [n_visits, J], each below ``n_context_values``.
        prior: float64 [n_actions], positive.
        half_lives: float64 [K], in the unit of time.
        visit_spans: float64 [M], half-lives in visits.
        time_scale: in the unit of time.
        n_context_values: upper bound of the contexts.
        pair_action: int64 [n_pairs], written: the action of each row, in order of first occurrence within a moment.
        features: float32 [n_pairs, K + M + 9 + J], written.
    """
    n_actions, K, M, J = len(prior), len(half_lives), len(visit_spans), contexts.shape[1]
    decayed = np.zeros((n_actions, K + M))
    n_taken = np.zeros(n_actions, np.int64)
    edges = np.zeros((n_actions, 4), np.int64)  # first time, last time, first index, last index
    matches = np.zeros((n_actions, J, n_context_values), np.int32)
    n_in_context = np.zeros((J, n_context_values), np.int64)
    taken = np.zeros(n_actions, np.int64)
    pair = 0
    for row in range(len(first)):
        n_distinct = 0
        visit = first[row]
        for m in range(row_start[row], row_start[row + 1]):
            while visit < moments[m]:
                t, index = visit_time[visit], visit - first[row]
                for p in range(action_start[visit], action_start[visit + 1]):
                    a = actions[p]
                    if n_taken[a] == 0:
                        taken[n_distinct] = a
                        n_distinct += 1
                        edges[a, 0], edges[a, 2] = t, index
                    else:
                        for k in range(K):
                            decayed[a, k] *= 2.0 ** (-(t - edges[a, 1]) / half_lives[k])
                        for k in range(M):
                            decayed[a, K + k] *= 2.0 ** (-(index - edges[a, 3]) / visit_spans[k])
                    for k in range(K + M):
                        decayed[a, k] += 1.0
                    n_taken[a] += 1
                    edges[a, 1], edges[a, 3] = t, index
                    for j in range(J):
                        matches[a, j, contexts[visit, j]] += 1
                for j in range(J):
                    n_in_context[j, contexts[visit, j]] += 1
                visit += 1
            t, n_before = visit_time[visit], visit - first[row]
            for d in range(n_distinct):
                a = taken[d]
                n = n_taken[a]
                since, missed = float(t - edges[a, 1]), float(n_before - 1 - edges[a, 3])
                out = features[pair]
                pair_action[pair] = a
                for k in range(K):
                    out[k] = np.log1p(decayed[a, k] * 2.0 ** (-since / half_lives[k]) / prior[a])
                for k in range(M):
                    out[K + k] = np.log1p(decayed[a, K + k] * 2.0 ** (-missed / visit_spans[k]) / prior[a])
                out[K + M] = np.log1p(n / prior[a])
                out[K + M + 1] = np.log1p(since / time_scale)
                out[K + M + 2] = np.log1p(missed)
                out[K + M + 3] = 1.0 if missed == 0 else 0.0
                for k in range(K + M + 4, K + M + 9):
                    out[k] = 0.0
                if n >= 2:
                    e = time_scale / 100
                    own_gap = (edges[a, 1] - edges[a, 0]) / (n - 1)
                    rho = min(max(np.log((since + e) / (own_gap + e)), -3.0), 3.0)
                    own_span = (edges[a, 3] - edges[a, 2]) / (n - 1)
                    pi = min(max(np.log((missed + 1.0) / own_span), -3.0), 3.0)
                    out[K + M + 4] = 1.0
                    out[K + M + 5] = rho
                    out[K + M + 6] = np.exp(-2.0 * rho * rho)
                    out[K + M + 7] = pi
                    out[K + M + 8] = np.exp(-2.0 * pi * pi)
                share = n / n_before
                for j in range(J):
                    context = contexts[visit, j]
                    lift = (matches[a, j, context] + 3.0 * share) / ((n_in_context[j, context] + 3.0) * share)
                    out[K + M + 9 + j] = np.log(lift)
                pair += 1
        for d in range(n_distinct):
            a = taken[d]
            n_taken[a] = 0
            decayed[a] = 0.0
            matches[a] = 0
        n_in_context[:] = 0
