"""One number that tells whether two sets of histories are the same, whatever order and format they are stored in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["HistoryChecksum", "hash_names"]


def hash_names(names: Iterable[Any]) -> npt.NDArray[np.uint64]:
    """Hash each name, taken as text, to 64 bits (BLAKE2b).

    Example:
        >>> bool(hash_names(["7"])[0] == hash_names([7])[0])
        True
    """
    return np.array(
        [int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=8).digest(), "little") for name in names],
        dtype=np.uint64,
    )


class HistoryChecksum:
    """Adds up histories: customer, visit times, and the actions of each visit with their counts.

    The order of customers, of visits at one time, and of actions inside a visit does not matter; the border between
    visits does, and so does every name, time and count. Session ids are not part of it, since a system may keep a hash
    of them, but visits that were wrongly joined or split change it.

    Example:
        >>> total = HistoryChecksum()
        >>> total.add(hash_names(["ann"]), [0, 2], [10, 20], [0, 1, 3], hash_names(["milk", "milk", "tea"]), [1, 2, 1])
        >>> str(total)
        '1 customers, 2 visits, 4 events, f8654a1c3a3efb58'
    """

    def __init__(self) -> None:
        self.n_visits = 0
        self.n_events = 0
        self._sum = 0
        self._customers: list[npt.NDArray[np.uint64]] = []

    def add(
        self,
        customers: npt.NDArray[np.uint64],
        visit_start: npt.ArrayLike,
        visit_time: npt.ArrayLike,
        action_start: npt.ArrayLike,
        actions: npt.NDArray[np.uint64],
        counts: npt.ArrayLike,
    ) -> None:
        """Add some customers with all their visits.

        Args:
            customers: uint64 [n_customers], hashes of their names.
            visit_start: integers [n_customers + 1], the visits of each customer.
            visit_time: int64 [n_visits], microseconds since 1970-01-01.
            action_start: integers [n_visits + 1], the actions of each visit.
            actions: uint64 [n_pairs], hashes of the actions' names.
            counts: integers [n_pairs], events of each action.

        Raises:
            ValueError: the visits of a customer are not in the order of time, or a visit has no action.
        """
        visit_start, action_start = np.asarray(visit_start, np.int64), np.asarray(action_start, np.int64)
        times, n_events = np.asarray(visit_time, np.int64), np.asarray(counts, np.uint64)
        owner = np.repeat(np.arange(len(customers)), np.diff(visit_start))
        if np.any((np.diff(times) < 0) & (owner[1:] == owner[:-1])):
            raise ValueError("the visits of a customer are not in the order of time")
        if np.any(np.diff(action_start) <= 0):
            raise ValueError("a visit has no action")
        pairs = _mix(actions ^ _mix(n_events))
        visits = np.add.reduceat(pairs, action_start[:-1]) if len(times) else np.zeros(0, np.uint64)
        visits = _mix(visits ^ _mix(customers[owner] ^ _mix(times.view(np.uint64))))
        self._sum = (self._sum + int(np.add.reduce(visits))) % 2**64
        self._customers.append(customers)
        self.n_visits += len(times)
        self.n_events += int(n_events.sum())

    def __str__(self) -> str:
        customers = np.concatenate([np.zeros(0, np.uint64), *self._customers])
        if len(np.unique(customers)) != len(customers):
            raise ValueError("a customer has more than one history")
        return f"{len(customers)} customers, {self.n_visits} visits, {self.n_events} events, {self._sum:016x}"


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all others (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
