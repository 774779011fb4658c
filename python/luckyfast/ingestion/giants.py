"""Customers with more events than can be sorted in memory at once: their visits are sorted on disk.

Three passes over one customer, each in bounded memory. First, fragments are grouped to visits piece by piece and dealt
out by visit key, so that all pieces of a visit meet in one file. Then each file is read whole, its visits are joined
and sorted by time. Last, stretches of time are read from all files and joined in order, each small enough.

Where equal rows are dropped, a pass before these deals rows out by their hash, so that equal ones meet in one file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.errors import BudgetError
from luckyfast.ingestion.merge import MERGE_EXPANSION, CategoryIds, Histories, merge_buckets, merge_segments
from luckyfast.ingestion.partition import NO_ROWS, Piece, Run
from luckyfast.kernels import merge as kernel
from luckyfast.moments import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Giant", "Visits", "merge_all", "merge_oversize"]

_BYTES_PER_FRAGMENT, _BYTES_PER_ACTION, _BYTES_PER_ROW = 24, 4, 8
_EXPANSION = 16
"""Each pass takes at most about so many times the bytes of fragments, or of visits, that it holds."""

_N_SAMPLES = 256


class Visits(NamedTuple):
    """Visits of one customer, in the order of (time, key)."""

    time: NDArray[np.int64]
    key: NDArray[np.uint64]
    days: NDArray[np.uint16]
    n_pairs: NDArray[np.int64]
    actions: NDArray[np.int32]
    counts: NDArray[np.int32]


class Giant(NamedTuple):
    """One customer whose visits come in parts."""

    name: bytes
    n_visits: int
    n_pairs: int
    parts: Iterator[Visits]


def merge_oversize(
    runs: Sequence[Run],
    ranks: NDArray[np.int32],
    buckets: tuple[int, int],
    share_bytes: int,
    folder: Path,
    least_pairs: int,
    min_visits: int,
) -> Iterator[Histories | Giant]:
    """Histories of buckets that are too large to be merged at once.

    Args:
        runs: all runs.
        ranks: final action ids.
        buckets: first and stop.
        share_bytes: memory to work in.
        folder: for files that are passing.
        least_pairs: a customer with fewer pairs is no `Giant`, however many events it has.
        min_visits: customers with fewer visits are left out.

    Raises:
        BudgetError: there are features, or several customers of one hash are too large together.
    """
    if any(run.starts[5, -1] for run in runs):
        raise BudgetError(
            f"some customers have so many events that they cannot be sorted in {share_bytes >> 20} MiB "
            "together with their features",
            hint="give more --memory, or leave --feature out",
        )
    units = _Units(runs, buckets)
    limit = share_bytes // MERGE_EXPANSION
    first, held = 0, 0
    for unit, size in enumerate([*units.n_bytes.tolist(), limit + 1]):
        if held + size > limit:
            if held:
                yield merge_segments(units.read(first, unit), ranks, min_visits)
            first, held = unit + 1, 0
            if unit < len(units.hashes) and size > limit:
                giant = _sort_giant(units, unit, ranks, share_bytes, folder, least_pairs, min_visits)
                if giant is not None:
                    yield giant
                continue
            first = unit
        held += size


class _Units:
    """The customers of some buckets, one unit per hash (different names of one hash stay together)."""

    def __init__(self, runs: Sequence[Run], buckets: tuple[int, int]) -> None:
        first, stop = buckets
        self.runs = [run for run in runs if run.starts[0, first] < run.starts[0, stop]]
        own = [run.read_edges(first, stop) for run in self.runs]
        self.hashes = np.unique(np.concatenate([hashes for hashes, _ in own]))
        self.n_bytes = np.zeros(len(self.hashes), np.int64)
        self.n_rows = np.zeros(len(self.hashes), np.int64)
        self._edges = []
        for run, (hashes, edges) in zip(self.runs, own, strict=True):
            at_hash = edges[:, np.append(np.searchsorted(hashes, self.hashes), len(hashes))]
            n_customers, n_name_bytes, n_fragments, n_actions = np.diff(at_hash)
            self.n_bytes += n_fragments * _BYTES_PER_FRAGMENT + n_actions * _BYTES_PER_ACTION
            self.n_bytes += n_name_bytes + 16 * n_customers
            if run.has_rows:
                self.n_bytes += n_actions * _BYTES_PER_ROW
                self.n_rows += n_actions
            self._edges.append(at_hash)

    def bounds(self, index: int, first: int, stop: int) -> list[tuple[int, int]]:
        """Where the units first:stop lie in a run."""
        edges = self._edges[index]
        bounds = [(int(edges[i, first]), int(edges[i, stop])) for i in range(4)]
        return [*bounds, bounds[3] if self.runs[index].has_rows else (0, 0), (0, 0)]

    def read(self, first: int, stop: int) -> list[Any]:
        """The units first:stop of all runs."""
        bounds = [self.bounds(i, first, stop) for i in range(len(self.runs))]
        return [run.read_stretch(b) for run, b in zip(self.runs, bounds, strict=True) if b[0][0] < b[0][1]]

    def name(self, unit: int) -> bytes:
        """The name of the one customer of a unit."""
        bounds = [self.bounds(i, unit, unit + 1) for i in range(len(self.runs))]
        names = {name for run, own in zip(self.runs, bounds, strict=True) for name in run.read_names(own)}
        if len(names) != 1:
            raise BudgetError(
                f"{len(names)} customers of one hash have more events than fit into memory", hint="give more --memory"
            )
        return names.pop()

    def pieces(self, unit: int, n_bytes: int) -> Iterator[Piece]:
        """A unit's fragments of all runs; a long fragment comes in several pieces."""
        for i, run in enumerate(self.runs):
            yield from run.read_pieces(self.bounds(i, unit, unit + 1), n_bytes)


