"""Stores cut by customer hash: runs, in memory or in a file, of which any range of hashes can be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.kernels import parse as parse_kernel
from luckyfast.kernels import partition as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.parse import Parser

__all__ = ["N_BUCKETS", "Run", "Segment", "Vocabulary", "cut_store"]

BUCKET_BITS = 12
N_BUCKETS = 1 << BUCKET_BITS
"""A run can be read from any bucket to any other; customers of a bucket have hashes that begin with the same bits."""


class Segment(NamedTuple):
    """A stretch of a run: customers by hash, their fragments, and the fragments' actions, all in the same order.

    `customer` counts from the first customer of the run, `name_stops` from the first byte of its names;
    `first_customer` and `first_name_byte` are those of the stretch.
    """

    hashes: NDArray[np.uint64]
    name_stops: NDArray[np.int64]
    names: NDArray[np.uint8]
    customer: NDArray[np.uint32]
    n_actions: NDArray[np.uint32]
    time: NDArray[np.int64]
    key: NDArray[np.uint64]
    actions: NDArray[np.uint32]
    first_customer: int
    first_name_byte: int


_DTYPES = tuple(np.dtype(code) for code in ("u8", "i8", "u1", "u4", "u4", "i8", "u8", "u4"))
# which of the starts (customers, name bytes, fragments, actions) each column goes by
_UNITS = (0, 0, 1, 2, 2, 2, 2, 3)


class Vocabulary:
    """All actions of a run, with ids in the order in which the workers meet them."""

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._n_events: list[int] = []
        self._lock = threading.Lock()

    def publish(self, parser: Parser) -> NDArray[np.uint32]:
        """Ids for a worker's actions; adds its counts and zeroes them."""
        n = int(parser.actions.state[0])
        stops, arena, counts = parser.actions.stops, parser.actions.arena, parser.store.action_counts
        ids = np.empty(n, np.uint32)
        with self._lock:
            for i in range(n):
                text = arena[stops[i] : stops[i + 1]].tobytes()
                ids[i] = self._ids.setdefault(text, len(self._ids))
                if ids[i] == len(self._n_events):
                    self._n_events.append(0)
                self._n_events[ids[i]] += int(counts[i])
        counts[:n] = 0
        return ids

    def rank(self) -> tuple[list[bytes], list[int], NDArray[np.int32]]:
        """Actions that occur, in the order of their bytes; their events; for each id here the final one (from 1)."""
        texts = sorted(text for text, i in self._ids.items() if self._n_events[i])
        ranks = np.zeros(len(self._ids), np.int32)
        for rank, text in enumerate(texts, start=1):
            ranks[self._ids[text]] = rank
        return texts, [self._n_events[self._ids[text]] for text in texts], ranks


class Run:
    """One store in the order of its customers' hashes.

    Attributes:
        starts: int64[4, N_BUCKETS + 1]: where the customers, name bytes, fragments and actions of each bucket begin.
    """

    def __init__(self, starts: NDArray[np.int64], columns: list[Any], path: Path | None) -> None:
        self.starts = starts
        self._columns = columns
        self._path = path
        sizes = [int(starts[unit, -1]) * dtype.itemsize for unit, dtype in zip(_UNITS, _DTYPES, strict=True)]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()

    def bucket_bytes(self) -> NDArray[np.int64]:
        """Bytes of each bucket."""
        widths = np.zeros(4, np.int64)
        for unit, dtype in zip(_UNITS, _DTYPES, strict=True):
            widths[unit] += dtype.itemsize
        total: NDArray[np.int64] = (np.diff(self.starts) * widths[:, None]).sum(axis=0)
        return total

    def read(self, first: int, stop: int) -> Segment:
        """The buckets first:stop."""
        return self.read_stretch([(int(self.starts[unit, first]), int(self.starts[unit, stop])) for unit in range(4)])

    def read_stretch(self, bounds: Sequence[tuple[int, int]]) -> Segment:
        """A stretch that begins and ends at a customer; its customers, name bytes, fragments and actions."""
        columns = (self.read_column(i, *bounds[unit]) for i, unit in enumerate(_UNITS))
        return Segment._make((*columns, bounds[0][0], bounds[1][0]))

    def read_column(self, index: int, start: int, stop: int) -> Any:
        """Entries start:stop of a column, numbered as the fields of `Segment`."""
        if self._path is None:
            return self._columns[index][start:stop]
        part = np.empty(stop - start, _DTYPES[index])
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offsets[index] + start * part.itemsize)
            room = memoryview(part.view(np.uint8))  # type: ignore[arg-type]
            while len(room):
                n_read = file.readinto(room)
                if not n_read:
                    raise OSError(f"{self._path} was cut short")
                room = room[n_read:]
        return part


