"""Find the predictions that somebody made for a visit, and lay them out as one row of all actions."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["fill_rows", "find_visits", "hash_names"]


@njit(cache=True, nogil=True)
def hash_names(data: NDArray[np.uint8], offsets: NDArray[np.int64], hashes: NDArray[np.uint64]) -> None:
    """Hash each name ``data[offsets[i]:offsets[i + 1]]`` as datasets do: FNV-1a and splitmix64's finaliser."""
    for name in range(len(hashes)):
        x = np.uint64(0xCBF29CE484222325)
        for at in range(offsets[name], offsets[name + 1]):
            x = (x ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes[name] = x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def find_visits(
    known_customers: NDArray[np.uint64],
    known_visits: NDArray[np.uint64],
    customers: NDArray[np.uint64],
    visits: NDArray[np.uint64],
    found: NDArray[np.int64],
) -> None:
    """Write where each (customer, visit) is among the known ones, which are in ascending order, or -1."""
    for index in range(len(customers)):
        low, high = 0, len(known_customers)
        while low < high:
            middle = (low + high) // 2
            if known_customers[middle] < customers[index] or (
                known_customers[middle] == customers[index] and known_visits[middle] < visits[index]
            ):
                low = middle + 1
            else:
                high = middle
        here = (
            low < len(known_customers)
            and known_customers[low] == customers[index]
            and known_visits[low] == visits[index]
        )
        found[index] = low if here else -1


@njit(cache=True, nogil=True)
def fill_rows(
    found: NDArray[np.int64],
    start: NDArray[np.int64],
    actions: NDArray[np.int32],
    values: NDArray[np.float32],
    kind: int,
    rows: NDArray[np.float32],
) -> None:
    """Write scores float32 [n, n_actions] of visits ``found``, whose pairs are ``start[v]:start[v + 1]``.

    Kind 0 are scores, which stay as they are, 1 next-action probabilities and 2 chances, which become their logs.
    Actions that are not named, id 0 among them, share a place below all that are: as far below the smallest score as
    the largest is above it, or 1 where all are alike; an even share of what the probabilities leave of 1, at most
    0.999 of the smallest; or a chance of 5e-10. Rows of visits that were not found are even.
    """
    n_actions = rows.shape[1]
    for row in range(len(found)):
        visit = found[row]
        if visit < 0:
            rows[row, :] = -np.log(n_actions)
            continue
        smallest, largest = np.inf, -np.inf
        total = 0.0
        for pair in range(start[visit], start[visit + 1]):
            value = np.float64(values[pair])
            smallest = min(smallest, value if kind == 0 else max(value, 1e-9))
            largest = max(largest, value)
            total += value
        if kind == 0:
            rest = smallest - (max(largest - smallest, 1e-6 * abs(smallest)) if largest > smallest else 1.0)
        elif kind == 1:
            n_missing = max(n_actions - (start[visit + 1] - start[visit]), 1)
            rest = np.log(max(min(max(1.0 - total, 0.0) / n_missing, 0.999 * smallest), 5e-10))
        else:
            rest = np.log(5e-10)
        rows[row, :] = rest
        for pair in range(start[visit], start[visit + 1]):
            value = np.float64(values[pair])
            rows[row, actions[pair]] = value if kind == 0 else np.log(max(value, 1e-9))
