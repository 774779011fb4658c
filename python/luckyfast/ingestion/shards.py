"""Histories to Arrow IPC files that are cut by content alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast.ingestion.columns import flat_column, offsets, slice_column
from luckyfast.ingestion.featureshards import feature_columns, write_entries
from luckyfast.ingestion.merge import NO_FEATURE_ROWS, NO_FEATURES, Histories

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from luckyfast.ingestion.giants import Giant

__all__ = ["BATCH_PAIRS", "SHARD_BATCHES", "Shard", "ShardWriter"]

BATCH_PAIRS = 1 << 18
"""A record batch ends at the first customer at or after so many distinct (visit, action) pairs."""

SHARD_BATCHES = 16
_MAGIC_BYTES = 8


@dataclass
class Shard:
    """One written file and what it holds."""

    file: str
    customers: int = 0
    visits: int = 0
    events: int = 0


class ShardWriter:
    """Writes histories, given in order, as Arrow IPC files that are cut by content alone.

    Args:
        folder: where the shards go.
        time_kind: "clock" or "order".
        features: name and kind of each.
        has_days: whether days that lie between the first row of a visit and its last mean anything.

    Attributes:
        n_long: visits whose last row is of a later day than their first, where that means anything.
    """

    def __init__(
        self, folder: Path, time_kind: str, features: Sequence[tuple[str, str]] = (), *, has_days: bool = True
    ) -> None:
        import pyarrow as pa

        self.shards: list[Shard] = []
        self.n_long, self._has_days = 0, has_days
        self._folder = folder
        self._pending: list[Histories] = []
        self._n_pending_pairs = 0
        self._n_batches = 0
        self._sink: Any = None
        self._writer: Any = None
        time = pa.timestamp("us") if time_kind == "clock" else pa.int64()
        pairs = pa.list_(pa.list_(pa.int32()))
        days = [pa.field("visit_days", pa.list_(pa.uint16()))] if has_days else []
        self._schema = pa.schema(
            [
                pa.field("customer", pa.string()),
                pa.field("visit_time", pa.list_(time)),
                pa.field("visit_key", pa.list_(pa.uint64())),
                pa.field("actions", pairs),
                pa.field("counts", pairs),
                *days,
                *(pa.field(name, pa.list_(type_)) for name, type_, _ in feature_columns(features)),
            ]
        )
        # which of the three numbers of which feature each further column holds
        self._parts = [place for _, _, place in feature_columns(features)]

    def push(self, histories: Histories) -> None:
        """Append histories, and write each batch that is complete."""
        ends = np.cumsum(histories.n_customer_pairs)
        first, n = 0, len(ends)
        while first < n:
            before = int(ends[first - 1]) if first else 0
            # a batch takes customers until it has its pairs
            last = int(np.searchsorted(ends, before + BATCH_PAIRS - self._n_pending_pairs, side="left"))
            part = _cut(histories, first, min(last + 1, n))
            self._pending.append(part)
            self._n_pending_pairs += len(part.actions)
            if last < n:
                self._flush()
            first = last + 1

    def push_giant(self, giant: Giant) -> None:
        """Append one customer with at least as many pairs as a batch needs, whose visits come in parts.

        Arrow's writer wants whole columns. It is given columns that end in zeros, which take no memory as long as
        nobody writes to them; then the visits are written over those zeros, in the file.
        """
        own = Histories(
            np.array([len(giant.name)], np.int64),
            np.frombuffer(giant.name, np.uint8),
            np.array([giant.n_visits], np.int64),
            np.array([giant.n_pairs], np.int64),
            *(np.zeros(0, dtype) for dtype in ("i8", "u8", "u2", "i8", "i4", "i4")),
        )
        before = _joined([*self._pending, own])
        self._pending, self._n_pending_pairs = [], 0
        self._open_shard()
        start = self._sink.tell()
        self._writer.write_batch(_record_batch(before, self._schema, [], giant.n_visits, giant.n_pairs))
        shard = self.shards[-1]
        shard.customers += len(before.n_visits)
        shard.visits += len(before.visit_time) + giant.n_visits
        self._count_long(before.visit_days)
        shard.events += int(before.counts.sum(dtype=np.int64))
        visit, pair = len(before.visit_time), len(before.actions)
        places = _column_places(self._folder / shard.file, start, self._schema)
        with (self._folder / shard.file).open("r+b", buffering=0) as file:
            for part in giant.parts:
                ends = (pair + np.cumsum(part.n_pairs)).astype(np.int32)
                at = (visit, visit, visit + 1, visit + 1, pair, pair, visit)
                values: list[Any] = [part.time, part.key, ends, ends, part.actions, part.counts, part.days]
                n = len(places)
                for place, first, column in zip(places, at[:n], values[:n], strict=True):
                    file.seek(place + first * column.itemsize)
                    _write_all(file, column)
                visit, pair = visit + len(part.time), pair + len(part.actions)
                self._count_long(part.days)
                shard.events += int(part.counts.sum(dtype=np.int64))
        self._end_batch()

    def close(self) -> None:
        """Write what is left and end the last shard."""
        if self._pending:
            self._flush()
        self._end_shard()

    def abort(self) -> None:
        """Close the open file, whatever state it is in."""
        if self._sink is not None:
            self._sink.close()

    def _count_long(self, days: NDArray[np.uint16]) -> None:
        self.n_long += int(np.count_nonzero(days)) if self._has_days else 0

    def _open_shard(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            file = f"part-{len(self.shards):05d}.arrow"
            self.shards.append(Shard(file))
            self._sink = pa.OSFile(str(self._folder / file), "wb")
            self._writer = pa.ipc.new_file(self._sink, self._schema)

    def _flush(self) -> None:
        # the features of visits, which are most of their bytes, are joined column by column
        side = [(part.features, part.feature_rows) for part in self._pending]
        columns = _joined([part._replace(features=NO_FEATURES, feature_rows=NO_FEATURE_ROWS) for part in self._pending])
        self._pending, self._n_pending_pairs = [], 0
        features = [_join_feature(side, *place) for place in self._parts]
        del side
        self._open_shard()
        self._writer.write_batch(_record_batch(columns, self._schema, features))
        shard = self.shards[-1]
        shard.customers += len(columns.n_visits)
        shard.visits += len(columns.visit_time)
        self._count_long(columns.visit_days)
        shard.events += int(columns.counts.sum(dtype=np.int64))
        self._end_batch()

    def _end_batch(self) -> None:
        self._n_batches += 1
        if self._n_batches == SHARD_BATCHES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None
        self._n_batches = 0


def _join_feature(
    side: Sequence[tuple[NDArray[np.int64], NDArray[np.int32]]], feature: int, part: int
) -> NDArray[np.int64] | NDArray[np.int32]:
    """A column of a feature: its values, or how many rows have them (part 1) or others (part 2)."""
    if part == 0:
        return np.concatenate([values[:, feature] for values, _ in side])
    return np.concatenate([rows[:, feature, part - 1] for _, rows in side])


def _joined(parts: Sequence[Histories]) -> Histories:
    return Histories(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _cut(histories: Histories, first: int, stop: int) -> Histories:
    """The customers first:stop."""
    if first == 0 and stop == len(histories.n_visits):
        return histories

    def bounds(sizes: NDArray[np.int64]) -> slice:
        start = int(sizes[:first].sum())
        return slice(start, start + int(sizes[first:stop].sum()))

    customers, names = slice(first, stop), bounds(histories.name_sizes)
    visits, pairs = bounds(histories.n_visits), bounds(histories.n_customer_pairs)
    slices = (customers, names, customers, customers, visits, visits, visits, visits, pairs, pairs, visits, visits)
    columns: tuple[Any, ...] = histories
    return Histories(*(column[part] for column, part in zip(columns, slices, strict=True)))


def _record_batch(
    h: Histories,
    schema: pa.Schema,
    side: Sequence[NDArray[Any]],
    n_more_visits: int = 0,
    n_more_pairs: int = 0,
) -> pa.RecordBatch:
    """A batch of histories; the last customer's visits may end in so many zeros that are to be written over."""
    import pyarrow as pa

    n, n_visits = len(h.n_visits), len(h.visit_time) + n_more_visits
    by_customer = pa.py_buffer(offsets(h.n_visits))
    ends = _with_zeros(offsets(h.n_pairs), n_more_visits)
    if n_more_visits:
        ends[-1] = len(h.actions) + n_more_pairs
    by_visit = pa.py_buffer(ends)

    def nested(index: int, values: NDArray[np.generic], n_more: int) -> pa.Array:
        kind = schema.field(index).type
        inner = kind.value_type
        flat = flat_column(_with_zeros(values, n_more), inner.value_type if pa.types.is_list(inner) else inner)
        if pa.types.is_list(inner):
            flat = pa.Array.from_buffers(inner, n_visits, [None, by_visit], children=[flat])
        return pa.Array.from_buffers(kind, n, [None, by_customer], children=[flat])

    visits = [nested(1, h.visit_time, n_more_visits), nested(2, h.visit_key, n_more_visits)]
    pairs = [nested(3, h.actions, n_more_pairs), nested(4, h.counts, n_more_pairs)]
    days = [nested(5, h.visit_days, n_more_visits)] if "visit_days" in schema.names else []
    features = []
    for field, values in zip(list(schema)[5 + len(days) :], side, strict=True):
        flat = write_entries(values, field.type.value_type)
        features.append(pa.Array.from_buffers(field.type, n, [None, by_customer], children=[flat]))
    return pa.RecordBatch.from_arrays(
        [slice_column(h.names, h.name_sizes, pa.string()), *visits, *pairs, *days, *features], schema=schema
    )


