"""Naive twin of ingest: write the dataset format from rows, slowly and obviously right.

Customers are ordered by ``(name_hash(name), name)`` of the name's UTF-8 bytes, where ``name_hash`` is FNV-1a (64
bits) followed by splitmix64's finaliser. A visit's key is ``name_hash`` of its session id, or of its time as eight
little-endian bytes where there is no session id. Its days are those from the day of its first row to that of its last.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MASK = 2**64 - 1
BATCH_PAIRS = 2**18
SHARD_BATCHES = 16
DAY = 86_400_000_000
Row = tuple[str, int, str, str | None]


def name_hash(data: bytes) -> int:
    """FNV-1a over the bytes, then splitmix64's finaliser."""
    x = 0xCBF29CE484222325
    for byte in data:
        x = ((x ^ byte) * 0x100000001B3) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def shard_schema(time_kind: str, *, has_days: bool = True) -> pa.Schema:
    """Columns of a shard."""
    time = pa.timestamp("us") if time_kind == "clock" else pa.int64()
    pairs = pa.list_(pa.list_(pa.int32()))
    columns = {"customer": pa.string(), "visit_time": pa.list_(time), "visit_key": pa.list_(pa.uint64())}
    days = {"visit_days": pa.list_(pa.uint16())} if time_kind == "clock" and has_days else {}
    return pa.schema({**columns, "actions": pairs, "counts": pairs, **days})


def write_dataset(
    rows: Iterable[Row],
    out: Path,
    *,
    time_kind: str = "clock",
    has_days: bool = True,
    roles: dict[str, Any] | None = None,
    batch_pairs: int = BATCH_PAIRS,
    shard_batches: int = SHARD_BATCHES,
) -> Path:
    """Write rows of (customer, time, action, session id or None) as a dataset folder and return its path."""
    visits: dict[str, dict[str | int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    times: dict[tuple[str, str | int], int] = {}
    last: dict[tuple[str, str | int], int] = {}
    events: Counter[str] = Counter()
    for customer, time, action, session in rows:
        visit = time if session is None else session
        visits[customer][visit][action] += 1
        times[customer, visit] = min(time, times.get((customer, visit), time))
        last[customer, visit] = max(time, last.get((customer, visit), time))
        events[action] += 1
    names = sorted(events, key=lambda name: name.encode())
    ids = {name: index for index, name in enumerate(names, start=1)}

    records = []
    for customer in sorted(visits, key=lambda name: (name_hash(name.encode()), name.encode())):
        history = []
        for visit, counter in visits[customer].items():
            data = visit.encode() if isinstance(visit, str) else visit.to_bytes(8, "little", signed=True)
            pairs = sorted((ids[action], n) for action, n in counter.items())
            days = min(last[customer, visit] // DAY - times[customer, visit] // DAY, 65_535)
            history.append((times[customer, visit], name_hash(data), pairs, days))
        history.sort()
        records.append((customer, history))

    batches: list[list[Any]] = [[]]
    n_pairs = 0
    for record in records:
        if n_pairs >= batch_pairs:
            batches.append([])
            n_pairs = 0
        batches[-1].append(record)
        n_pairs += sum(len(pairs) for _, _, pairs, _ in record[1])
    if not batches[0]:
        batches = []

    (out / "shards").mkdir(parents=True)
    schema = shard_schema(time_kind, has_days=has_days)
    shards = []
    for first in range(0, len(batches), shard_batches):
        file = f"part-{first // shard_batches:05d}.arrow"
        group = batches[first : first + shard_batches]
        with pa.OSFile(str(out / "shards" / file), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in group:
                writer.write_batch(_record_batch(batch, schema))
        shards.append(
            {
                "file": file,
                "customers": sum(len(batch) for batch in group),
                "visits": sum(len(history) for batch in group for _, history in batch),
                "events": sum(n for batch in group for _, h in batch for _, _, pairs, _ in h for _, n in pairs),
            }
        )
    pq.write_table(
        pa.table({"action": ["<unknown>", *names], "n_events": pa.array([0, *(events[n] for n in names)], pa.int64())}),
        out / "vocabulary.parquet",
    )
    n_events = sum(events.values())
    n_long = sum(days > 0 for _, history in records for _, _, _, days in history)
    manifest = {
        "format": "luckyfast-dataset",
        "format_version": 1,
        "complete": True,
        "counts": {
            "rows_read": n_events,
            "events": n_events,
            "duplicates_removed": 0,
            "filtered": 0,
            "rejected": 0,
            "customers": len(records),
            "visits": len(times),
            "actions": len(names),
        },
        "rejects_by_reason": {},
        "time": {"kind": time_kind, "min": min(times.values(), default=0), "max": max(last.values(), default=0)}
        | ({"visits_over_days": n_long} if n_long and "visit_days" in schema.names else {}),
        "roles": roles or {"customer": ["customer"], "time": ["time"], "action": ["action"], "visit": ["visit"]},
        "sources": [],
        "shards": shards,
        "order_leak": {"share_sorted": 0.0, "suspicious": False},
        "luckyfast_version": "naive",
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return out


def _record_batch(records: list[Any], schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        [customer for customer, _ in records],
        [[time for time, _, _, _ in history] for _, history in records],
        [[key for _, key, _, _ in history] for _, history in records],
        [[[action for action, _ in pairs] for _, _, pairs, _ in history] for _, history in records],
        [[[n for _, n in pairs] for _, _, pairs, _ in history] for _, history in records],
        [[days for _, _, _, days in history] for _, history in records],
    ][: len(schema)]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
