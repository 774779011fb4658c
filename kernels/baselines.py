"""What the baselines know about a customer before a visit: one row of all actions per visit."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "add_neighbours",
    "count_transitions",
    "fill_frequencies",
    "fill_groups",
    "fill_transitions",
    "select_nearest",
    "subtract_products",
]


@njit(cache=True, nogil=True)
def fill_frequencies(
    first: NDArray[np.int64],
    targets: NDArray[np.int64],
    visit_time: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    rate: float,
    rows: NDArray[np.float32],
) -> None:
    """Count each customer's earlier visits by action, a visit of age t weighing ``exp(-rate * t)``.

    ``targets`` int64 [n] are ascending visits, ``first`` int64 [n] the first visits of their customers, ``rate`` is per
    unit of ``visit_time`` int64 [n_visits], and ages are those at the time of the target. ``rows`` float32
    [n, n_actions] is overwritten.
    """
    n_actions = rows.shape[1]
    weight = np.zeros(n_actions)
    listed = np.zeros(n_actions, np.bool_)
    taken = np.empty(n_actions, np.int64)
    n_taken = 0
    visit = 0
    now = 0
    for index in range(len(targets)):
        if index == 0 or first[index] != first[index - 1]:
            for position in range(n_taken):
                weight[taken[position]] = 0.0
                listed[taken[position]] = False
            n_taken = 0
            visit = first[index]
            now = visit_time[visit]
        while visit < targets[index]:
            if visit_time[visit] != now:
                decay = np.exp(-rate * (visit_time[visit] - now))
                for position in range(n_taken):
                    weight[taken[position]] *= decay
                now = visit_time[visit]
            for pair in range(action_start[visit], action_start[visit + 1]):
                action = actions[pair]
                if not listed[action]:
                    listed[action] = True
                    taken[n_taken] = action
                    n_taken += 1
                weight[action] += 1.0
            visit += 1
        decay = np.exp(-rate * (visit_time[visit] - now))
        rows[index, :] = 0.0
        for position in range(n_taken):
            rows[index, taken[position]] = weight[taken[position]] * decay


@njit(cache=True, nogil=True)
def fill_groups(
    first: NDArray[np.int64],
    targets: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    group_size: int,
    within: float,
    across: float,
    rows: NDArray[np.float32],
) -> None:
    """Sum each customer's earlier visits in groups that fade with age, the vector of TIFU-KNN (Hu et al., 2020).

    Counted back from the target, visit ``j`` is number ``i = j % group_size`` of group ``g = j // group_size`` and
    weighs ``within**i * across**g``, over the number of groups and their size. What weighs less than 1e-6 is left out.
    ``rows`` float32 [n, n_actions] is overwritten; ``targets`` may be one past the customer's last visit.
    """
    for index in range(len(targets)):
        rows[index, :] = 0.0
        n_visits = targets[index] - first[index]
        n_groups = (n_visits + group_size - 1) // group_size
        group_weight = 1.0
        visit_weight = 1.0
        for age in range(n_visits):
            if age > 0 and age % group_size == 0:
                group_weight *= across
                visit_weight = 1.0
            if group_weight < 1e-6:
                break
            weight = group_weight * visit_weight / (n_groups * group_size)
            visit = targets[index] - 1 - age
            for pair in range(action_start[visit], action_start[visit + 1]):
                rows[index, actions[pair]] += weight
            visit_weight *= within


@njit(cache=True, nogil=True)
def count_transitions(
    visit_start: NDArray[np.int32],
    visit_time: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    before: int,
    table_row: NDArray[np.int32],
    table: NDArray[np.float32],
) -> None:
    """Add to ``table`` float32 [n_rows, n_actions] how often an action followed another in the next visit.

    Only visits before the time ``before`` count; ``table_row`` int32 [n_actions] is an action's row, or -1.
    """
    for customer in range(len(visit_start) - 1):
        for visit in range(visit_start[customer] + 1, visit_start[customer + 1]):
            if visit_time[visit] >= before:
                break
            for source in range(action_start[visit - 1], action_start[visit]):
                row = table_row[actions[source]]
                if row >= 0:
                    for pair in range(action_start[visit], action_start[visit + 1]):
                        table[row, actions[pair]] += 1.0


@njit(cache=True, nogil=True)
def fill_transitions(
    first: NDArray[np.int64],
    targets: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    table_row: NDArray[np.int32],
    table: NDArray[np.float32],
    rows: NDArray[np.float32],
) -> None:
    """Sum the table rows of the actions in the visit before each target; ``rows`` [n, n_actions] is overwritten."""
    for index in range(len(targets)):
        rows[index, :] = 0.0
        last = targets[index] - 1
        if last < first[index]:
            continue
        for source in range(action_start[last], action_start[last + 1]):
            row = table_row[actions[source]]
            if row >= 0:
                for action in range(rows.shape[1]):
                    rows[index, action] += table[row, action]


@njit(cache=True, nogil=True)
def subtract_products(
    rows: NDArray[np.float32],
    action_start: NDArray[np.int64],
    holders: NDArray[np.int32],
    amounts: NDArray[np.float32],
    distances: NDArray[np.float32],
) -> None:
    """Take twice the product of each row and each vector of a sample from ``distances`` float32 [n, n_sample].

    Vectors are given by action: action ``a`` is in the vectors ``holders[action_start[a]:action_start[a + 1]]`` with
    the ``amounts`` beside them. ``rows`` is float32 [n, n_actions].
    """
    # PERF: where histories hold few of all actions this does less than a matrix product by the square of that share.
    for row in range(len(rows)):
        for action in range(rows.shape[1]):
            twice = np.float32(2.0) * rows[row, action]
            if twice != 0.0:
                for place in range(action_start[action], action_start[action + 1]):
                    distances[row, holders[place]] -= twice * amounts[place]


@njit(cache=True, nogil=True)
def select_nearest(distances: NDArray[np.float32], nearest: NDArray[np.int32]) -> None:
    """Write the columns of the smallest distances of each row, smallest first, of equals the first column.

    ``distances`` is float32 [n, n_sample]; ``nearest`` int32 [n, k], k at most n_sample, is overwritten.
    """
    # PERF: a histogram tells which distances can be among the k smallest; only those are sorted.
    n_sample, k = distances.shape[1], nearest.shape[1]
    n_bins = 1024
    bins = np.empty(n_sample, np.int32)
    counts = np.empty(n_bins + 1, np.int32)
    candidates = np.empty(n_sample, np.int32)
    values = np.empty(n_sample, np.float32)
    for row in range(len(distances)):
        low, high = distances[row, 0], distances[row, 0]
        for index in range(n_sample):
            low = min(low, distances[row, index])
            high = max(high, distances[row, index])
        scale = np.float32(n_bins) / max(high - low, np.float32(1e-30))
        counts[:] = 0
        for index in range(n_sample):
            bin_ = min(np.int32((distances[row, index] - low) * scale), np.int32(n_bins))
            bins[index] = bin_
            counts[bin_] += 1
        last, n_inside = 0, counts[0]
        while n_inside < k:
            last += 1
            n_inside += counts[last]
        n_candidates = 0
        for index in range(n_sample):
            if bins[index] <= last:
                candidates[n_candidates] = index
                values[n_candidates] = distances[row, index]
                n_candidates += 1
        order = np.argsort(values[:n_candidates], kind="mergesort")
        for place in range(k):
            nearest[row, place] = candidates[order[place]]


@njit(cache=True, nogil=True)
def add_neighbours(
    nearest: NDArray[np.int32],
    sample_start: NDArray[np.int64],
    sample_actions: NDArray[np.int32],
    sample_amounts: NDArray[np.float32],
    own_share: float,
    rows: NDArray[np.float32],
) -> None:
    """Mix each row of ``rows`` float32 [n, n_actions] with the mean of its neighbours ``nearest`` int32 [n, k].

    Vector ``i`` of the sample has the actions ``sample_actions[sample_start[i]:sample_start[i + 1]]`` with the amounts
    beside them.
    """
    weight = np.float32((1.0 - own_share) / nearest.shape[1])
    for row in range(len(rows)):
        rows[row] *= np.float32(own_share)
        for neighbour in nearest[row]:
            for place in range(sample_start[neighbour], sample_start[neighbour + 1]):
                rows[row, sample_actions[place]] += weight * sample_amounts[place]
