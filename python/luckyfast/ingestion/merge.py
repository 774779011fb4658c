"""Runs to sorted histories in shards, a stretch of customer hashes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.errors import BudgetError
from luckyfast.ingestion.columns import flat_column, offsets, slice_column
from luckyfast.ingestion.duplicates import keep_first_rows
from luckyfast.ingestion.partition import N_BUCKETS, Run
from luckyfast.kernels import merge as kernel

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "BATCH_PAIRS",
    "SHARD_BATCHES",
    "Histories",
    "Shard",
    "ShardWriter",
    "keep_regulars",
    "merge_all",
    "plan_merge",
]

BATCH_PAIRS = 1 << 18
"""A record batch ends at the first customer at or after so many distinct (visit, action) pairs."""

SHARD_BATCHES = 16
MERGE_EXPANSION = 6
"""Merging takes about so many times the bytes of the runs' stretch."""


class Histories(NamedTuple):
    """Sorted histories of some customers; per customer, per visit, per pair."""

    name_sizes: NDArray[np.int64]
    names: NDArray[np.uint8]
    n_visits: NDArray[np.int64]
    n_customer_pairs: NDArray[np.int64]
    visit_time: NDArray[np.int64]
    visit_key: NDArray[np.uint64]
    n_pairs: NDArray[np.int64]
    actions: NDArray[np.int32]
    counts: NDArray[np.int32]


@dataclass
class Shard:
    """One written file and what it holds."""

    file: str
    customers: int = 0
    visits: int = 0
    events: int = 0


