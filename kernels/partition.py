"""A worker's store, put in the order of its customers' hashes, so that any range of hashes is one stretch of it."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "count_fragments",
    "gather",
    "gather_actions",
    "gather_features",
    "gather_names",
    "gather_rows",
    "order_fragments",
]

NO_VALUE, UNREADABLE = np.int64(-(1 << 63)), np.int64(-(1 << 63) + 1)


@njit(cache=True, nogil=True)
def count_fragments(customer, n_actions, rank, fragment_starts, action_starts):  # type: ignore[no-untyped-def]
    """Where each customer's fragments and actions begin, customers by rank (int64[n_customers + 1], zeroed)."""
    for i in range(len(customer)):
        place = rank[customer[i]] + 1
        fragment_starts[place] += 1
        action_starts[place] += n_actions[i]
    for place in range(1, len(fragment_starts)):
        fragment_starts[place] += fragment_starts[place - 1]
        action_starts[place] += action_starts[place - 1]


@njit(cache=True, nogil=True)
def order_fragments(customer, n_actions, rank, next_place, order, first_action):  # type: ignore[no-untyped-def]
    """Counting sort: order[j] is the j-th fragment by customer rank; also where each fragment's actions begin."""
    first = 0
    for i in range(len(customer)):
        first_action[i] = first
        first += n_actions[i]
        place = rank[customer[i]]
        order[next_place[place]] = i
        next_place[place] += 1


@njit(cache=True, nogil=True)
def gather(values, order, out):  # type: ignore[no-untyped-def]
    """out[j] = values[order[j]]."""
    for j in range(len(order)):
        out[j] = values[order[j]]


@njit(cache=True, nogil=True)
def gather_actions(actions, n_actions, first_action, order, ids, out):  # type: ignore[no-untyped-def]
    """The actions of the fragments in order, as ids of the run."""
    at = 0
    for j in range(len(order)):
        i = order[j]
        first = first_action[i]
        for k in range(first, first + n_actions[i]):
            out[at] = ids[actions[k]]
            at += 1


@njit(cache=True, nogil=True)
def gather_rows(rows, n_actions, first_action, order, out):  # type: ignore[no-untyped-def]
    """The row hashes of the fragments in order."""
    at = 0
    for j in range(len(order)):
        i = order[j]
        first = first_action[i]
        for k in range(first, first + n_actions[i]):
            out[at] = rows[k]
            at += 1


@njit(cache=True, nogil=True)
def gather_features(values, n_actions, first_action, order, is_number, ids, out, counts, lacks):  # type: ignore[no-untyped-def]
    """The features of the fragments in order; categories become ids of the run and are counted.

    Args:
        values: int64, one entry per feature for each action; see `Features` of the parser.
        n_actions, first_action, order: of the fragments.
        is_number: int64 per feature.
        ids: uint32, for each local category the id of the run.
        out: int64, written; what could not be read becomes NO_VALUE.
        counts: int64[n_features, n_categories], added to, by local id.
        lacks: int64[n_features, 2], added to: events without a value, and among them those that could not be read.
    """
    n_features = len(is_number)
    at = 0
    for j in range(len(order)):
        i = order[j]
        first = first_action[i] * n_features
        for event in range(n_actions[i]):
            for k in range(n_features):
                value = values[first + event * n_features + k]
                if value == NO_VALUE or value == UNREADABLE:
                    lacks[k, 0] += 1
                    lacks[k, 1] += value == UNREADABLE
                    value = NO_VALUE
                elif is_number[k] == 0:
                    counts[k, value] += 1
                    value = np.int64(ids[value])
                out[at] = value
                at += 1


@njit(cache=True, nogil=True)
def gather_names(arena, stops, order, out, out_stops):  # type: ignore[no-untyped-def]
    """The names in order, and where each ends (int64)."""
    at = 0
    for j in range(len(order)):
        for k in range(stops[order[j]], stops[order[j] + np.int64(1)]):
            out[at] = arena[k]
            at += 1
        out_stops[j] = at
