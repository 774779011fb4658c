"""The shards of a dataset as a run of the merge, read a stretch of customers or a piece of a history at a time.

A record batch may hold a customer that is larger than memory. So Arrow tells where the buffers of a batch lie in the
file, and of each buffer only what is needed is read. Mapped pages would count as memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.errors import DatasetError
from luckyfast.ingestion.featureshards import FeatureReader
from luckyfast.ingestion.format import damaged
from luckyfast.ingestion.partition import N_BUCKETS, N_UNITS, NO_ROWS, Piece, Run, Segment, bucket_starts, cut_pieces
from luckyfast.kernels import parse as parse_kernel
from luckyfast.moments import DAY_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ShardRun"]

_NO_FEATURES = FeatureReader()
_AT_ONCE = 1 << 18


class _Buffer(NamedTuple):
    """A buffer of a record batch: the byte of the file where it begins, and what it holds."""

    path: Path
    place: int
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Entries start:stop."""
        if not 0 <= start <= stop:
            raise damaged(self.path, "its offsets do not ascend")
        try:
            values = np.fromfile(self.path, self.dtype, stop - start, offset=self.place + start * self.dtype.itemsize)
        except OSError as error:
            raise damaged(self.path, error) from error
        if len(values) < stop - start:
            raise damaged(self.path, "it was cut short")
        return values


