"""Differential fuzzing: seeded dirty logs of every dialect and encoding, read by ingest and by the naive twins."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_logs import HEADER, FuzzLog, make_log

from luckyfast.ingestion.encodings import parse_encoding
from luckyfast.ingestion.plan import Dialect, FilePlan, IngestPlan, Roles, Source, TimeFormat
from luckyfast.ingestion.run import Budget, run_plan

MANY = [(seed, 4000) for seed in range(520)]
"""2,080,000 lines."""


def plan_of(log: FuzzLog, path: Path, out: Path) -> IngestPlan:
    """How to read the log, all given."""
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(log.data, 1) if packed else log.data)
    encoding = parse_encoding("utf-16-le" if log.encoding == "utf-16" else log.encoding)
    source = Source(
        path,
        "gzip" if packed else "none",
        path.stat().st_size,
        encoding=encoding,
        line_end="cr" if log.line_end == b"\r" else "lf",
    )
    header = bytes([log.delimiter]).join(name.encode() for name in HEADER)
    start = len(header) + (2 if log.line_end == b"\r\n" else 1)
    start += 3 * (log.encoding in ("utf-8-sig", "utf-16"))
    dialect = Dialect(log.delimiter, log.quote, True, HEADER, start)
    file = FilePlan(source, dialect, (1,), (2, 3), (4,), None)
    return IngestPlan(
        files=(file,),
        roles=Roles(("client",), ("day", "clock"), ("rayon",), None),
        time_format=TimeFormat("iso", has_clock=True),
        nulls={"time": (b"NULL",)},
        lookup=None,
        max_reject=1.0,
        memory_bytes=8 << 30,
        n_workers=2,
        temp=None,
        out=out,
        reasons={},
    )


def read_back(out: Path) -> Counter[tuple[str, int, str]]:
    """Every event of a dataset."""
    names = pq.read_table(out / "vocabulary.parquet")
    parts: list[str] = names["action"].to_pylist()
    events: Counter[tuple[str, int, str]] = Counter()
    for shard in sorted((out / "shards").glob("*.arrow")):
        found = pa.ipc.open_file(shard).read_all()
        times = found["visit_time"].cast(pa.list_(pa.int64())).to_pylist()
        rows = zip(
            found["customer"].to_pylist(), times, found["actions"].to_pylist(), found["counts"].to_pylist(), strict=True
        )
        for customer, moments, visits, counts in rows:
            for moment, actions, numbers in zip(moments, visits, counts, strict=True):
                for action, number in zip(actions, numbers, strict=True):
                    events[customer, moment, parts[action]] += number
    return events


def check(log: FuzzLog, tmp_path: Path, *, packed: bool, block_bytes: int, n_workers: int, name: str) -> None:
    """Ingest finds the events and rejects of the naive twins, at the same places."""
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    out = tmp_path / name
    plan = plan_of(log, path, out)
    summary = run_plan(plan, budget=Budget(n_workers, block_bytes, 1 << 24, 1 << 27))
    start = plan.files[0].dialect.header_stop
    rejects = [(*log.locate(start, offset, raw), reason) for offset, raw, reason in log.rows if reason]
    table: dict[str, list[Any]] = pq.read_table(out / "rejects").to_pydict()
    found = list(zip(table["byte_offset"], table["raw"], table["reason"], strict=True))
    assert found == rejects
    assert summary.counts["rows_read"] == len(log.rows)
    assert read_back(out) == Counter({(c, t, a.replace("\x1f", " / ")): n for (c, t, a), n in log.events.items()})


@pytest.mark.parametrize("seed", range(40))
def test_a_seeded_log_is_read_as_the_naive_twins_read_it(tmp_path: Path, seed: int) -> None:
    log = make_log(seed, 600)
    sizes = (1 << 12, 1 << 16)
    check(log, tmp_path, packed=seed % 2 == 0, block_bytes=sizes[seed % 2], n_workers=1 + seed % 3, name="out")


@pytest.mark.parametrize(
    "seed", [1000, 1001, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1002, 1030))]
)
@pytest.mark.parametrize("packed", [False, True])
def test_blocks_may_end_at_any_byte(tmp_path: Path, seed: int, packed: bool) -> None:
    log = make_log(seed, 5)
    for block_bytes in range(1, len(log.text) + 2, 1 if len(log.text) < 150 else 7):
        check(log, tmp_path, packed=packed, block_bytes=block_bytes, n_workers=2, name=f"out-{block_bytes}")


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "n_rows"), MANY)
def test_two_million_lines(tmp_path: Path, seed: int, n_rows: int) -> None:
    log = make_log(100_000 + seed, n_rows)
    check(log, tmp_path, packed=seed % 3 == 0, block_bytes=1 << (12 + seed % 9), n_workers=1 + seed % 2, name="out")
