"""Stores cut by customer hash: runs, in memory or in a file, of which any range of hashes can be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.kernels import parse as parse_kernel
from luckyfast.kernels import partition as kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.categories import Categories
    from luckyfast.ingestion.parse import Parser

__all__ = [
    "NO_ROWS",
    "N_BUCKETS",
    "N_UNITS",
    "OTHER_ACTION",
    "Piece",
    "Ranking",
    "Run",
    "Segment",
    "Vocabulary",
    "bucket_starts",
    "cut_pieces",
    "cut_store",
]

BUCKET_BITS = 12
OTHER_ACTION = b"<other>"
N_BUCKETS = 1 << BUCKET_BITS
"""A run can be read from any bucket to any other; customers of a bucket have hashes that begin with the same bits."""


class Segment(NamedTuple):
    """A stretch of a run: customers by hash, their fragments, and the fragments' actions, all in the same order.

    `customer` counts from the first customer of the run, `name_stops` from the first byte of its names; `rows` holds a
    hash of each action's raw row, or nothing where equal rows stay; `features` the values of all features for each
    action, one after another: millionths, ids of categories in the run, or NO_VALUE. `first_customer` and
    `first_name_byte` are those of the stretch.
    """

    hashes: NDArray[np.uint64]
    name_stops: NDArray[np.int64]
    names: NDArray[np.uint8]
    customer: NDArray[np.uint32]
    n_actions: NDArray[np.uint32]
    time: NDArray[np.int64]
    key: NDArray[np.uint64]
    actions: NDArray[np.uint32]
    rows: NDArray[np.uint64]
    features: NDArray[np.int64]
    first_customer: int
    first_name_byte: int


class Piece(NamedTuple):
    """Fragments of one customer, or parts of them.

    They are whole visits if `counts` says how often each action comes; `days`, which lie between the first row and the
    last of each, are those of visits alone. `rows` is as in `Segment`.
    """

    time: NDArray[np.int64]
    key: NDArray[np.uint64]
    days: NDArray[np.uint16] | None
    n_actions: NDArray[np.int64]
    actions: NDArray[np.uint32]
    counts: NDArray[np.int32] | None
    rows: NDArray[np.uint64]


_DTYPES = tuple(np.dtype(code) for code in ("u8", "i8", "u1", "u4", "u4", "i8", "u8", "u4", "u8", "i8"))
# which of the starts (customers, name bytes, fragments, actions, rows, values of features) each column goes by
_UNITS = (0, 0, 1, 2, 2, 2, 2, 3, 4, 5)
N_UNITS = 6
NO_ROWS = np.zeros(0, np.uint64)
_EDGES_AT_ONCE = 1 << 18


class Ranking(NamedTuple):
    """The final actions in order, their events, and for each id of the run the final one (from 1).

    `n_others` actions with `n_other_events` events were put together as `OTHER_ACTION`.
    """

    texts: list[bytes]
    events: list[int]
    ranks: NDArray[np.int32]
    n_others: int
    n_other_events: int


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

    def __len__(self) -> int:
        return len(self._ids)

    def adopt(self, texts: list[bytes], events: list[int]) -> NDArray[np.uint32]:
        """Take in the actions of a dataset; returns the id of each row of its vocabulary, the unknown one's unused."""
        with self._lock:
            for text, n in zip(texts, events, strict=True):
                self._ids[text] = len(self._ids)
                self._n_events.append(n)
        return np.arange(-1, len(texts)).astype(np.uint32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for a checkpoint."""
        texts = list(self._ids)
        return {
            "texts": np.frombuffer(b"".join(texts), np.uint8),
            "text_sizes": np.array([len(text) for text in texts], np.int64),
            "text_events": np.array(self._n_events, np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become what `to_arrays` has written down."""
        data, stops = state["texts"].tobytes(), np.cumsum(state["text_sizes"]).tolist()
        self._ids = {data[start:stop]: i for i, (start, stop) in enumerate(pairwise([0, *stops]))}
        self._n_events = state["text_events"].tolist()

    def recount(self, events: NDArray[np.int64]) -> None:
        """Take other numbers of events, by id: those that are left after rules on whole histories."""
        self._n_events = events.tolist()

    def rank(self, top_actions: int | None = None) -> Ranking:
        """Give final ids to the actions that occur, in the order of their bytes.

        Args:
            top_actions: how many of the most frequent keep their names (of equally frequent, the first by bytes);
                the others become one.
        """
        events = {text: n for text, i in self._ids.items() if (n := self._n_events[i])}
        by_events = sorted(events, key=lambda text: (-events[text], text))
        others = frozenset(by_events[top_actions:] if top_actions is not None else ())
        n_of_text: dict[bytes, int] = {}
        for text, n in events.items():
            shown = OTHER_ACTION if text in others else text
            n_of_text[shown] = n_of_text.get(shown, 0) + n
        texts = sorted(n_of_text)
        rank_of = {text: rank for rank, text in enumerate(texts, start=1)}
        ranks = np.zeros(len(self._ids), np.int32)
        for text in events:
            ranks[self._ids[text]] = rank_of[OTHER_ACTION if text in others else text]
        return Ranking(
            texts, [n_of_text[text] for text in texts], ranks, len(others), sum(map(events.__getitem__, others))
        )


class Run:
    """One store in the order of its customers' hashes.

    Attributes:
        path: the file it lies in; None if it lies in memory, or elsewhere.
        starts: int64[6, N_BUCKETS + 1]: where the customers, name bytes, fragments, actions, row hashes and values of
            features of each bucket begin.
    """

    def __init__(self, starts: NDArray[np.int64], columns: list[Any], path: Path | None) -> None:
        self.starts = starts
        self._columns = columns
        self.path = path
        sizes = [int(starts[unit, -1]) * dtype.itemsize for unit, dtype in zip(_UNITS, _DTYPES, strict=True)]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()

    @classmethod
    def load(cls, path: Path) -> Run:
        """The run that an earlier process wrote."""
        starts = np.empty((N_UNITS, N_BUCKETS + 1), np.int64)
        with path.open("rb", buffering=0) as file:
            file.seek(-starts.nbytes, os.SEEK_END)
            if file.readinto(starts.view(np.uint8).data) != starts.nbytes:
                raise OSError(f"{path} was cut short")
        return cls(starts, [], path)

    @property
    def is_in_memory(self) -> bool:
        """Whether it takes memory all the time."""
        return bool(self._columns)

    @property
    def has_rows(self) -> bool:
        """Whether it holds hashes of the raw rows."""
        return bool(self.starts[4, -1])

    def bucket_bytes(self) -> NDArray[np.int64]:
        """Bytes of each bucket."""
        widths = np.zeros(N_UNITS, np.int64)
        for unit, dtype in zip(_UNITS, _DTYPES, strict=True):
            widths[unit] += dtype.itemsize
        total: NDArray[np.int64] = (np.diff(self.starts) * widths[:, None]).sum(axis=0)
        return total

    def read(self, first: int, stop: int) -> Segment:
        """The buckets first:stop."""
        bounds = [(int(self.starts[unit, first]), int(self.starts[unit, stop])) for unit in range(N_UNITS)]
        return self.read_stretch(bounds)

    def read_stretch(self, bounds: Sequence[tuple[int, int]]) -> Segment:
        """A stretch that begins and ends at a customer; where its customers, name bytes, ... begin and end."""
        columns = (self.read_column(i, *bounds[unit]) for i, unit in enumerate(_UNITS))
        return Segment._make((*columns, bounds[0][0], bounds[1][0]))

    def read_edges(self, first: int, stop: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The customers of the buckets first:stop one by one.

        Returns:
            Their hashes, and int64[4, n + 1]: where each one, its name bytes, fragments and actions begin.
        """
        a, b = self.starts[:4, first].tolist(), self.starts[:4, stop].tolist()
        hashes = self.read_column(0, a[0], b[0])
        edges = np.zeros((4, len(hashes) + 1), np.int64)
        edges[0] = np.arange(a[0], b[0] + 1)
        edges[1] = [a[1], *self.read_column(1, a[0], b[0]).tolist()]
        edges[2:, 0] = a[2:]
        for at in range(a[2], b[2], _EDGES_AT_ONCE):
            end = min(at + _EDGES_AT_ONCE, b[2])
            owner = self.read_column(3, at, end) - np.uint32(a[0])
            sizes = self.read_column(4, at, end)
            edges[2, 1:] += np.bincount(owner, minlength=len(hashes))
            edges[3, 1:] += np.bincount(owner, sizes, minlength=len(hashes)).astype(np.int64)
        np.cumsum(edges[2:], axis=1, out=edges[2:])
        return hashes, edges

    def read_names(self, bounds: Sequence[tuple[int, int]]) -> list[bytes]:
        """The names of the customers of a stretch."""
        customers, (first, stop), *_ = bounds
        stops = self.read_column(1, *customers).tolist()
        text: bytes = self.read_column(2, first, stop).tobytes()
        return [text[a - first : b - first] for a, b in pairwise([first, *stops])]

    def read_pieces(self, bounds: Sequence[tuple[int, int]], n_bytes: int) -> Iterator[Piece]:
        """The fragments of a stretch of one customer, so many bytes at a time."""
        _, _, (at, stop), (first_action, _), (first_row, _), _ = bounds
        n_fragments = max(1, n_bytes // 2 // 24)
        n_actions = max(1, n_bytes // 2 // (12 if self.has_rows else 4))
        while at < stop:
            end = min(at + n_fragments, stop)
            sizes, times, keys = (self.read_column(column, at, end) for column in (4, 5, 6))
            edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
            for begin, finish, touched, parts in cut_pieces(edges, n_actions):
                actions = self.read_column(7, first_action + begin, first_action + finish)
                rows = self.read_column(8, first_row + begin, first_row + finish) if self.has_rows else NO_ROWS
                yield Piece(times[touched], keys[touched], None, parts, actions, None, rows)
            at, first_action, first_row = end, first_action + int(edges[-1]), first_row + int(edges[-1])

    def read_column(self, index: int, start: int, stop: int) -> Any:
        """Entries start:stop of a column, numbered as the fields of `Segment`."""
        if self.path is None:
            return self._columns[index][start:stop]
        part = np.empty(stop - start, _DTYPES[index])
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._offsets[index] + start * part.itemsize)
            room = memoryview(part.view(np.uint8))  # type: ignore[arg-type]
            while len(room):
                n_read = file.readinto(room)
                if not n_read:
                    raise OSError(f"{self.path} was cut short")
                room = room[n_read:]
        return part


def bucket_starts(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each bucket begins among ascending hashes, and their number: int64[N_BUCKETS + 1]."""
    borders = np.arange(N_BUCKETS, dtype=np.uint64) << np.uint64(64 - BUCKET_BITS)
    return np.append(np.searchsorted(hashes, borders), len(hashes))


def cut_pieces(
    edges: NDArray[np.int64], n_most: int
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Cut groups of items, which begin and end at `edges`, into stretches of at most so many items.

    Yields:
        First and stop of the items, the groups that lie in them, and how many of the items each of these has.
    """
    for begin in range(int(edges[0]), int(edges[-1]), n_most):
        finish = min(begin + n_most, int(edges[-1]))
        inside = np.clip(edges, begin, finish)
        sizes = inside[1:] - inside[:-1]
        touched = np.flatnonzero(sizes)
        yield begin, finish, touched, sizes[touched]


def cut_store(
    parser: Parser, ids: NDArray[np.uint32], path: Path | None = None, categories: Categories | None = None
) -> Run:
    """Cut a worker's store and empty it.

    Args:
        parser: the worker.
        ids: for each of its actions the id in the vocabulary.
        path: the file to write; None keeps the run in memory.
        categories: of the run, where it has features; counted here.
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
        rows = np.empty(n_actions if len(store.rows) else 0, np.uint64)
        if len(rows):
            kernel.gather_rows(store.rows, sizes, first_action, order, rows)
        yield rows
        yield np.empty(0, np.int64) if categories is None else features(categories)

    def features(categories: Categories) -> Any:
        is_number, run_ids = categories.is_number, categories.publish(parser)
        values = np.empty(n_actions * len(is_number), np.int64)
        counts, lacks = np.zeros((len(is_number), len(run_ids)), np.int64), np.zeros((len(is_number), 2), np.int64)
        kernel.gather_features(parser.values, sizes, first_action, order, is_number, run_ids, values, counts, lacks)
        categories.count(run_ids, counts, lacks)
        return values

    kept: list[Any] = []
    customer_starts = bucket_starts(hashes[by_hash])
    starts = np.zeros((N_UNITS, N_BUCKETS + 1), np.int64)
    starts[0] = customer_starts
    starts[2] = fragment_starts[customer_starts]
    starts[3] = action_starts[customer_starts]
    if len(store.rows):
        starts[4] = starts[3]
    if categories is not None:
        starts[5] = len(categories.features) * starts[3]
    if path is None:
        kept = list(columns())
        starts[1] = np.concatenate([[0], kept[1]])[customer_starts]
    else:
        with path.open("xb", buffering=0) as file:
            for i, column in enumerate(columns()):
                if i == 1:
                    starts[1] = np.concatenate([[0], column])[customer_starts]
                _write_all(file.fileno(), memoryview(column.view(np.uint8)))
            _write_all(file.fileno(), starts.view(np.uint8).reshape(-1).data)
    parser.empty()
    return Run(starts, kept, path)


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]