class _Batch(NamedTuple):
    """One record batch; `starts` are its first customer, name byte, visit and event among those of all batches."""

    starts: tuple[int, int, int, int]
    n_customers: int
    name_starts: _Buffer
    names: _Buffer
    visit_starts: _Buffer
    time: _Buffer
    key: _Buffer
    pair_starts: _Buffer
    actions: _Buffer
    counts: _Buffer
    days: _Buffer | None
    side: tuple[_Buffer, ...]

    def read_hashes(self, name_starts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The hashes of the customers whose names begin and end there."""
        names = self.names.read(int(name_starts[0]), int(name_starts[-1]))
        hashes = np.empty(len(name_starts) - 1, np.uint64)
        parse_kernel.hash_names(np.append(names, np.zeros(8, np.uint8)), name_starts - name_starts[0], hashes)
        return hashes

    def read_days(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Days between the first row and the last of the visits start:stop."""
        return np.zeros(stop - start, np.uint16) if self.days is None else self.days.read(start, stop)

    def read_edges(self, low: int, high: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """As `Run.read_edges`, of the customers low:high; events count from the first of them."""
        edges = np.zeros((4, high - low + 1), np.int64)
        edges[0] = np.arange(low, high + 1)
        edges[1] = self.name_starts.read(low, high + 1)
        edges[2] = self.visit_starts.read(low, high + 1)
        first, stop = int(edges[2, 0]), int(edges[2, -1])
        pairs = np.zeros(high - low + 1, np.int64)
        for at in range(first, stop + 1, _AT_ONCE):
            starts = self.pair_starts.read(at, min(at + _AT_ONCE, stop + 1))
            a, b = np.searchsorted(edges[2], [at, at + len(starts)])
            pairs[a:b] = starts[edges[2, a:b] - at]
        edges[3] = _sums_before(pairs, self.counts.read)
        # a visit that lasts for days becomes two fragments
        edges[2] += _sums_before(edges[2], lambda start, stop: self.read_days(start, stop) > 0)
        return self.read_hashes(edges[1]), edges


def _sums_before(borders: NDArray[np.int64], read: Callable[[int, int], NDArray[Any]]) -> NDArray[np.int64]:
    """The sum of a column's entries from the first of ascending borders to each of them, read piece by piece."""
    sums, before, end = np.zeros(len(borders), np.int64), 0, int(borders[-1])
    for at in range(int(borders[0]), end, _AT_ONCE):
        ends = before + np.cumsum(read(at, min(at + _AT_ONCE, end)), dtype=np.int64)
        a, b = np.searchsorted(borders, [at, at + len(ends)], side="right")
        sums[a:b] = ends[borders[a:b] - at - 1]
        before = int(ends[-1])
    return sums


class ShardRun(Run):
    """The shards of a dataset as a run, of which a stretch of buckets at a time is read.

    Args:
        folder: the dataset.
        shards: as in its manifest.
        ids: uint32, for each row of its vocabulary the id in the run's vocabulary.
        has_gaps: its times have days that were added up, which are taken off again.
        side: reads its features.

    Raises:
        DatasetError: a shard is damaged.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[dict[str, Any]],
        ids: NDArray[np.uint32],
        has_gaps: bool = False,
        side: FeatureReader = _NO_FEATURES,
    ) -> None:
        self._ids, self._side = ids, side
        self._has_gaps = has_gaps
        self._batches: list[_Batch] = []
        counts = np.zeros((N_UNITS, N_BUCKETS), np.int64)
        at = (0, 0, 0, 0)
        for shard in shards:
            for batch in _find_batches(folder / "shards" / shard["file"], side.columns):
                self._batches.append(batch._replace(starts=at))
                hashes, edges = batch.read_edges(0, batch.n_customers)
                counts[:4] += np.diff(edges[:, bucket_starts(hashes)], axis=1)
                at = (at[0] + int(edges[0, -1]), at[1] + int(edges[1, -1]), *(edges[2:, -1] + at[2:]).tolist())
        counts[5] = side.n_features * counts[3]
        starts = np.zeros((N_UNITS, N_BUCKETS + 1), np.int64)
        np.cumsum(counts, axis=1, out=starts[:, 1:])
        super().__init__(starts, [], None)

    @property
    def knows_days(self) -> bool:
        """Whether all of its visits know how many days they last."""
        return all(batch.days is not None for batch in self._batches)

    def read_stretch(self, bounds: Sequence[tuple[int, int]]) -> Segment:
        """A stretch that begins and ends at a customer."""
        parts = [self._read_segment(batch, low, high) for batch, low, high in self._overlaps(*bounds[0])]
        columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Segment._make((*columns, bounds[0][0], bounds[1][0]))

    def read_edges(self, first: int, stop: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The customers of the buckets first:stop one by one: hashes, and where they begin."""
        base = self.starts[:4, first]
        hashes, edges = [np.zeros(0, np.uint64)], [base[:, None]]
        for batch, low, high in self._overlaps(int(base[0]), int(self.starts[0, stop])):
            own, borders = batch.read_edges(low, high)
            hashes.append(own)
            edges.append(edges[-1][:, -1:] + (borders[:, 1:] - borders[:, :1]))
        return np.concatenate(hashes), np.concatenate(edges, axis=1)

    def read_names(self, bounds: Sequence[tuple[int, int]]) -> list[bytes]:
        """The names of the customers of a stretch."""
        names = []
        for batch, low, high in self._overlaps(*bounds[0]):
            starts = batch.name_starts.read(low, high + 1)
            names += [batch.names.read(a, b).tobytes() for a, b in pairwise(starts.tolist())]
        return names

    def read_pieces(self, bounds: Sequence[tuple[int, int]], n_bytes: int) -> Iterator[Piece]:
        """The visits of a stretch of customers, so many bytes at a time."""
        n_visits, n_pairs = max(1, n_bytes // 2 // 24), max(1, n_bytes // 2 // 8)
        for batch, low, high in self._overlaps(*bounds[0]):
            at, stop = batch.visit_starts.read(low, high + 1)[[0, -1]].tolist()
            while at < stop:
                end = min(at + n_visits, stop)
                times, keys, days = self._read_times(batch, at, end), batch.key.read(at, end), batch.read_days(at, end)
                edges = batch.pair_starts.read(at, end + 1).astype(np.int64)
                for begin, finish, touched, sizes in cut_pieces(edges, n_pairs):
                    actions, counts = self._ids[batch.actions.read(begin, finish)], batch.counts.read(begin, finish)
                    yield Piece(times[touched], keys[touched], days[touched], sizes, actions, counts, NO_ROWS)
                at = end

    def _read_times(self, batch: _Batch, first: int, stop: int) -> NDArray[np.int64]:
        times = batch.time.read(first, stop)
        return times % DAY_US if self._has_gaps else times

    def _overlaps(self, first: int, stop: int) -> Iterator[tuple[_Batch, int, int]]:
        """The batches that hold the customers first:stop, and which of their own these are."""
        begins = [batch.starts[0] for batch in self._batches]
        for batch in self._batches[max(bisect_right(begins, first) - 1, 0) : bisect_left(begins, stop)]:
            low, high = max(first - batch.starts[0], 0), min(stop - batch.starts[0], batch.n_customers)
            if low < high:
                yield batch, low, high

    def _read_segment(self, batch: _Batch, low: int, high: int) -> tuple[NDArray[Any], ...]:
        """The arrays of a segment of the customers low:high of a batch, numbered as those of the whole run.

        A visit becomes a fragment, and one that lasts for days a second one, without actions, on its last day.
        """
        name_starts, visit_starts = (part.read(low, high + 1) for part in (batch.name_starts, batch.visit_starts))
        first, stop = visit_starts[[0, -1]].tolist()
        pair_starts = batch.pair_starts.read(first, stop + 1)
        pairs = pair_starts[[0, -1]].tolist()
        actions, counts = batch.actions.read(*pairs), batch.counts.read(*pairs)
        n_before = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        n_events = np.diff(n_before[pair_starts - pairs[0]]).astype(np.uint32)
        owner = np.arange(batch.starts[0] + low, batch.starts[0] + high, dtype=np.uint32)
        customer, times = np.repeat(owner, np.diff(visit_starts)), self._read_times(batch, first, stop)
        keys, days = batch.key.read(first, stop), batch.read_days(first, stop)
        long = np.flatnonzero(days)
        return (
            batch.read_hashes(name_starts.astype(np.int64)),
            name_starts[1:] + np.int64(batch.starts[1]),
            batch.names.read(*name_starts[[0, -1]].tolist()),
            np.append(customer, customer[long]),
            np.append(n_events, np.zeros(len(long), np.uint32)),
            np.append(times, times[long] + DAY_US * days[long].astype(np.int64)),
            np.append(keys, keys[long]),
            np.repeat(self._ids[actions], counts),
            NO_ROWS,
            self._side.spread((column.read(first, stop) for column in batch.side), n_events),
        )


def _find_batches(path: Path, side: Sequence[tuple[str, np.dtype[Any]]]) -> Iterator[_Batch]:
    """Where the record batches of a shard lie, with some columns that have an entry per visit."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            file.seek(0)
            base = file.read_buffer(1).address
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                names, times, keys = batch.column("customer"), batch.column("visit_time"), batch.column("visit_key")
                pairs, counts = batch.column("actions").values, batch.column("counts").values
                buffers = [
                    (names.buffers()[1], "i4"),
                    (names.buffers()[2], "u1"),
                    (times.buffers()[1], "i4"),
                    (times.values.buffers()[1], "i8"),
                    (keys.values.buffers()[1], "u8"),
                    (pairs.buffers()[1], "i4"),
                    (pairs.values.buffers()[1], "i4"),
                    (counts.values.buffers()[1], "i4"),
                ]
                found = [_Buffer(path, buffer.address - base, np.dtype(code)) for buffer, code in buffers]
                days = None
                if "visit_days" in batch.schema.names:
                    buffer = batch.column("visit_days").values.buffers()[1]
                    days = _Buffer(path, buffer.address - base, np.dtype("u2"))
                entries = ((batch.column(name).values.buffers()[1], kind) for name, kind in side)
                more = tuple(_Buffer(path, buffer.address - base, kind) for buffer, kind in entries)
                yield _Batch._make(((0, 0, 0, 0), len(names), *found, days, more))
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint="ingest all raw files again") from error
