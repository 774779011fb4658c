"""Whether what a run is about to write will fit on the disks, asked before the first byte of it is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from luckyfast.config import format_size
from luckyfast.errors import InputError

__all__ = ["StoreSize", "check_disk", "estimate_disk"]

_RUN_BYTES, _STATE_BYTES = 9 << 15, 2 << 20
"""What a run has beside its columns, and what two checkpoints have beside the actions."""


class StoreSize(NamedTuple):
    """What a worker's store holds when it is full: numbers, and bytes of names; `most_bytes` is all it may take."""

    n_customers: int
    customer_bytes: int
    n_visits: int
    n_events: int
    n_rows: int
    n_actions: int
    action_bytes: int
    most_bytes: int
    n_features: int = 0


def estimate_disk(store: StoreSize, n_stores: float, n_workers: int) -> tuple[int, int]:
    """How many bytes a run will spill and how many its dataset will have, if all of its stores are like one.

    A customer is spilled with its name from every store that it comes in, and may be another one in each. Actions are
    known to a worker once, in its memory; they lie on disk in two checkpoints at a time.

    Args:
        store: the first that is full.
        n_stores: how many of them the sources fill.
        n_workers: how many workers have actions in memory.

    Example:
        >>> store = StoreSize(1000, 36_000, 5000, 20_000, 0, 300, 6000, 1 << 20)
        >>> estimate_disk(store, 40.0, 2)
        (24837632, 14432000)
    """
    names = min(n_stores * (store.action_bytes + 16 * store.n_actions), n_workers * store.most_bytes)
    customers = store.customer_bytes + 16 * store.n_customers
    events = 24 * store.n_visits + (4 + 8 * store.n_features) * store.n_events + 8 * store.n_rows
    spilled = n_stores * (customers + events + _RUN_BYTES) + 2 * names + _STATE_BYTES
    histories = customers + 8 * store.n_customers + (26 + 20 * store.n_features) * store.n_visits
    histories += 8 * store.n_events
    return int(spilled), int(n_stores * histories + names)


def check_disk(needed: Mapping[Path, int]) -> None:
    """Stop a run that would fill a disk.

    Args:
        needed: folder to the bytes that will be written into it; folders on one disk are added up.

    Raises:
        InputError: a disk has less room than that.

    Example:
        >>> check_disk({Path("."): 1})
    """
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        n_bytes, free = sum(needed[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if n_bytes > free:
            names = " and ".join(str(folder) for folder in folders)
            raise InputError(
                f"about {format_size(n_bytes)} will be written to {names}, where {format_size(free)} are free",
                hint="free some space, choose other places with OUT and --temp, or give more --memory",
            )
