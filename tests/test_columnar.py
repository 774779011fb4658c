"""Parquet and Arrow files: typed columns become the same events as their text would, in bounded batches."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_awkward_logs import ask, fill, run

from luckyfast.errors import InputError
from luckyfast.ingestion.columnar import ColumnarReader, sample_columns
from luckyfast.ingestion.plan import Dialect, FilePlan
from luckyfast.ingestion.sources import find_sources
from luckyfast.ingestion.stream import Workspace, row_bounds
from luckyfast.inspection import inspect_raw

DAYS = [datetime(2024, 5, 1) + timedelta(hours=7 * i) for i in range(300)]


def table(n: int = 300) -> pa.Table:
    return pa.table(
        {
            "customer_id": pa.array([None if i == 5 else i % 7 for i in range(n)], pa.int64()),
            "when": pa.array(DAYS[:n], pa.timestamp("us", "Europe/Paris")),
            "event": pa.array([{"type": f"e{i % 3}", "n": i} for i in range(n)]),
            "basket": pa.array([f"b{i // 2}" for i in range(n)]).dictionary_encode(),
            "tags": pa.array([["x"]] * n),
            "price": pa.array([i / 3 for i in range(n)]),
        }
    )


def write(found: pa.Table, path: Path, form: str) -> bytes:
    if form == "parquet":
        pq.write_table(found, path, row_group_size=70)
    else:
        with pa.ipc.new_file(str(path), found.schema) as writer:
            writer.write_table(found, max_chunksize=70)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_typed_columns_are_read(tmp_path: Path, form: str) -> None:
    data = write(table(), tmp_path / "log", form)
    options: dict[str, Any] = {"action": "event.type", "time": "when", "visit": "basket"}
    events, rejects, summary = run(tmp_path, {"log.bin": data}, **options)
    # a visit of one customer has the time of its first row
    first = {(i % 7, i // 2): str(DAYS[i]) for i in reversed(range(300)) if i != 5}
    assert events == sorted((str(i % 7), first[i % 7, i // 2], f"e{i % 3}") for i in range(300) if i != 5)
    assert rejects == {"missing_customer": 1}
    assert summary.roles["customer"][0] == ("customer_id",)
    (row,) = pq.read_table(tmp_path / "out" / "rejects").to_pylist()
    assert (row["byte_offset"], row["line"]) == (5, 6)
    shown = json.loads(row["raw"])
    assert (shown["customer_id"], shown["event.type"], shown["basket"]) == (None, "e2", "b2")
    mended, _, _ = run(tmp_path / "b", {"mended.jsonl": row["raw"].replace(b"null", b"5")}, **options)
    assert mended == [("5", str(DAYS[5]), "e2")]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_without_visits_each_row_keeps_its_time(tmp_path: Path, form: str) -> None:
    data = write(table(), tmp_path / "log", form)
    events, _, _ = run(tmp_path, {"log.bin": data}, action="event.type", time="when", visit="none")
    assert events == sorted((str(i % 7), str(DAYS[i]), f"e{i % 3}") for i in range(300) if i != 5)


def test_types_of_time_and_of_ids(tmp_path: Path) -> None:
    columns: dict[str, pa.Array] = {
        "day": pa.array([date(2024, 5, 1)]),
        "ms": pa.array([1714557600000], pa.timestamp("ms")),
        "ns": pa.array([1714557600123456789], pa.timestamp("ns")),
        "utc": pa.array([1714557600000000], pa.timestamp("us", "UTC")),
        "text": pa.array(["2024-05-01T10:00:00Z"], pa.large_string()),
        "number": pa.array([1714557600], pa.int32()),
    }
    expected = ["00:00:00", "10:00:00", "10:00:00.123456", "10:00:00", "10:00:00", "10:00:00"]
    ids: list[pa.Array] = [
        pa.array([17850.0]),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array(["007"]),
        pa.array([b"x"]),
        pa.array([True]),
        pa.array([12], pa.decimal128(5, 2)),
    ]
    names = ["17850", str(2**64 - 1), "007", "x", "true", "12.00"]
    for i, (name, column) in enumerate(columns.items()):
        found = pa.table({"client": ids[i], name: column, "rayon": ["é"]})
        data = write(found, tmp_path / "log", "parquet")
        events, _, _ = run(tmp_path / name, {"log.parquet": data}, time=name)
        assert events == [(names[i], f"2024-05-01 {expected[i]}", "é")]


def test_bytes_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    found = pa.table(
        {"client": pa.array([b"a", b"\xff", b"\xfe", b""]), "date": ["2024-05-01"] * 4, "rayon": ["x"] * 4}
    )
    events, rejects, _ = run(tmp_path, {"log.parquet": write(found, tmp_path / "log", "parquet")})
    assert (len(events), rejects) == (1, {"bad_encoding": 2, "missing_customer": 1})


def test_values_may_hold_any_byte(tmp_path: Path) -> None:
    names = ["a\nb", "a\x1eb", 'a"b', "a,b", "a\r", " a", "\\N x"]
    found = pa.table({"client": names, "date": ["2024-05-01"] * 7, "rayon": names})
    events, rejects, _ = run(tmp_path, {"log.parquet": write(found, tmp_path / "log", "parquet")})
    assert (events, rejects) == (sorted((name, "2024-05-01 00:00:00", name) for name in names), {})


def test_a_log_may_lie_partly_in_text_and_partly_in_columns(tmp_path: Path) -> None:
    found = pa.table({"rayon": ["x"], "client": [7], "date": pa.array([datetime(2024, 5, 2, 10)], pa.timestamp("us"))})
    files = {
        "a.csv": b"client,date,rayon\n" + b"7,2024-05-01 09:00,y\n8,2024-05-01 09:00,y\n" * 20,
        "b.parquet": write(found, tmp_path / "log", "parquet"),
        "c.jsonl": b'{"client": 7, "date": "2024-05-03T08:00:00+02:00", "rayon": "z"}\n',
    }
    events, rejects, _ = run(tmp_path, files)
    assert (len(events), rejects) == (42, {})
    assert ("7", "2024-05-02 10:00:00", "x") in events
    assert ("7", "2024-05-03 06:00:00", "z") in events


def test_equal_rows_are_equal_in_all_columns(tmp_path: Path) -> None:
    found = pa.table({"client": [1, 1, 1], "date": ["2024-05-01"] * 3, "rayon": ["x"] * 3, "price": [1.0, 2.0, 2.0]})
    data = write(found, tmp_path / "log", "parquet")
    _, _, summary = run(tmp_path, {"log.parquet": data}, drop_duplicates=True)
    assert summary.counts["duplicates_removed"] == 1
    lines = b'{"client":1,"date":"2024-05-01","rayon":"x","price":1}\n' + (
        b'{"client":1,"date":"2024-05-01","rayon":"x","price":2}\n' * 2
    )
    _, _, summary = run(tmp_path / "b", {"log.jsonl": lines}, drop_duplicates=True)
    assert summary.counts["duplicates_removed"] == 1


def test_rules_see_typed_columns(tmp_path: Path) -> None:
    data = write(table(), tmp_path / "log", "parquet")
    _, _, summary = run(
        tmp_path, {"log.parquet": data}, action="event.type", time="when", visit="none", where="event.n >= 100"
    )
    assert (summary.counts["events"], summary.counts["filtered"]) == (200, 100)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    data = bytearray(write(table(), tmp_path / "log", "parquet"))
    data[50:2000] = bytes(1950)
    with pytest.raises(InputError, match=r"log\.parquet is a Parquet file but damaged or cut short"):
        run(tmp_path, {"log.parquet": bytes(data)}, action="event.type", time="when")
    ask(tmp_path / "b", {"log.parquet": write(table(), tmp_path / "log", "parquet")[:-4]}, "")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_reading_can_go_on_behind_any_row(tmp_path: Path, form: str) -> None:
    write(table(), tmp_path / "log", form)
    (source,) = find_sources([tmp_path / "log"])
    assert source.form == form
    names, _ = sample_columns(source, 10)
    plan = FilePlan(source, Dialect(0x1F, None, True, tuple(names), 0), (0,), (1,), (2,), None)
    whole = read_rows(ColumnarReader(0, plan))
    row_bytes = source.size_bytes // 300
    assert [offset for offset, _ in whole] == [row * row_bytes for row in range(300)]
    for row in (0, 1, 69, 70, 71, 299, 300):
        assert read_rows(ColumnarReader(0, plan, row * row_bytes)) == whole[row:]


def read_rows(reader: ColumnarReader) -> list[tuple[int, bytes]]:
    """The number and the text of each row."""
    rows: list[tuple[int, bytes]] = []
    workspace = Workspace(100)
    while (found := reader.cut(workspace)) is not None:
        block = reader.index(*found)
        starts, ends = row_bounds(block, np.arange(block.rows[1]))
        text = workspace.buffer.tobytes()
        share = block.n_bytes // block.rows[1]
        rows += [(block.offset + i * share, text[a:b]) for i, (a, b) in enumerate(zip(starts, ends, strict=True))]
    return rows


def test_columnar_files_can_be_inspected(tmp_path: Path) -> None:
    fill(tmp_path, {"log.parquet": write(table(), tmp_path / "log", "parquet")})
    found = inspect_raw(tmp_path / "log.parquet", action="event.type", time="when", visit="none")
    assert found.sample.counts["events"] == 299
