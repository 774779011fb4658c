"""Histories from a CSV log, by luckyfast and by each peer, and how to read back what each of them wrote.

Every writer is told the columns, and may tell the seconds of its stages; see `tasks/ingest.py` for why each peer is
used the way it is. A writer imports its system inside, so that a system is needed only where it runs.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast.progress import NullProgress

from .checksum import hash_names
from .receipts import COLUMNS

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from luckyfast.ingestion.plan import IngestPlan

__all__ = ["JSON_PRODUCT", "READERS", "WRITERS", "Block", "plan_log"]

JSON_PRODUCT = "product"
"""The object of a JSON line that holds the columns of its product."""

_CUSTOMER, _TIME, _VISIT, _ACTION = (COLUMNS[role] for role in ("customer", "time", "visit", "action"))
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.f"


@dataclass(frozen=True, eq=False)
class Block:
    """Some customers' histories as flat arrays: what `HistoryChecksum.add` takes, in its order."""

    customers: npt.NDArray[np.uint64]
    visit_start: npt.NDArray[np.int64]
    visit_time: npt.NDArray[np.int64]
    action_start: npt.NDArray[np.int64]
    actions: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]


def plan_log(values: Mapping[str, Any], out: Path) -> IngestPlan:
    """Plan luckyfast's way through the log without carrying it out, for tasks that measure one stage alone."""
    from luckyfast.ingestion.planning import make_plan

    return make_plan([values["csv"]], out / "dataset", customer=_CUSTOMER, time=_TIME, action=_ACTION, visit=_VISIT)


# ---- luckyfast ------------------------------------------------------------------------------------------------------


