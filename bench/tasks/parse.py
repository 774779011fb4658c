"""The first two stages of ingest: a CSV log to typed columns in memory, on one core.

The log of the `ingest` task, and of its 17 columns the 4 that histories are made of: ids as integers (luckyfast: as
names of any form, numbered), times in microseconds, categories as numbered names; lines without a category dropped.
Everything is held in memory at the end. The result is four sums over those columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..histories import plan_log
from ..receipts import COLUMNS, CUSTOMER_SHIFT, read_receipts
from ..task import Inputs, Settings, Task
from .ingest import TASK as INGEST

__all__ = ["TASK", "ParseTask"]

_CUSTOMER, _TIME, _VISIT, _ACTION = (COLUMNS[role] for role in ("customer", "time", "visit", "action"))
_BLOCK_BYTES = 1 << 20
_STORE_BYTES = 1 << 34


class ParseTask:
    """See the module's text."""

    name = "parse"
    title = "parse: raw receipts (CSV) to typed columns in memory, one core"
    systems: Mapping[str, tuple[str, ...]] = {
        "luckyfast": ("luckyfast.ingestion.run",),
        "polars": ("polars",),
        "duckdb": ("duckdb",),
        "pyarrow": ("pyarrow.csv", "pyarrow.compute"),
        "pandas": ("pandas", "pyarrow.csv"),
    }
    default_runs = (5, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Take the log of the ingest task; add up the receipts themselves."""
        inputs = INGEST.prepare(cache, replace(settings, n_threads=1))
        lines = read_receipts([_CUSTOMER, _TIME, _ACTION]).drop_null()
        n_lines = settings.scale * lines.num_rows
        shifted = CUSTOMER_SHIFT * lines.num_rows * settings.scale * (settings.scale - 1) // 2
        customers = settings.scale * int(lines[_CUSTOMER].to_numpy().sum()) + shifted
        times = settings.scale * int((lines[_TIME].to_numpy().astype("datetime64[s]").astype(np.int64)).sum())
        letters = settings.scale * sum(len(name.encode()) for name in lines[_ACTION].to_pylist())
        return replace(inputs, expected=_show(n_lines, customers, times * 1_000_000, letters))

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Parse the log and add up its columns."""
        (out / "sums.txt").write_text(_show(*_PARSERS[system](values, out)), encoding="utf-8")
        return {}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str:
        """Show the sums."""
        del system, values
        return (out / "sums.txt").read_text(encoding="utf-8")


Sums = tuple[int, int, int, int]


def _show(n_lines: int, customers: int, times_us: int, letters: int) -> str:
    wrapped = times_us % 2**64  # it does not fit into 64 bits
    return f"{n_lines} lines, customers {customers}, times {wrapped:016x}, {letters} bytes of names"


def _parse_with_luckyfast(values: Mapping[str, Any], out: Path) -> Sums:
    from luckyfast.ingestion.feed import Feed
    from luckyfast.ingestion.parse import LookupTable, Parser, make_layout
    from luckyfast.ingestion.stream import Workspace

    plan = plan_log(values, out)
    layout = make_layout(plan.files[0], plan)
    feed, workspace = Feed(plan.files, _BLOCK_BYTES, 1), Workspace(_BLOCK_BYTES)
    parser = Parser(LookupTable(None), _STORE_BYTES)
    while (block := feed.next(workspace)) is not None:
        parser.parse(block, layout, None)
    store, names = parser.store, parser.customers
    stops = names.stops[: int(names.state[0]) + 1]
    arena = names.arena[: stops[-1]].tobytes()
    ids = np.array([int(arena[start:stop]) for start, stop in pairwise(stops)], np.int64)
    n = parser.n_fragments
    weights = store.n_actions[:n].astype(np.int64)
    sizes = np.diff(parser.actions.stops[: int(parser.actions.state[0]) + 1])
    customers = int((ids[store.customer[:n]] * weights).sum())
    letters = int((store.action_counts[: len(sizes)] * sizes).sum())
    return parser.n_events, customers, int((store.time[:n] * weights).sum()), letters


def _parse_with_polars(values: Mapping[str, Any], out: Path) -> Sums:
    import polars as pl

    del out
    types = {_CUSTOMER: pl.Int64, _VISIT: pl.Int64, _TIME: pl.String, _ACTION: pl.Categorical}
    lines = (
        pl.scan_csv(values["csv"], schema_overrides=types)
        .select(_CUSTOMER, _TIME, _VISIT, _ACTION)
        .filter(pl.col(_ACTION).is_not_null())
        .with_columns(pl.col(_TIME).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us"))
        .collect(engine="streaming")
    )
    counts = lines[_ACTION].value_counts()
    letters = (counts[_ACTION].cast(pl.String).str.len_bytes() * counts["count"]).sum()
    return lines.height, lines[_CUSTOMER].sum(), int(lines[_TIME].to_physical().to_numpy().sum()), letters


def _parse_with_duckdb(values: Mapping[str, Any], out: Path) -> Sums:
    import duckdb

    del out
    with Path(values["csv"]).open(encoding="utf-8") as file:
        header = file.readline().strip().split(",")
    types = {_CUSTOMER: "BIGINT", _VISIT: "BIGINT", _TIME: "TIMESTAMP"}
    columns = ", ".join(f"'{name}': '{types.get(name, 'VARCHAR')}'" for name in header)
    with duckdb.connect(config={"threads": 1, "preserve_insertion_order": False}) as connection:
        connection.execute(
            f"""CREATE TABLE lines AS SELECT {_CUSTOMER}, {_TIME}, {_VISIT}, {_ACTION}
            FROM read_csv('{values["csv"]}', header = true, delim = ',', quote = '', escape = '',
                          columns = {{{columns}}})
            WHERE {_ACTION} IS NOT NULL"""
        )
        found = connection.execute(
            f"SELECT count(*), sum({_CUSTOMER}), sum(epoch_us({_TIME})), sum(strlen({_ACTION})) FROM lines"
        ).fetchone()
    n_lines, customers, times, letters = (int(value) for value in found)
    return n_lines, customers, times, letters


def _parse_with_pyarrow(values: Mapping[str, Any], out: Path) -> Sums:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pc_csv

    del out
    pa.set_cpu_count(1)
    types = {
        _CUSTOMER: pa.int64(),
        _VISIT: pa.int64(),
        _TIME: pa.timestamp("ns"),
        _ACTION: pa.dictionary(pa.int32(), pa.string()),
    }
    convert = pc_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    read = pc_csv.ReadOptions(use_threads=False)
    lines = pc_csv.read_csv(values["csv"], read_options=read, convert_options=convert)
    lines = lines.filter(pc.is_valid(lines[_ACTION]))
    times = sum(int((chunk.cast(pa.int64()).to_numpy() // 1000).sum()) for chunk in lines[_TIME].chunks)
    counts = pc.value_counts(lines[_ACTION])
    names, n_lines = counts.field("values").cast(pa.string()), counts.field("counts")
    letters = pc.sum(pc.multiply(pc.binary_length(names), n_lines)).as_py()
    return lines.num_rows, pc.sum(lines[_CUSTOMER]).as_py(), times, letters


def _parse_with_pandas(values: Mapping[str, Any], out: Path) -> Sums:
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa

    del out
    pa.set_cpu_count(1)
    keys = [_CUSTOMER, _TIME, _VISIT, _ACTION]
    lines = pd.read_csv(values["csv"], usecols=keys, engine="pyarrow", dtype={_ACTION: "category"}, parse_dates=[_TIME])
    lines = lines.dropna(subset=[_ACTION])
    counts = lines[_ACTION].value_counts()
    letters = sum(len(name.encode()) * int(count) for name, count in counts.items())
    times = int(lines[_TIME].to_numpy().astype("datetime64[us]").astype(np.int64).sum())
    return len(lines), int(lines[_CUSTOMER].sum()), times, letters


_PARSERS: dict[str, Callable[[Mapping[str, Any], Path], Sums]] = {
    "luckyfast": _parse_with_luckyfast,
    "polars": _parse_with_polars,
    "duckdb": _parse_with_duckdb,
    "pyarrow": _parse_with_pyarrow,
    "pandas": _parse_with_pandas,
}

TASK: Task = ParseTask()