def _sort_giant(
    units: _Units,
    unit: int,
    ranks: NDArray[np.int32],
    share_bytes: int,
    folder: Path,
    least_pairs: int,
    min_visits: int,
) -> Histories | Giant | None:
    name = units.name(unit)
    held = share_bytes // _EXPANSION
    n_files = int(units.n_bytes[unit]) // held + 1
    paths = [folder / f"giant-{i}" for i in range(n_files)]
    pieces = units.pieces(unit, held)
    if n_rows := int(units.n_rows[unit]):
        pieces = _without_repeats(pieces, n_rows * _ROW.itemsize // held + 1, folder)
    for piece in pieces:
        visits = _group(piece, ranks)
        for i, part in _deal(visits, n_files):
            with paths[i].open("ab") as spill:
                spill.write(np.array([len(part.time), len(part.actions)], np.int64).tobytes())
                spill.writelines(column.tobytes() for column in part)
    files = [_SortedFile(path, _join(list(_read_parts(path)))) for path in paths if path.exists()]
    n_visits, n_pairs = sum(file.n_visits for file in files), sum(file.n_pairs for file in files)
    if n_visits < min_visits:
        for file in files:
            file.remove()
        return None
    if n_pairs < least_pairs:
        visits = _in_order([file.read(0, file.n_visits) for file in files])
        for file in files:
            file.remove()
        sizes = (np.array([n], np.int64) for n in (len(name), n_visits, n_pairs))
        name_size, n_own_visits, n_own_pairs = sizes
        return Histories(name_size, np.frombuffer(name, np.uint8), n_own_visits, n_own_pairs, *visits)
    n_parts = (26 * n_visits + 8 * n_pairs) // held + 1
    return Giant(name, n_visits, n_pairs, _read_in_order(files, n_parts))


_ROW = np.dtype([("row", "u8"), ("key", "u8"), ("time", "i8"), ("action", "u4")])


def _without_repeats(pieces: Iterable[Piece], n_files: int, folder: Path) -> Iterator[Piece]:
    """The same without the rows of a visit that equal another; a row has the time of its fragment.

    No visit loses its time: of each of its rows one is kept, and the earliest row is in no fragment that is later. Nor
    its last day, which is that of a fragment: equal rows have one time.
    """
    paths = [folder / f"giant-rows-{i}" for i in range(n_files)]
    for piece in pieces:
        rows = np.empty(len(piece.rows), _ROW)
        rows["row"], rows["action"] = piece.rows, piece.actions
        rows["time"], rows["key"] = np.repeat(piece.time, piece.n_actions), np.repeat(piece.key, piece.n_actions)
        # of a row that comes all the time, there is one a piece
        rows = _first_rows(rows)
        target = (rows["row"] % np.uint64(n_files)).astype(np.int64)
        for i in np.unique(target).tolist():
            with paths[i].open("ab") as spill:
                spill.write(rows[target == i].tobytes())
    for path in paths:
        if path.exists():
            rows = _first_rows(np.fromfile(path, _ROW))
            path.unlink()
            columns = [np.ascontiguousarray(rows[name]) for name in ("time", "key", "action")]
            yield Piece(columns[0], columns[1], None, np.ones(len(rows), np.int64), columns[2], None, NO_ROWS)


def _first_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Of equal rows of a visit the first."""
    order = np.lexsort((rows["row"], rows["key"]))
    row, key = rows["row"][order], rows["key"][order]
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (row[1:] != row[:-1]) | (key[1:] != key[:-1])
    return rows[order[is_first]]


def _group(piece: Piece, ranks: NDArray[np.int32]) -> Visits:
    """Fragments to visits; those that have counts are visits already."""
    time, key, days, n_actions, actions, counts, _ = piece
    if counts is not None:
        assert days is not None
        return Visits(time, key, days, n_actions, ranks[actions], counts)
    n = len(time)
    first = np.cumsum(n_actions, dtype=np.int64) - n_actions
    one, one_too = np.zeros(1, np.int64), np.zeros(1, np.int64)
    visits: tuple[Any, ...] = tuple(np.empty(n, dtype) for dtype in _DTYPES[:4])
    pairs = (np.empty(len(actions), np.int32), np.empty(len(actions), np.int32))
    bounds, order = np.array([0, n], np.int64), np.arange(n, dtype=np.int64)
    n_visits, n_pairs = kernel.group_visits(
        bounds, order, time, key, first, n_actions.astype(np.uint32), actions, ranks, one, one_too, visits, pairs
    )
    return Visits(*(column[:n_visits] for column in visits), *(column[:n_pairs] for column in pairs))


def _take(visits: Visits, order: NDArray[np.int64]) -> Visits:
    """Some visits, in this order."""
    sizes = visits.n_pairs[order]
    first = (np.cumsum(visits.n_pairs) - visits.n_pairs)[order]
    pairs = np.repeat(first - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    by_visit = visits.time[order], visits.key[order], visits.days[order]
    return Visits(*by_visit, sizes, visits.actions[pairs], visits.counts[pairs])


def _deal(visits: Visits, n_files: int) -> Iterator[tuple[int, Visits]]:
    """The visits of each file that gets any."""
    target = (visits.key % np.uint64(n_files)).astype(np.int64)
    for i in np.unique(target).tolist():
        yield i, _take(visits, np.flatnonzero(target == i))


_DTYPES = tuple(np.dtype(code) for code in ("i8", "u8", "u2", "i8", "i4", "i4"))
_N_BY_VISIT = 4


def _read_parts(path: Path) -> Iterator[Visits]:
    with path.open("rb") as file:
        while head := file.read(16):
            n_visits, n_pairs = np.frombuffer(head, np.int64).tolist()
            columns: list[Any] = [
                np.frombuffer(file.read((n_visits if i < _N_BY_VISIT else n_pairs) * dtype.itemsize), dtype)
                for i, dtype in enumerate(_DTYPES)
            ]
            yield Visits(*columns)
    path.unlink()


def _join(parts: list[Visits]) -> Visits:
    """Visits of which several may have one key: each key's earliest time and last day, and the sum of its pairs."""
    time, key, days, n_pairs, actions, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    keys, owner = np.unique(key, return_inverse=True)
    earliest = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(earliest, owner, time)
    last_day = np.full(len(keys), np.iinfo(np.int64).min)
    np.maximum.at(last_day, owner, time // DAY_US + days)
    n_days = np.minimum(last_day - earliest // DAY_US, np.iinfo(np.uint16).max).astype(np.uint16)
    order = np.lexsort((keys, earliest))
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    width = int(actions.max()) + 1
    joint, place = np.unique(np.repeat(rank[owner], n_pairs) * width + actions, return_inverse=True)
    sums = np.bincount(place, counts).astype(np.int32)
    return Visits(
        earliest[order],
        keys[order],
        n_days[order],
        np.bincount(joint // width, minlength=len(keys)),
        (joint % width).astype(np.int32),
        sums,
    )


def _in_order(parts: list[Visits]) -> Visits:
    """Visits of different keys in the order of (time, key)."""
    joined = Visits(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _take(joined, np.lexsort((joined.key, joined.time)))


class _SortedFile:
    """Sorted visits in a file, and a sample of them."""

    def __init__(self, path: Path, visits: Visits) -> None:
        self.n_visits, self.n_pairs = len(visits.time), len(visits.actions)
        step = max(1, self.n_visits // _N_SAMPLES)
        # copies, which do not keep all visits alive
        self.sample = (visits.time[::step].copy(), visits.key[::step].copy())
        self._path = path
        self._ends = np.cumsum(visits.n_pairs)[step - 1 :: step].copy()
        self._step = step
        with path.open("wb") as file:
            file.writelines(column.tobytes() for column in visits)

    def find(self, times: NDArray[np.int64], keys: NDArray[np.uint64]) -> list[int]:
        """How many visits come before each (time, key)."""
        own_times, own_keys = self._column(0, 0, self.n_visits), self._column(1, 0, self.n_visits)
        low, high = np.searchsorted(own_times, times, "left"), np.searchsorted(own_times, times, "right")
        return [int(a + np.searchsorted(own_keys[a:b], key, "left")) for a, b, key in zip(low, high, keys, strict=True)]

    def read(self, first: int, stop: int) -> Visits:
        """The visits first:stop."""
        sizes = self._column(3, first, stop)
        known = first // self._step
        begin = int(self._ends[known - 1]) if known else 0
        begin += int(self._column(3, known * self._step, first).sum())
        end = begin + int(sizes.sum())
        return Visits(
            self._column(0, first, stop),
            self._column(1, first, stop),
            self._column(2, first, stop),
            sizes,
            self._column(4, begin, end),
            self._column(5, begin, end),
        )

    def _column(self, index: int, first: int, stop: int) -> Any:
        dtype = _DTYPES[index]
        widths = [own.itemsize for own in _DTYPES[:index]]
        before = self.n_visits * sum(widths[:_N_BY_VISIT]) + self.n_pairs * sum(widths[_N_BY_VISIT:])
        with self._path.open("rb") as file:
            file.seek(before + first * dtype.itemsize)
            return np.frombuffer(file.read((stop - first) * dtype.itemsize), dtype)

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()


def _read_in_order(files: list[_SortedFile], n_parts: int) -> Iterator[Visits]:
    times, keys = (np.concatenate(column) for column in zip(*(file.sample for file in files), strict=True))
    order = np.lexsort((keys, times))
    cuts = order[np.unique(np.arange(1, n_parts) * len(order) // n_parts)]
    bounds = [[0, *file.find(times[cuts], keys[cuts]), file.n_visits] for file in files]
    for i in range(len(cuts) + 1):
        yield _in_order([file.read(b[i], b[i + 1]) for file, b in zip(files, bounds, strict=True)])
    for file in files:
        file.remove()


def merge_all(
    pool: ThreadPoolExecutor,
    runs: Sequence[Run],
    ranks: NDArray[np.int32],
    stretches: Sequence[tuple[int, int, bool]],
    *,
    n_ahead: int,
    share_bytes: int,
    folder: Path,
    least_pairs: int,
    min_visits: int = 1,
    categories: CategoryIds | None = None,
) -> Iterator[Histories | Giant]:
    """Merge all stretches of `plan_merge` in order: small ones on the pool, oversize ones here.

    Args:
        pool: threads to work on.
        runs: all runs.
        ranks: final action ids.
        stretches: from `plan_merge`.
        n_ahead: no more stretches than these wait to be taken.
        share_bytes: memory for each of them, and for the one being taken.
        folder: for files that are passing.
        least_pairs, min_visits: as in `merge_oversize`.
        categories: how features are put together, where there are some.
    """
    waiting: deque[Future[Histories] | tuple[int, int]] = deque()

    def take() -> Iterator[Histories | Giant]:
        first = waiting.popleft()
        if isinstance(first, Future):
            yield first.result()
        else:
            yield from merge_oversize(runs, ranks, first, share_bytes, folder, least_pairs, min_visits)

    for first, stop, is_oversize in stretches:
        if len(waiting) == n_ahead:
            yield from take()
        waiting.append(
            (first, stop)
            if is_oversize
            else pool.submit(merge_buckets, runs, ranks, first, stop, min_visits, categories)
        )
    while waiting:
        yield from take()