def _with_zeros(values: NDArray[Any], n_more: int) -> NDArray[Any]:
    """The values and behind them zeros, which stay untouched memory."""
    if not n_more:
        return values
    longer = np.zeros(len(values) + n_more, values.dtype)
    longer[: len(values)] = values
    return longer


def _column_places(path: Path, start: int, schema: pa.Schema) -> list[int]:
    """Where in the file the batch at `start` has its times, keys, ends of visits (twice), actions, counts and days."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        base = file.read_buffer(1).address
        file.seek(start or _MAGIC_BYTES)
        message = pa.ipc.read_message(file)
        # the schema is written together with the first batch
        batch = pa.ipc.read_record_batch(message if start else pa.ipc.read_message(file), schema)
        time, key, actions, counts = (batch.column(i).values for i in range(1, 5))
        buffers = [
            *(column.buffers()[1] for column in (time, key, actions, counts)),
            *(column.values.buffers()[1] for column in (actions, counts)),
            *(batch.column(i).values.buffers()[1] for i in range(5, len(schema))),
        ]
        return [buffer.address - base for buffer in buffers]


def _write_all(file: Any, values: NDArray[Any]) -> None:
    left = memoryview(np.ascontiguousarray(values).view(np.uint8))  # type: ignore[arg-type]
    while len(left):
        left = left[file.write(left) :]