def cut_store(parser: Parser, ids: NDArray[np.uint32], path: Path | None = None) -> Run:
    """Cut a worker's store and empty it.

    Args:
        parser: the worker.
        ids: for each of its actions the id in the vocabulary.
        path: the file to write; None keeps the run in memory.
    """
    store, customers = parser.store, parser.customers
    n_customers, n_fragments = int(customers.state[0]), parser.n_fragments
    n_actions = int(store.state[parse_kernel.N_ACTIONS])
    hashes = store.hashes[:n_customers]
    by_hash = np.argsort(hashes, kind="stable")
    rank = np.empty(n_customers, np.uint32)
    rank[by_hash] = np.arange(n_customers, dtype=np.uint32)
    fragment_starts, action_starts = np.zeros(n_customers + 1, np.int64), np.zeros(n_customers + 1, np.int64)
    owner, sizes = store.customer[:n_fragments], store.n_actions[:n_fragments]
    kernel.count_fragments(owner, sizes, rank, fragment_starts, action_starts)
    order, first_action = np.empty(n_fragments, np.uint32), np.empty(n_fragments, np.int64)
    kernel.order_fragments(owner, sizes, rank, fragment_starts[:-1].copy(), order, first_action)

    def columns() -> Iterator[Any]:
        in_order = np.empty(n_customers, np.uint64)
        kernel.gather(hashes, by_hash, in_order)
        yield in_order
        names, stops = (
            np.empty(int(customers.stops[n_customers]) if n_customers else 0, np.uint8),
            np.empty(n_customers, np.int64),
        )
        kernel.gather_names(customers.arena, customers.stops, by_hash, names, stops)
        yield stops
        yield names
        owners = np.empty(n_fragments, np.uint32)
        kernel.gather(owner, order, owners)
        yield rank[owners]
        for values in (sizes, store.time[:n_fragments], store.key[:n_fragments]):
            gathered = np.empty(n_fragments, values.dtype)
            kernel.gather(values, order, gathered)
            yield gathered
        actions = np.empty(n_actions, np.uint32)
        kernel.gather_actions(store.actions, sizes, first_action, order, ids, actions)
        yield actions

    kept: list[Any] = []
    borders = np.arange(N_BUCKETS + 1, dtype=np.float64) * 2.0 ** (64 - BUCKET_BITS)
    in_hash_order = hashes[by_hash]
    customer_starts = np.searchsorted(in_hash_order, borders[:-1].astype(np.uint64))
    customer_starts = np.append(customer_starts, n_customers)
    starts = np.zeros((4, N_BUCKETS + 1), np.int64)
    starts[0] = customer_starts
    starts[2] = fragment_starts[customer_starts]
    starts[3] = action_starts[customer_starts]
    if path is None:
        kept = list(columns())
        starts[1] = np.concatenate([[0], kept[1]])[customer_starts]
    else:
        with path.open("xb", buffering=0) as file:
            for i, column in enumerate(columns()):
                if i == 1:
                    starts[1] = np.concatenate([[0], column])[customer_starts]
                _write_all(file.fileno(), memoryview(column.view(np.uint8)))
    parser.empty()
    return Run(starts, kept, path)


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]
