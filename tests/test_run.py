"""Whole runs of ingest against a naive reader, for every division of work and memory, and with faults on the way."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from naive_ingest import write_dataset
from naive_reader import read_rows
from naive_times import naive_time

from luckyfast.errors import BudgetError, InputError, OutputExistsError
from luckyfast.ingestion import giants, ingest, run, shards
from luckyfast.ingestion.disk import check_disk
from luckyfast.ingestion.plan import Dialect, FilePlan, IngestPlan, Lookup, Roles, Rules, Source, TimeFormat
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.ingestion.turns import SWITCH_INTERVAL_S
from luckyfast.progress import NullProgress

HEADER = b"store,customer,day,clock,action,visit\n"
ONE = Budget(1, 1 << 20, 1 << 26, 1 << 28)


def dirty_log(seed: int, n_rows: int) -> bytes:
    """Rows of receipts, many of them faulty in many ways."""
    draw = random.Random(seed)
    lines = []
    basket, customer, minute = 0, b"0", 0
    for _ in range(n_rows):
        if draw.random() < 0.3:
            basket, customer = draw.randrange(3000), b"%d" % int(draw.expovariate(0.01))
            minute += draw.randrange(-5, 50)
        visit = b"%d" % basket if draw.random() < 0.98 else b""
        action = draw.choice(
            [b"milk", b"bread", b'"a, b"', b'"say ""hi"""', b'5" pipe', b'"two\nlines"', b"caf\xc3\xa9"]
        )
        if draw.random() < 0.03:
            action = draw.choice([b"", b"NA", b"\xff\xfe", b'"open'])
        day = b"2017-01-%02d" % (1 + minute // 1440 % 28)
        clock = b"%02d:%02d" % (minute // 60 % 24, minute % 60)
        if draw.random() < 0.02:
            day = draw.choice([b"", b"2017-02-30", b"yesterday"])
        row = [b"s%d" % draw.randrange(9), customer if draw.random() < 0.98 else b"", day, clock, action, visit]
        if draw.random() < 0.02:
            row = draw.choice([row[:-1], [*row, b"more"], [b""]])
        lines.append(b",".join(row) + draw.choice([b"\n", b"\r\n"]))
    return HEADER + b"".join(lines)


def make_plan(paths: list[Path], out: Path, *, visit: bool = True, **changes: Any) -> IngestPlan:
    files = []
    for path in paths:
        compression = "gzip" if path.suffix == ".gz" else "none"
        dialect = Dialect(44, 34, True, tuple(HEADER.decode().strip().split(",")), len(HEADER))
        source = Source(path, compression, path.stat().st_size)  # type: ignore[arg-type]
        files.append(FilePlan(source, dialect, (1,), (2, 3), (4,), (5,) if visit else None))
    settings = {
        "files": tuple(files),
        "roles": Roles(("customer",), ("day", "clock"), ("action",), ("visit",) if visit else None),
        "time_format": TimeFormat("iso", has_clock=True),
        "nulls": {"action": (b"NA",)},
        "lookup": None,
        "max_reject": 1.0,
        "memory_bytes": 8 << 30,
        "n_workers": 2,
        "temp": None,
        "out": out,
        "reasons": {},
    }
    return IngestPlan(**{**settings, **changes})


def naive_events(
    data: bytes, lookup: dict[bytes, bytes] | None = None
) -> Iterator[tuple[int, bytes, str, tuple[Any, ...] | None]]:
    """(offset, raw, reason, event) of each row of a log."""
    offset = len(HEADER)
    for at, raw, fields in read_rows(data[offset:], 44, 34):
        reason, event = "", None
        if fields is None:
            reason = "unclosed_quote"
        elif len(fields) != 6:
            reason = "field_count"
        else:
            _, customer, day, clock, action, visit = fields
            time = naive_time((day + b" " + clock).decode(), TimeFormat("iso"))
            found = action if lookup is None else lookup.get(action)
            if not customer:
                reason = "missing_customer"
            elif not day or not clock:
                reason = "missing_time"
            elif time is None:
                reason = "bad_time"
            elif action in (b"", b"NA"):
                reason = "missing_action"
            elif found is None:
                reason = "unmatched_lookup"
            elif not found:
                reason = "missing_action"
            else:
                try:
                    event = (customer.decode(), time, found.decode(), visit.decode() or None)
                except UnicodeDecodeError:
                    reason = "bad_encoding"
        yield offset + at, raw, reason, event


def read_folder(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    for i in range(3):
        data = dirty_log(i, 4000)
        (folder / f"{i}.csv").write_bytes(data)
        (folder / f"{i}.csv.gz").write_bytes(gzip.compress(data[:9999]) + gzip.compress(data[9999:]))
    return [folder / "0.csv", folder / "1.csv.gz", folder / "2.csv"]


@pytest.mark.parametrize("visit", [True, False])
def test_run_matches_naive_twin(logs: list[Path], tmp_path: Path, visit: bool) -> None:
    summary = run_plan(make_plan(logs, tmp_path / "out", visit=visit), budget=ONE)
    events, rejects, n_rows = [], [], 0
    for path in logs:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        for offset, raw, reason, event in naive_events(data):
            n_rows += 1
            if event:
                customer, time, action, session = event
                events.append((customer, time, action, session if visit else None))
            else:
                rejects.append((str(path), offset, data.count(b"\n", 0, offset) + 1, reason, raw))
    naive = write_dataset(events, tmp_path / "naive")
    for name in ("vocabulary.parquet", "shards/part-00000.arrow"):
        assert (summary.path / name).read_bytes() == (naive / name).read_bytes()
    manifest, expected = (json.loads((path / "manifest.json").read_text()) for path in (summary.path, naive))
    assert manifest["counts"] == expected["counts"] | {"rows_read": n_rows, "rejected": len(rejects)}
    assert manifest["time"] == expected["time"]
    assert manifest["shards"] == expected["shards"]
    assert manifest["rejects_by_reason"] == Counter(reason for _, _, _, reason, _ in rejects)
    table = pq.read_table(summary.path / "rejects" / "part-00000.parquet")
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == rejects
    assert len(set(manifest["rejects_by_reason"])) == 7


@pytest.mark.parametrize(
    "budget",
    [
        Budget(2, 1 << 16, 1 << 26, 1 << 28),
        Budget(4, 1 << 12, 1 << 26, 1 << 28),
        Budget(1, 777, 240_000, 1 << 28),
        Budget(4, 1 << 14, 240_000, 1 << 23),
    ],
    ids=["2 workers", "4 workers", "tiny blocks, spills", "4 workers, spills"],
)
def test_output_is_the_same_for_any_division_of_work(logs: list[Path], tmp_path: Path, budget: Budget) -> None:
    # enough rows for many stores of the smallest kind
    big = tmp_path / "big.csv"
    big.write_bytes(dirty_log(7, 60_000))
    paths = [*logs, big]
    first = run_plan(make_plan(paths, tmp_path / "a"), budget=ONE)
    assert first.n_spilled_runs == 0
    temp = tmp_path / "temp"
    temp.mkdir()
    other = run_plan(make_plan(paths, tmp_path / "b", temp=temp), budget=budget)
    assert (other.n_spilled_runs > 1) == (budget.store_bytes < 1 << 26)
    assert read_folder(first.path) == read_folder(other.path)
    assert not list(temp.iterdir())


def test_cuts_depend_on_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small batches and shards, as the naive twin cuts them."""
    monkeypatch.setattr(shards, "BATCH_PAIRS", 50)
    monkeypatch.setattr(shards, "SHARD_BATCHES", 3)
    log = tmp_path / "log.csv"
    log.write_bytes(dirty_log(3, 3000))
    summary = run_plan(make_plan([log], tmp_path / "out"), budget=Budget(2, 1 << 12, 1 << 26, 1 << 20))
    events = [event for _, _, _, event in naive_events(log.read_bytes()) if event]
    naive = write_dataset(events, tmp_path / "naive", batch_pairs=50, shard_batches=3)  # type: ignore[arg-type]
    assert read_folder(summary.path / "shards") == read_folder(naive / "shards")
    assert len(read_folder(naive / "shards")) > 3


@pytest.mark.parametrize(
    ("n_workers", "spills", "has_small"), [(1, False, True), (4, False, False), (1, True, False), (4, True, True)]
)
def test_giant_customers_are_sorted_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int, spills: bool, has_small: bool
) -> None:
    """Customers too large for the merge's memory, among small ones, give the bytes that the naive twin writes."""
    monkeypatch.setattr(shards, "BATCH_PAIRS", 50)
    monkeypatch.setattr(run, "BATCH_PAIRS", 50)
    monkeypatch.setattr(shards, "SHARD_BATCHES", 3)
    draw = random.Random(5)
    lines = []
    for customer, n_rows, n_visits in [(b"giant", 30_000, 5000), (b"twin", 9000, 900), (b"one visit", 20_000, 1)]:
        for _ in range(n_rows):
            visit = draw.randrange(n_visits)
            day = b"2017-01-%02d" % draw.randrange(1, 4 if customer == b"giant" else 29)
            lines.append(b"s,%s,%s,10:00,a%d,%s-%d\n" % (customer, day, draw.randrange(40), customer, visit))
    lines += [
        b"s,%d,2017-01-01,10:00,a%d,%d\n" % (draw.randrange(500), draw.randrange(40), i // 3)
        for i in range(3000 if has_small else 0)
    ]
    draw.shuffle(lines)
    log = tmp_path / "log.csv"
    log.write_bytes(HEADER + b"".join(lines))
    division = Budget(n_workers, 1 << 14, 300_000 if spills else 1 << 26, 0)
    held = 0 if spills else 2_400_000
    plan = make_plan([log], tmp_path / "out")
    summary = run_plan(plan, budget=replace(division, merge_bytes=held + 200_000 * (n_workers + 2)))
    assert (summary.n_spilled_runs > 0) == spills
    events = [event for _, _, _, event in naive_events(log.read_bytes()) if event]
    naive = write_dataset(events, tmp_path / "naive", batch_pairs=50, shard_batches=3)  # type: ignore[arg-type]
    assert read_folder(summary.path / "shards") == read_folder(naive / "shards")


@pytest.fixture
def sorted_on_disk(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the customers that were sorted on disk."""
    names: list[bytes] = []
    sort = giants._sort_giant

    def listen(units: Any, unit: int, *rest: Any) -> Any:
        names.append(units.name(unit))
        return sort(units, unit, *rest)

    monkeypatch.setattr(giants, "_sort_giant", listen)
    return names


def repetitive_log(seed: int) -> bytes:
    """Two large customers and small ones, of whose rows many come again: at once, later, and one all the time."""
    draw = random.Random(seed)
    lines: list[bytes] = []
    for i in range(30_000):
        customer = draw.choice([b"giant", b"giant", b"twin", b"%d" % draw.randrange(300)])
        visit, minute = draw.randrange(2000), draw.randrange(60)
        line = b"s%d,%s,2017-01-%02d,10:%02d,a%d,%s-%d\n" % (
            draw.randrange(3),
            customer,
            1 + visit % 28,
            minute,
            draw.randrange(9),
            customer,
            visit,
        )
        lines += [line] * draw.choice([1, 1, 1, 2, 3])
        if i % 4 == 0:
            lines += [b"s,giant,2017-02-01,11:00,a0,giant-x\n", draw.choice(lines)]
    return HEADER + b"".join(lines)


@pytest.mark.parametrize(("n_workers", "spills"), [(1, False), (2, True)])
@pytest.mark.parametrize("rules", [Rules(drop_duplicates=True), Rules(drop_duplicates=True, min_visits=15)])
def test_equal_rows_of_giant_customers_are_dropped_on_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sorted_on_disk: list[bytes],
    n_workers: int,
    spills: bool,
    rules: Rules,
) -> None:
    """In memory and on disk the same rows stay: one of each."""
    monkeypatch.setattr(run, "BATCH_PAIRS", 50)
    monkeypatch.setattr(shards, "BATCH_PAIRS", 50)
    data = repetitive_log(3)
    log = tmp_path / "log.csv"
    log.write_bytes(data)
    in_memory = run_plan(make_plan([log], tmp_path / "a", rules=rules), budget=ONE)
    assert not sorted_on_disk
    held = 0 if spills else 3_500_000
    small = Budget(n_workers, 1 << 14, 300_000 if spills else 1 << 26, held + 200_000 * (n_workers + 2))
    on_disk = run_plan(make_plan([log], tmp_path / "b", rules=rules), budget=small)
    assert (on_disk.n_spilled_runs > 0) == spills
    assert {b"giant", b"twin"} <= set(sorted_on_disk)
    assert read_folder(in_memory.path) == read_folder(on_disk.path)
    n_rows, n_distinct = data.count(b"\n") - 1, len(set(data.splitlines())) - 1
    assert on_disk.counts["duplicates_removed"] == n_rows - n_distinct > 10_000


def test_lookup(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(dirty_log(5, 3000))
    table = {b"milk": b"dairy", b"bread": b"bakery", b"a, b": b"bakery", b'5" pipe': b"", b"never seen": b"nothing"}
    starts = np.cumsum([0, *map(len, table)]).astype(np.int64)
    lookup = Lookup(
        log,
        "action",
        len(table),
        np.frombuffer(b"".join(table), np.uint8),
        starts,
        tuple(v.decode() for v in table.values()),
    )
    summary = run_plan(make_plan([log], tmp_path / "out", lookup=lookup), budget=ONE)
    rows = list(naive_events(log.read_bytes(), table))
    naive = write_dataset([event for _, _, _, event in rows if event], tmp_path / "naive")  # type: ignore[misc]
    assert read_folder(summary.path / "shards") == read_folder(naive / "shards")
    assert summary.rejects_by_reason == Counter(reason for _, _, reason, _ in rows if reason)
    assert {"unmatched_lookup", "missing_action"} <= set(summary.rejects_by_reason)
    assert (
        pa.table({"a": ["<unknown>", "bakery", "dairy"]})["a"]
        == pq.read_table(summary.path / "vocabulary.parquet")["action"]
    )


class Listener(NullProgress):
    """Adds up what it hears."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}

    def start(self, stage: str, total: float | None, unit: str) -> None:
        assert total is not None
        self.stages[stage] = [total, 0.0]

    def advance(self, amount: float) -> None:
        self.stages[list(self.stages)[-1]][1] += amount


def test_progress_tells_bytes_on_disk(logs: list[Path], tmp_path: Path) -> None:
    """Of packed files too, so that the time left can be told."""
    packed = []
    for name, pack in (("a.csv.bz2", bz2.compress), ("b.csv.gz", gzip.compress)):
        packed.append(tmp_path / name)
        packed[-1].write_bytes(pack(dirty_log(8, 20_000)))
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c.csv", dirty_log(9, 1000))
    heard = Listener()
    ingest(
        [*logs, *packed, tmp_path / "c.zip"],
        tmp_path / "out",
        customer="customer",
        time="day,clock",
        action="action",
        visit="visit",
        max_reject=1.0,
        memory="8GB",
        progress=heard,
    )
    total, done = heard.stages["Reading"]
    assert done == total
    assert total >= sum(path.stat().st_size for path in (*logs, *packed))


class Interrupt(NullProgress):
    """Presses Ctrl-C once the first stage is on its way."""

    def advance(self, amount: float) -> None:
        raise KeyboardInterrupt


def test_nothing_is_left_behind(logs: list[Path], tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_plan(make_plan(logs, tmp_path / "out", temp=temp), progress=Interrupt(), budget=ONE)
    with pytest.raises(InputError, match=r"rows .* were rejected: missing_customer 237, missing_action") as caught:
        run_plan(make_plan(logs, tmp_path / "out", temp=temp, max_reject=0.01), budget=ONE)
    assert "--max-reject" in (caught.value.hint or "")
    gone = make_plan(logs, tmp_path / "out", temp=temp)
    with pytest.raises(BudgetError, match="MiB"):
        run_plan(make_plan(logs, tmp_path / "out", temp=temp, memory_bytes=1 << 26))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(dirty_log(1, 5000))[:-3000])
    with pytest.raises(InputError, match="damaged or cut short"):
        run_plan(make_plan([logs[0], cut], tmp_path / "out", temp=temp), budget=Budget(2, 1 << 14, 1 << 26, 1 << 28))
    cut.unlink()
    temp.rmdir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError):
        run_plan(gone, budget=ONE)


class Scales(NullProgress):
    """Weighs a folder of files that are passing, again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.most_bytes = 0

    def start(self, stage: str, total: float | None, unit: str) -> None:
        self.advance(0.0)

    def advance(self, amount: float) -> None:
        n_bytes = 0
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):
                n_bytes += path.stat().st_size
        self.most_bytes = max(self.most_bytes, n_bytes)


def row_of_loyal(i: int, draw: random.Random) -> bytes:
    return b"s,%032d,2017-01-01,10:00,a%d,%d\n" % (draw.randrange(500), draw.randrange(300), i // 8)


def row_of_new(i: int, draw: random.Random) -> bytes:
    return b"s,%040d,2017-01-01,10:00,a%d,%d\n" % (i // 3, draw.randrange(300), i // 3)


def row_of_pages(i: int, draw: random.Random) -> bytes:
    page = b"https://shop.example.com/department/%d/article/%06d" % (i % 7, int(draw.paretovariate(0.5)) % 40_000)
    return b"s,%036d,2017-01-%02d,10:%02d,%s,\n" % (draw.randrange(9000), 1 + i // 9000, i % 60, page)


@pytest.mark.parametrize("row", [row_of_loyal, row_of_new, row_of_pages])
@pytest.mark.parametrize(("n_workers", "rules"), [(1, Rules()), (3, Rules(drop_duplicates=True))])
def test_what_is_used_of_the_disk_was_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Any, n_workers: int, rules: Rules
) -> None:
    """Names of customers and actions included, and not many times too much."""
    foreseen: list[int] = []

    def listen(needed: dict[Path, int]) -> None:
        foreseen.extend(needed.values())
        check_disk(needed)

    monkeypatch.setattr(run, "check_disk", listen)
    draw = random.Random(6)
    log, temp = tmp_path / "log.csv", tmp_path / "temp"
    log.write_bytes(HEADER + b"".join(row(i, draw) for i in range(200_000)))
    temp.mkdir()
    scales = Scales(temp)
    plan = make_plan([log], tmp_path / "out", temp=temp, rules=rules)
    summary = run_plan(plan, budget=Budget(n_workers, 1 << 16, 2_000_000, 1 << 28), progress=scales)
    assert summary.n_spilled_runs >= n_workers
    spilled, written = foreseen
    n_bytes = sum(map(len, read_folder(summary.path).values()))
    assert scales.most_bytes <= spilled <= 3 * scales.most_bytes + (8 << 20)
    assert n_bytes <= written


def test_too_little_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_disk({tmp_path: free // 4})
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match=r"GB will be written to .*other, where .* are free") as caught:
        check_disk({tmp_path: 3 * free // 4, other: free})
    assert "--temp" in (caught.value.hint or "")


def test_spills_that_will_not_fit_stop_the_run(tmp_path: Path) -> None:
    """On a disk of 1 MB the run stops at its first spill, with nothing written."""
    temp, log = tmp_path / "temp", tmp_path / "log.csv"
    temp.mkdir()
    # far more than fits, since what one worker holds is only a rough sample of what was read
    log.write_bytes(dirty_log(2, 240_000))
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from luckyfast.errors import InputError
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.ingestion.turns import SWITCH_INTERVAL_S
from test_run import make_plan
plan = make_plan([Path({str(log)!r})], Path({str(tmp_path / "out")!r}), temp=Path({str(temp)!r}))
try:
    run_plan(plan, budget=Budget(2, 1 << 14, 240_000, 1 << 26))
except InputError as error:
    print(error.message, list(Path({str(temp)!r}).iterdir()))
"""
    mounted = f"mount -t tmpfs -o size=1m none {temp} && exec {sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("a small disk cannot be mounted here")
    assert " will be written to " in done.stdout, done.stderr
    assert done.stdout.endswith(" []\n")
    assert sorted(tmp_path.iterdir()) == [log, temp]


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(dirty_log(2, 20_000))
    code = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from luckyfast.errors import InputError
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.ingestion.turns import SWITCH_INTERVAL_S
from test_run import make_plan
plan = make_plan([Path({str(log)!r})], Path({str(tmp_path / "out")!r}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    run_plan(plan, budget=Budget(2, 1 << 14, 240_000, 1 << 26))
except InputError as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == f"the disk is full (writing to {tmp_path})\n"
    assert list(tmp_path.iterdir()) == [log]


def test_sorted_rows_inside_visits_are_reported(tmp_path: Path) -> None:
    draw = random.Random(1)
    leaks = []
    for is_sorted in (True, False):
        lines = []
        for visit in range(300):
            actions = draw.sample(range(1000), 6)
            rows = sorted(actions) if is_sorted else actions
            lines += [b"s,%d,2017-01-01,10:00,%d,%d\n" % (visit % 7, action, visit) for action in rows]
        log = tmp_path / f"{is_sorted}.csv"
        log.write_bytes(HEADER + b"".join(lines))
        leaks.append(run_plan(make_plan([log], tmp_path / f"out-{is_sorted}"), budget=ONE).order_leak)
    assert leaks[0]["suspicious"] is True
    assert leaks[0]["column"] == "action"
    assert leaks[1]["suspicious"] is False


class Companion(NullProgress):
    """Begins another run once its own has begun, and ends before it: `hold` is waited for."""

    def __init__(self, begun: threading.Event, hold: threading.Event) -> None:
        self._begun, self._hold = begun, hold

    def start(self, stage: str, total: float | None, unit: str) -> None:
        if not self._begun.is_set():
            self._begun.set()
            assert self._hold.wait(60)


def test_runs_that_overlap_leave_the_interpreter_as_it_was(logs: list[Path], tmp_path: Path) -> None:
    """The first to begin is the first to end; turns stay short for the other, and are as before in the end."""
    before = sys.getswitchinterval()
    assert before > SWITCH_INTERVAL_S
    events = [threading.Event() for _ in range(4)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_plan, make_plan(logs, tmp_path / "a"), budget=ONE, progress=Companion(*events[:2]))
        assert events[0].wait(60)
        second = pool.submit(run_plan, make_plan(logs, tmp_path / "b"), budget=ONE, progress=Companion(*events[2:]))
        assert events[2].wait(60)
        events[1].set()
        first.result()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
        events[3].set()
        second.result()
    assert sys.getswitchinterval() == before
    assert read_folder(tmp_path / "a") == read_folder(tmp_path / "b")