class _Stages(NullProgress):
    """Notes when each stage of an ingest begins and ends."""

    def __init__(self) -> None:
        self.marks = [("plan", time.perf_counter())]

    def start(self, stage: str, total: float | None, unit: str) -> None:
        del total, unit
        self.marks.append((stage.lower(), time.perf_counter()))

    def finish(self) -> None:
        self.marks.append(("rest", time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage: planning, reading (scan and parse), merging (with writing), and all the rest."""
        found: dict[str, float] = {}
        ends = [at for _, at in self.marks[1:]] + [time.perf_counter()]
        for (stage, start), end in zip(self.marks, ends, strict=True):
            found[f"{stage}_s"] = found.get(f"{stage}_s", 0.0) + end - start
        return found


def _write_with_luckyfast(values: Mapping[str, Any], out: Path) -> dict[str, float]:
    """Ingest as a user would: the roles are named, all else is found out."""
    from luckyfast.ingestion import ingest

    stages = _Stages()
    as_json = "jsonl" in values
    ingest(
        [values["jsonl" if as_json else "csv"]],
        out / "dataset",
        customer=_CUSTOMER,
        time=_TIME,
        action=f"{JSON_PRODUCT}.{_ACTION}" if as_json else _ACTION,
        visit=_VISIT,
        memory=values["memory_bytes"],
        workers=values["n_threads"],
        progress=stages,
    )
    return stages.seconds()


def _read_luckyfast(out: Path) -> Iterator[Block]:
    """Read the shards with pyarrow alone, as anyone could."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = hash_names(pq.read_table(out / "dataset" / "vocabulary.parquet")["action"].to_pylist())
    for path in sorted((out / "dataset" / "shards").glob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for at in range(reader.num_record_batches):
                batch = reader.get_batch(at)
                times, actions, counts = (batch.column(name) for name in ("visit_time", "actions", "counts"))
                pairs = actions.flatten()
                yield Block(
                    hash_names(batch.column("customer").to_pylist()),
                    _starts(times),
                    _microseconds(times.flatten()),
                    _starts(pairs),
                    names[pairs.flatten().to_numpy(zero_copy_only=False)],
                    counts.flatten().flatten().to_numpy(zero_copy_only=False),
                )


# ---- polars ---------------------------------------------------------------------------------------------------------


def _write_with_polars(values: Mapping[str, Any], out: Path) -> None:
    import polars as pl

    types = {_CUSTOMER: pl.Int64, _VISIT: pl.Int64, _TIME: pl.String, _ACTION: pl.Categorical}
    if "jsonl" in values:
        product = pl.Struct({_ACTION: pl.String})
        del types[_ACTION]
        lines = pl.scan_ndjson(values["jsonl"], schema_overrides={**types, JSON_PRODUCT: product})
        action = pl.col(JSON_PRODUCT).struct.field(_ACTION).cast(pl.Categorical)
        lines = lines.select(_CUSTOMER, _TIME, _VISIT, action)
    else:
        lines = pl.scan_csv(values["csv"], schema_overrides=types)
    (
        lines.select(_CUSTOMER, _TIME, _VISIT, _ACTION)
        .filter(pl.col(_ACTION).is_not_null())
        .with_columns(pl.col(_TIME).str.to_datetime(_TIME_FORMAT, time_unit="us"))
        .group_by(_CUSTOMER, _TIME, _VISIT, _ACTION)
        .agg(pl.len().cast(pl.Int32).alias("n"))
        .group_by(_CUSTOMER, _TIME, _VISIT)
        .agg(_ACTION, "n")
        .group_by(_CUSTOMER)
        .agg(pl.col(_TIME, _VISIT, _ACTION, "n").sort_by(_TIME, _VISIT))
        .sink_ipc(out / "histories.arrow", compression="uncompressed", engine="streaming")
    )


# ---- DuckDB ---------------------------------------------------------------------------------------------------------


def _write_with_duckdb(values: Mapping[str, Any], out: Path) -> None:
    import duckdb

    settings = {"threads": values["n_threads"], "temp_directory": str(out / "spill"), "preserve_insertion_order": False}
    if values["memory_bytes"] is not None:
        settings["memory_limit"] = f"{values['memory_bytes']}B"
    types = {_CUSTOMER: "BIGINT", _VISIT: "BIGINT", _TIME: "TIMESTAMP"}
    if "jsonl" in values:
        types[JSON_PRODUCT] = f"STRUCT({_ACTION} VARCHAR)"
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
        source = f"read_json('{values['jsonl']}', format = 'newline_delimited', columns = {{{columns}}})"
        action = f"{JSON_PRODUCT}.{_ACTION}"
    else:
        with (gzip.open if values["csv"].endswith(".gz") else open)(values["csv"], "rt", encoding="utf-8") as file:
            header = file.readline().strip().split(",")
        columns = ", ".join(f"'{name}': '{types.get(name, 'VARCHAR')}'" for name in header)
        source = f"""read_csv('{values["csv"]}', header = true, delim = ',', quote = '', escape = '',
                                  columns = {{{columns}}})"""
        action = _ACTION
    query = f"""
        COPY (
            SELECT {_CUSTOMER}, list_sort(list(struct_pack(t := {_TIME}, v := {_VISIT}, a := a, n := n))) AS visits
            FROM (
                SELECT {_CUSTOMER}, {_TIME}, {_VISIT}, list({_ACTION}) AS a, list(n) AS n
                FROM (
                    SELECT {_CUSTOMER}, {_TIME}, {_VISIT}, {action} AS {_ACTION}, count(*)::INTEGER AS n
                    FROM {source}
                    WHERE {action} IS NOT NULL
                    GROUP BY ALL)
                GROUP BY ALL)
            GROUP BY {_CUSTOMER})
        TO '{out / "histories.parquet"}' (FORMAT parquet)"""
    with duckdb.connect(config=settings) as connection:
        connection.execute(query)


def _read_duckdb(out: Path) -> Iterator[Block]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(out / "histories.parquet").iter_batches():
        visits = batch.column("visits")
        fields = dict(zip(("t", "v", "a", "n"), visits.flatten().flatten(), strict=True))
        yield _block(batch.column(_CUSTOMER), visits, fields["t"], fields["a"], fields["n"].flatten())


# ---- pyarrow and pandas ---------------------------------------------------------------------------------------------


def _write_with_pyarrow(values: Mapping[str, Any], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pc_csv

    pa.set_cpu_count(values["n_threads"])
    types = {
        _CUSTOMER: pa.int64(),
        _VISIT: pa.int64(),
        _TIME: pa.timestamp("ns"),
        _ACTION: pa.dictionary(pa.int32(), pa.string()),
    }
    convert = pc_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    lines = pc_csv.read_csv(values["csv"], convert_options=convert).unify_dictionaries()
    lines = lines.filter(pc.is_valid(lines[_ACTION]))
    pairs = lines.group_by([_CUSTOMER, _TIME, _VISIT, _ACTION]).aggregate([([], "count_all")])
    _write_sorted_pairs(pairs.sort_by([(name, "ascending") for name in (_CUSTOMER, _TIME, _VISIT)]), out)


def _write_with_pandas(values: Mapping[str, Any], out: Path) -> None:
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa

    pa.set_cpu_count(values["n_threads"])
    keys = [_CUSTOMER, _TIME, _VISIT, _ACTION]
    lines = pd.read_csv(values["csv"], usecols=keys, engine="pyarrow", dtype={_ACTION: "category"}, parse_dates=[_TIME])
    pairs = lines.groupby(keys, sort=False, observed=True).size().reset_index(name="count_all")
    table = pa.Table.from_pandas(pairs.sort_values(keys[:3]), preserve_index=False)
    _write_sorted_pairs(table, out)


def _write_sorted_pairs(pairs: pa.Table, out: Path) -> None:
    """Cut pairs sorted by customer, time and visit into nested lists, and write them as an uncompressed Arrow file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pairs = pairs.combine_chunks()
    customers, visits = (pairs[name].to_numpy() for name in (_CUSTOMER, _VISIT))
    new_customer = np.flatnonzero(np.diff(customers, prepend=customers[:1] - 1))
    new_visit = np.flatnonzero(np.diff(visits, prepend=visits[:1] - 1) | np.diff(customers, prepend=customers[:1] - 1))
    visit_start = np.append(np.searchsorted(new_visit, new_customer), len(new_visit)).astype(np.int32)
    pair_start = np.append(new_visit, len(visits)).astype(np.int32)
    times = pc.cast(pairs[_TIME].take(new_visit), pa.timestamp("us")).combine_chunks()
    actions, counts = (pa.ListArray.from_arrays(pair_start, _one_chunk(pairs[name])) for name in (_ACTION, "count_all"))
    columns = {
        _CUSTOMER: _one_chunk(pairs[_CUSTOMER].take(new_customer)),
        _TIME: pa.ListArray.from_arrays(visit_start, _one_chunk(times)),
        _VISIT: pa.ListArray.from_arrays(visit_start, _one_chunk(pairs[_VISIT].take(new_visit))),
        _ACTION: pa.ListArray.from_arrays(visit_start, actions),
        "n": pa.ListArray.from_arrays(visit_start, counts),
    }
    table = pa.table(columns)
    with pa.OSFile(str(out / "histories.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


# ---- reading back ---------------------------------------------------------------------------------------------------


def _read_arrow(out: Path) -> Iterator[Block]:
    import pyarrow as pa

    with pa.memory_map(str(out / "histories.arrow")) as file:
        reader = pa.ipc.open_file(file)
        for at in range(reader.num_record_batches):
            batch = reader.get_batch(at)
            times, actions, counts = (batch.column(name) for name in (_TIME, _ACTION, "n"))
            yield _block(batch.column(_CUSTOMER), times, times.flatten(), actions.flatten(), counts.flatten().flatten())


def _block(customers: pa.Array, visits: pa.Array, times: pa.Array, actions: pa.Array, counts: pa.Array) -> Block:
    """Flatten one batch: `visits` gives the visits of each customer, `actions` lists the names in each visit."""
    import pyarrow as pa

    flat = actions.flatten()
    encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
    names = hash_names(encoded.dictionary.to_pylist())
    ids = encoded.indices.to_numpy(zero_copy_only=False)
    times = _microseconds(times)
    n_events = counts.to_numpy(zero_copy_only=False)
    return Block(hash_names(customers.to_pylist()), _starts(visits), times, _starts(actions), names[ids], n_events)


def _starts(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Where each list begins, and the end of the last, counted from 0."""
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _microseconds(times: pa.Array) -> npt.NDArray[np.int64]:
    import pyarrow as pa

    values: npt.NDArray[np.int64] = times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


WRITERS: dict[str, Callable[[Mapping[str, Any], Path], dict[str, float] | None]] = {
    "luckyfast": _write_with_luckyfast,
    "polars": _write_with_polars,
    "duckdb": _write_with_duckdb,
    "pyarrow": _write_with_pyarrow,
    "pandas": _write_with_pandas,
}
READERS: dict[str, Callable[[Path], Iterator[Block]]] = {
    "luckyfast": _read_luckyfast,
    "polars": _read_arrow,
    "duckdb": _read_duckdb,
    "pyarrow": _read_arrow,
    "pandas": _read_arrow,
}
