"""What a dataset says of itself: counts that add up, and whether the order of rows inside visits is fake."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast import __version__
from luckyfast.errors import ConservationError
from luckyfast.ingestion.columns import flat_column, offsets, text_column
from luckyfast.ingestion.format import FORMAT, FORMAT_VERSION
from luckyfast.ingestion.plan import PART_SEPARATOR
from luckyfast.ingestion.stream import Block, SourceReader, Workspace

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import FilePlan, IngestPlan
    from luckyfast.ingestion.shards import Shard

__all__ = ["check_conservation", "make_manifest", "measure_order", "write_vocabulary"]

_ORDER_SAMPLE_BYTES = 1 << 17
_MIN_VISITS = 30


def make_manifest(
    plan: IngestPlan,
    counts: Mapping[str, int],
    rejects_by_reason: Mapping[str, int],
    filtered_by_rule: Mapping[str, int],
    other_actions: Mapping[str, int],
    duplicates: Mapping[str, Any],
    time_range: tuple[int, int],
    sources: Sequence[Mapping[str, Any]],
    dialects: Sequence[Mapping[str, Any]],
    shards: Sequence[Shard],
    order_leak: Mapping[str, Any],
    features: Sequence[Mapping[str, Any]] = (),
    visits_over_days: int = 0,
) -> dict[str, Any]:
    """The manifest; everything in it follows from the raw files and the plan alone."""
    roles = plan.roles
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "complete": True,
        "counts": dict(counts),
        "rejects_by_reason": dict(rejects_by_reason),
        "filtered_by_rule": dict(filtered_by_rule),
        "other_actions": dict(other_actions),
        "duplicates": dict(duplicates),
        "time": {"kind": time_kind(plan), "min": time_range[0], "max": time_range[1]}
        | ({"relative": True} if plan.time_format.kind == "gaps" else {})
        | ({"visits_over_days": visits_over_days} if visits_over_days else {}),
        "roles": {
            "customer": list(roles.customer),
            "time": list(roles.time),
            "action": list(roles.action),
            "visit": list(roles.visit) if roles.visit else None,
        },
        "sources": [dict(source) for source in sources],
        "dialects": [dict(dialect) for dialect in dialects],
        "shards": [vars(shard) for shard in shards],
        "order_leak": dict(order_leak),
        **({"features": [dict(feature) for feature in features]} if features else {}),
        "luckyfast_version": __version__,
    }


def time_kind(plan: IngestPlan) -> str:
    """`order` where the times are only numbers in order, else `clock`."""
    return "order" if plan.time_format.kind == "order" else "clock"


def check_conservation(counts: Mapping[str, int], shards: Sequence[Shard], n_vocabulary_events: int) -> None:
    """Assert that every row read is accounted for, in the counts, the shards and the vocabulary.

    Raises:
        ConservationError: rows were lost or invented.
    """
    accounted = counts["events"] + counts["duplicates_removed"] + counts["filtered"] + counts["rejected"]
    in_shards = sum(shard.events for shard in shards)
    if counts["rows_read"] != accounted or counts["events"] != in_shards or in_shards != n_vocabulary_events:
        raise ConservationError(
            f"{counts['rows_read']} rows were read, {accounted} are accounted for, of {counts['events']} events "
            f"{in_shards} are in the shards and {n_vocabulary_events} in the vocabulary"
        )


def write_vocabulary(texts: Sequence[bytes], n_events: Sequence[int], path: Path) -> None:
    """Write the actions; row i is action id i, row 0 stands for unknown.

    Where an action is spread over several columns, `parts` holds its values one by one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = [b"<unknown>", *(text.replace(PART_SEPARATOR, b" / ") for text in texts)]
    counts = np.array([0, *n_events], np.int64)
    columns, names = [text_column(shown), flat_column(counts, pa.int64())], ["action", "n_events"]
    parts = [[shown[0]], *(text.split(PART_SEPARATOR) for text in texts)]
    if any(len(own) > 1 for own in parts):
        starts = pa.py_buffer(offsets(np.array([len(own) for own in parts], np.int64)))
        values = text_column([part for own in parts for part in own])
        columns.append(pa.Array.from_buffers(pa.list_(pa.string()), len(parts), [None, starts], children=[values]))
        names.append("parts")
    pq.write_table(pa.Table.from_arrays(columns, names=names), path)


def measure_order(file: FilePlan) -> dict[str, Any]:
    """Whether rows inside visits are visibly sorted by some column, in the first 128 KiB of a source.

    A visit of n rows is sorted by chance once in n! times (more often with equal values). If visits are sorted far more
    often, the order inside visits is the till's and says nothing about the customer: predicting the next row would be
    predicting the sort.

    Returns:
        share_sorted of the most sorted column, the column, the share by chance, and whether that is suspicious.
    """
    best: dict[str, Any] = {"share_sorted": 0.0, "column": None, "share_by_chance": 0.0, "suspicious": False}
    dialect = file.dialect
    if file.source.form != "delimited":
        return best
    reader = SourceReader(0, file, _ORDER_SAMPLE_BYTES)
    block = reader.read(Workspace(_ORDER_SAMPLE_BYTES))
    if block is not None:
        reader.close()
    visits = [rows for rows in _sample_visits(file, block) if len(rows) > 2] if block is not None else []
    taken = {*file.customer, *file.time, *(file.visit or ())}
    for column, name in enumerate(dialect.header):
        if column in taken:
            continue
        n_sorted, expected, n = 0, 0.0, 0
        for rows in visits:
            values = [row[column] for row in rows]
            n_distinct = len(set(values))
            if n_distinct < 2:
                continue
            keys: list[Any] = [(len(v), v) for v in values] if all(map(bytes.isdigit, values)) else values
            n += 1
            n_sorted += keys == sorted(keys)
            same = math.prod(map(math.factorial, Counter(values).values())) if n_distinct < len(values) else 1
            expected += same / math.factorial(len(values))
        if n >= _MIN_VISITS and n_sorted / n > best["share_sorted"]:
            share, chance = n_sorted / n, expected / n
            suspicious = share > 0.5 and share > 3 * chance
            best = {
                "share_sorted": round(share, 4),
                "column": name,
                "share_by_chance": round(chance, 4),
                "suspicious": suspicious,
            }
    return best


def _sample_visits(file: FilePlan, block: Block) -> list[list[list[bytes]]]:
    dialect, workspace, n_rows = file.dialect, block.workspace, block.rows[1]
    data = workspace.buffer[: block.n_bytes].tobytes()
    stops = workspace.row_stops[:n_rows].tolist()
    positions = workspace.separators[: stops[-1] & 0x7FFFFFFF if n_rows else 0].tolist()
    by_visit: dict[tuple[bytes, ...], list[list[bytes]]] = {}
    columns = tuple(column for column in (*file.customer, *(file.visit or file.time)) if column >= 0)
    delimiter, quote = bytes([dialect.delimiter]), bytes([dialect.quote or dialect.delimiter])
    first = start = 0
    for stop in stops:
        end = positions[(stop & 0x7FFFFFFF) - 1]
        if stop == first + len(dialect.header):
            row = data[start:end]
            if quote == delimiter or quote not in row:
                fields = row.split(delimiter)
            else:
                starts = [start, *(position + 1 for position in positions[first : stop - 1])]
                fields = [data[i:j] for i, j in zip(starts, positions[first:stop], strict=True)]
            by_visit.setdefault(tuple([fields[column] for column in columns]), []).append(fields)
        first = stop & 0x7FFFFFFF
        start = end + 1
    return list(by_visit.values())