def plan_merge(runs: Sequence[Run], share_bytes: int, target_bytes: int) -> list[tuple[int, int]]:
    """Stretches of buckets, each small enough to be merged within `share_bytes`, preferably of `target_bytes`."""
    sizes = sum((run.bucket_bytes() for run in runs), np.zeros(N_BUCKETS, np.int64))
    largest = int(sizes.max(initial=0)) * MERGE_EXPANSION
    if largest > share_bytes:
        raise BudgetError(
            f"some customers have so many events that {largest >> 20} MiB are needed to sort them, "
            f"and {share_bytes >> 20} MiB are left",
            hint="give more --memory, or check that the --customer column names single customers",
        )
    target = min(target_bytes, share_bytes // MERGE_EXPANSION)
    stretches, first, held = [], 0, 0
    for bucket, size in enumerate(sizes.tolist()):
        if held and held + size > target:
            stretches.append((first, bucket))
            first, held = bucket, 0
        held += size
    if held:
        stretches.append((first, N_BUCKETS))
    return stretches


def merge_buckets(
    runs: Sequence[Run], ranks: NDArray[np.int32], first: int, stop: int, min_visits: int = 1
) -> Histories:
    """Histories of the customers in the buckets first:stop of all runs; `ranks` are the final action ids."""
    segments = [run.read(first, stop) for run in runs if run.starts[0, first] < run.starts[0, stop]]
    bases = [int(run.starts[0, first]) for run in runs if run.starts[0, first] < run.starts[0, stop]]
    name_bases = [int(run.starts[1, first]) for run in runs if run.starts[0, first] < run.starts[0, stop]]
    hashes = np.concatenate([s.hashes for s in segments])
    names = np.concatenate([s.names for s in segments])
    sizes = np.concatenate([np.diff(s.name_stops, prepend=base) for s, base in zip(segments, name_bases, strict=True)])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    order = np.argsort(hashes, kind="stable")
    place = np.empty(len(hashes), np.uint32)
    distinct = np.empty(len(hashes), np.int64)
    n = kernel.number_customers(order, hashes, names, starts, place, distinct)
    distinct = distinct[:n]

    offsets = np.concatenate([[0], np.cumsum([len(s.hashes) for s in segments])]).tolist()
    shifted = [s.customer + np.uint32((o - b) % 2**32) for s, o, b in zip(segments, offsets[:-1], bases, strict=True)]
    customer = np.concatenate(shifted)
    n_actions = np.concatenate([s.n_actions for s in segments])
    time = np.concatenate([s.time for s in segments])
    key = np.concatenate([s.key for s in segments])
    actions = np.concatenate([s.actions for s in segments])
    rows = np.concatenate([s.rows for s in segments])
    del segments, shifted
    if len(rows):
        n_actions, actions = keep_first_rows(place[customer], key, n_actions, actions, rows)
    fragment_starts = np.zeros(n + 2, np.int64)
    fragments, first_action = np.empty(len(customer), np.int64), np.empty(len(customer), np.int64)
    kernel.place_fragments(customer, n_actions, place, fragment_starts, fragments, first_action)

    n_visits, n_customer_pairs = np.empty(n, np.int64), np.empty(n, np.int64)
    visits = (np.empty(len(key), np.int64), np.empty(len(key), np.uint64), np.empty(len(key), np.int64))
    pairs = (np.empty(len(actions), np.int32), np.empty(len(actions), np.int32))
    n_all, n_pairs = kernel.group_visits(
        fragment_starts,
        fragments,
        time,
        key,
        first_action,
        n_actions,
        actions,
        ranks,
        n_visits,
        n_customer_pairs,
        visits,
        pairs,
    )
    name_sizes = sizes[distinct]
    in_order = np.empty(int(name_sizes.sum()), np.uint8)
    kernel.take_names(names, starts, distinct, in_order)
    histories = Histories(
        name_sizes,
        in_order,
        n_visits,
        n_customer_pairs,
        visits[0][:n_all],
        visits[1][:n_all],
        visits[2][:n_all],
        pairs[0][:n_pairs],
        pairs[1][:n_pairs],
    )
    return histories if min_visits <= 1 else keep_regulars(histories, min_visits)


def keep_regulars(h: Histories, min_visits: int) -> Histories:
    """The customers with at least so many visits."""
    kept = h.n_visits >= min_visits
    visits, pairs = np.repeat(kept, h.n_visits), np.repeat(kept, h.n_customer_pairs)
    return Histories(
        h.name_sizes[kept],
        h.names[np.repeat(kept, h.name_sizes)],
        h.n_visits[kept],
        h.n_customer_pairs[kept],
        h.visit_time[visits],
        h.visit_key[visits],
        h.n_pairs[visits],
        h.actions[pairs],
        h.counts[pairs],
    )


class ShardWriter:
    """Writes histories, given in order, as Arrow IPC files that are cut by content alone.

    Args:
        folder: where the shards go.
        time_kind: "clock" or "order".
    """

    def __init__(self, folder: Path, time_kind: str) -> None:
        import pyarrow as pa

        self.shards: list[Shard] = []
        self._folder = folder
        self._pending: list[Histories] = []
        self._n_pending_pairs = 0
        self._n_batches = 0
        self._sink: Any = None
        self._writer: Any = None
        time = pa.timestamp("us") if time_kind == "clock" else pa.int64()
        pairs = pa.list_(pa.list_(pa.int32()))
        self._schema = pa.schema(
            [
                pa.field("customer", pa.string()),
                pa.field("visit_time", pa.list_(time)),
                pa.field("visit_key", pa.list_(pa.uint64())),
                pa.field("actions", pairs),
                pa.field("counts", pairs),
            ]
        )

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

    def close(self) -> None:
        """Write what is left and end the last shard."""
        if self._pending:
            self._flush()
        self._end_shard()

    def abort(self) -> None:
        """Close the open file, whatever state it is in."""
        if self._sink is not None:
            self._sink.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            file = f"part-{len(self.shards):05d}.arrow"
            self.shards.append(Shard(file))
            self._sink = pa.OSFile(str(self._folder / file), "wb")
            self._writer = pa.ipc.new_file(self._sink, self._schema)
        columns = Histories(*(np.concatenate(column) for column in zip(*self._pending, strict=True)))
        self._pending, self._n_pending_pairs = [], 0
        self._writer.write_batch(_record_batch(columns, self._schema))
        shard = self.shards[-1]
        shard.customers += len(columns.n_visits)
        shard.visits += len(columns.visit_time)
        shard.events += int(columns.counts.sum(dtype=np.int64))
        self._n_batches += 1
        if self._n_batches == SHARD_BATCHES:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None
        self._n_batches = 0


def _cut(histories: Histories, first: int, stop: int) -> Histories:
    """The customers first:stop."""
    if first == 0 and stop == len(histories.n_visits):
        return histories

    def bounds(sizes: NDArray[np.int64]) -> slice:
        start = int(sizes[:first].sum())
        return slice(start, start + int(sizes[first:stop].sum()))

    customers, names = slice(first, stop), bounds(histories.name_sizes)
    visits, pairs = bounds(histories.n_visits), bounds(histories.n_customer_pairs)
    slices = (customers, names, customers, customers, visits, visits, visits, pairs, pairs)
    columns: tuple[Any, ...] = histories
    return Histories(*(column[part] for column, part in zip(columns, slices, strict=True)))


def _record_batch(h: Histories, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    n, n_visits = len(h.n_visits), len(h.visit_time)
    by_customer, by_visit = pa.py_buffer(offsets(h.n_visits)), pa.py_buffer(offsets(h.n_pairs))

    def nested(index: int, values: NDArray[np.generic]) -> pa.Array:
        kind = schema.field(index).type
        inner = kind.value_type
        if not pa.types.is_list(inner):
            return pa.Array.from_buffers(kind, n, [None, by_customer], children=[flat_column(values, inner)])
        flat = flat_column(values, inner.value_type)
        visits = pa.Array.from_buffers(inner, n_visits, [None, by_visit], children=[flat])
        return pa.Array.from_buffers(kind, n, [None, by_customer], children=[visits])

    names = slice_column(h.names, h.name_sizes, pa.string())
    arrays = [names, nested(1, h.visit_time), nested(2, h.visit_key), nested(3, h.actions), nested(4, h.counts)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def merge_all(
    pool: Any,
    runs: Sequence[Run],
    ranks: NDArray[np.int32],
    stretches: Sequence[tuple[int, int]],
    n_ahead: int,
    min_visits: int = 1,
) -> Iterator[Histories]:
    """Merge all stretches on a thread pool (None: right here), in order, no more than `n_ahead` of them waiting."""
    waiting: list[Any] = []
    if pool is None:
        yield from (merge_buckets(runs, ranks, first, stop, min_visits) for first, stop in stretches)
        return
    for first, stop in stretches:
        if len(waiting) == n_ahead:
            yield waiting.pop(0).result()
        waiting.append(pool.submit(merge_buckets, runs, ranks, first, stop, min_visits))
    while waiting:
        yield waiting.pop(0).result()
