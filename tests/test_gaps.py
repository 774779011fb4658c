"""Logs that say how many days lie between a customer's orders: days are added up once an order, in whatever order,
number of files, memory and portions the rows come.
"""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dataset_files import contents, manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_ingest import write_dataset

from luckyfast.dataset import Dataset
from luckyfast.errors import SchemaError
from luckyfast.ingest_report import print_ingest_summary
from luckyfast.ingestion import giants, ingest, run, shards
from luckyfast.ingestion.plan import Roles, TimeFormat
from luckyfast.ingestion.planning import make_plan
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.moments import format_moment

HEADER = "user_id,order_id,order_number,days_since_prior_order,product_id\n"
TIME = ("order_number", "days_since_prior_order")
DAY = 86_400_000_000
Row = tuple[str, str, str, str, str]


def draw_log(seed: int, n_orders: int, n_customers: int = 40) -> list[Row]:
    """Orders of several products in any order of rows, a few dirty: gaps that lack or differ, shared numbers."""
    draw = random.Random(seed)
    n_of: dict[int, int] = defaultdict(int)
    rows: list[Row] = []
    for order in range(n_orders):
        customer = int(draw.expovariate(4 / n_customers))
        n_of[customer] += draw.choice([1, 1, 1, 1, 2, 0])
        number = n_of[customer]
        gap = "" if number <= 1 else draw.choice(["0", "7.0", "30", "365.0", "NaN", str(draw.randrange(31))])
        for _ in range(draw.choice([1, 2, 5])):
            dirty = draw.random() < 0.03
            shown = draw.choice(["", "3", "1", "2.5", "-1", "9000"]) if dirty else gap
            place = draw.choice(["", str(number + 1), "x", "9000000"]) if draw.random() < 0.02 else str(number)
            rows.append((f"u{customer}", f"o{order}", place, shown, f"p{draw.randrange(20)}"))
    draw.shuffle(rows)
    return rows


def write_files(folder: Path, rows: list[Row], borders: list[int]) -> list[Path]:
    folder.mkdir()
    edges = [0, *sorted(borders), len(rows)]
    files = []
    for i, (first, stop) in enumerate(pairwise(edges)):
        files.append(folder / f"{i}.csv")
        files[-1].write_text(HEADER + "".join(",".join(row) + "\n" for row in rows[first:stop]))
    return files


def parse(row: Row) -> tuple[int, int] | None:
    """The number of a row's order and its days, or None where the row is rejected."""
    if not row[2].isdigit() or int(row[2]) >= 2**23:
        return None
    days = row[3].removesuffix(".0").replace("NaN", "") or "0"
    return (int(row[2]), int(days)) if days.isdigit() and int(days) < 2**13 else None


def naive_rows(rows: list[Row]) -> list[tuple[str, int, str, str]]:
    """Each accepted row with the time that its visit must have in the end."""
    visits: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for row in rows:
        if (parsed := parse(row)) is not None:
            own = (parsed[0], -parsed[1])
            visits[row[0]][row[1]] = min(own, visits[row[0]].get(row[1], own))
    times: dict[tuple[str, str], int] = {}
    for customer, orders in visits.items():
        day, longest = 0, dict[int, int]()
        for number, gap in orders.values():
            longest[number] = max(longest.get(number, 0), -gap)
        day_of = {}
        for i, number in enumerate(sorted(longest)):
            day += longest[number] if i else 0
            day_of[number] = day
        for order, (number, gap) in orders.items():
            times[customer, order] = day_of[number] * DAY + number * 2**13 + 2**13 - 1 + gap
    return [(row[0], times[row[0], row[1]], row[4], row[1]) for row in rows if parse(row) is not None]


def test_instacart_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The days of the orders are the sums of the days between them, however many rows an order has."""
    rows = [("1", "11", "1", "", p) for p in "ab"] + [("1", "12", "2", "15.0", p) for p in "abc"]
    rows += [("1", "13", "3", "0.0", "a"), ("1", "14", "4", "30.0", "b"), ("2", "21", "7", "9.0", "a")]
    (file,) = write_files(tmp_path / "raw", rows, [])
    summary = ingest(file, tmp_path / "out", action="product_id", memory="8GB")
    assert summary.roles["time"][0] == TIME
    assert summary.counts["rejected"] == 0
    assert summary.time_kind == "clock"
    assert summary.times_are_relative
    print_ingest_summary(summary, as_json=False)
    assert "45 days from a customer's first visit on" in capsys.readouterr().out
    (batch,) = Dataset.open(tmp_path / "out").batches()
    edges = pairwise(batch.visit_start.tolist())
    times = {
        name: [format_moment(time, "clock") for time in batch.visit_time[a:b].tolist()]
        for name, (a, b) in zip(batch.customers.to_pylist(), edges, strict=True)
    }
    assert [time[:10] for time in times["1"]] == ["1970-01-01", "1970-01-16", "1970-01-16", "1970-02-15"]
    assert [time[:10] for time in times["2"]] == ["1970-01-01"]
    assert {time[11:16] for own in times.values() for time in own} == {"00:00"}
    assert manifest(tmp_path / "out")["time"]["max"] == max(batch.visit_time.tolist())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.lists(st.integers(100, 900), max_size=3, unique=True), st.data())
def test_days_are_added_up_once_an_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, borders: list[int], data: st.DataObject
) -> None:
    """As the naive twin does, at once and in any portions, with and without ids of orders."""
    folder = tmp_path_factory.mktemp("gaps")
    rows = draw_log(seed, 400)
    files = write_files(folder / "raw", rows, borders)
    roles = {"customer": "user_id", "action": "product_id", "time": list(TIME), "memory": "8GB", "max_reject": 0.5}
    roles["visit"] = data.draw(st.sampled_from(["order_id", "none"]))
    summary = ingest(files, folder / "at once", **roles)  # type: ignore[arg-type]
    if roles["visit"] == "order_id":
        expected = naive_rows(rows)
        naive = write_dataset(expected, folder / "naive", has_days=False)  # type: ignore[arg-type]
        assert contents(folder / "at once") == contents(naive)
        assert summary.counts["rejected"] == len(rows) - len(expected)
        assert manifest(folder / "at once")["time"] == manifest(naive)["time"] | {"relative": True}
    left = files
    while left:
        n = data.draw(st.integers(1, len(left)))
        if left is files:
            ingest(left[:n], folder / "grown", **roles)  # type: ignore[arg-type]
        else:
            ingest(left[:n], folder / "grown", append=True, max_reject=0.5)
        left = left[n:]
    assert contents(folder / "grown") == contents(folder / "at once")
    for key in ("counts", "time", "shards", "rejects_by_reason"):
        assert manifest(folder / "grown")[key] == manifest(folder / "at once")[key]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_days_of_customers_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int) -> None:
    """Stores that spill, histories that are sorted on disk, and more orders for them, before and behind."""
    monkeypatch.setattr(shards, "BATCH_PAIRS", 100)
    monkeypatch.setattr(run, "BATCH_PAIRS", 100)
    sorted_on_disk = []
    sort = giants._sort_giant
    monkeypatch.setattr(giants, "_sort_giant", lambda *rest: (sorted_on_disk.append(rest[1]), sort(*rest))[1])
    draw = random.Random(4)
    rows = draw_log(1, 1500)
    for number in range(1, 12_001):
        gap = str(draw.randrange(3)) if number > 1 else ""
        rows += [("giant", f"g{number}", str(number), gap, f"p{draw.randrange(20)}")] * draw.choice([1, 2])
    draw.shuffle(rows)
    files = write_files(tmp_path / "raw", rows, [9000])
    naive = write_dataset(naive_rows(rows), tmp_path / "naive", batch_pairs=100, has_days=False)  # type: ignore[arg-type]
    small = Budget(n_workers, 1 << 14, 300_000, (n_workers + 2) * 150_000)
    roles: dict[str, Any] = {"customer": "user_id", "action": "product_id", "max_reject": 0.5}
    assert run_plan(make_plan(files, tmp_path / "at once", **roles), budget=small).n_spilled_runs
    assert sorted_on_disk
    assert contents(tmp_path / "at once") == contents(naive)
    assert manifest(tmp_path / "at once")["time"] == manifest(naive)["time"] | {"relative": True}
    run_plan(make_plan(files[:1], tmp_path / "grown", **roles), budget=small)
    sorted_on_disk.clear()
    run_plan(make_plan(files[1], tmp_path / "grown", append=True, max_reject=0.5), budget=small)
    assert sorted_on_disk
    assert contents(tmp_path / "grown") == contents(naive)
    assert manifest(tmp_path / "grown")["time"] == manifest(naive)["time"] | {"relative": True}


def test_rules_on_whole_histories_see_the_days(tmp_path: Path) -> None:
    rows = draw_log(9, 400)
    # a customer who is left out has the latest day
    rows += [("rare", "r1", "1", "", "p1"), ("rare", "r2", "2", "8000", "p1"), ("rare", "r3", "3", "8000", "p1")]
    files = write_files(tmp_path / "raw", rows, [])
    ingest(files, tmp_path / "out", action="product_id", min_visits=5, max_reject=0.5, memory="8GB")
    n_of: dict[str, set[str]] = defaultdict(set)
    expected = naive_rows(rows)
    for customer, _, _, order in expected:
        n_of[customer].add(order)
    left = [row for row in expected if len(n_of[row[0]]) >= 5]
    assert 0 < len(left) < len(expected)
    naive = write_dataset(left, tmp_path / "naive", has_days=False)  # type: ignore[arg-type]
    assert contents(tmp_path / "out") == contents(naive)
    assert manifest(tmp_path / "out")["time"] == manifest(naive)["time"] | {"relative": True}


def test_the_columns_are_found_or_named(tmp_path: Path) -> None:
    files = write_files(tmp_path / "raw", draw_log(2, 300), [])
    plan = make_plan(files, tmp_path / "out", action="product_id")
    assert plan.roles == Roles(("user_id",), TIME, ("product_id",), ("order_id",))
    assert plan.time_format == TimeFormat("gaps")
    assert "days_since_prior_order holds the days in between" in plan.reasons["time"]
    named = make_plan(files, tmp_path / "out", action="product_id", time=",".join(TIME))
    assert (named.roles, named.time_format) == (plan.roles, plan.time_format)
    alone = make_plan(files, tmp_path / "out", action="product_id", time="order_number", visit="order_id")
    assert (alone.roles.time, alone.time_format) == (TIME[:1], TimeFormat("order"))
    alone = make_plan(files, tmp_path / "out", action="product_id", time_format="order", visit="order_id")
    assert (alone.roles.time, alone.time_format) == (TIME[:1], TimeFormat("order"))


def test_other_names_need_the_format(tmp_path: Path) -> None:
    (file,) = write_files(tmp_path / "raw", draw_log(2, 300), [])
    file.write_text(file.read_text().replace(HEADER, "user_id,order_id,n,wait,product_id\n"))
    plan = make_plan(file, tmp_path / "out", action="product_id", time="n,wait", time_format="gaps")
    assert (plan.roles.time, plan.time_format) == (("n", "wait"), TimeFormat("gaps"))
    with pytest.raises(SchemaError, match="needs two columns"):
        make_plan(file, tmp_path / "out", action="product_id", time="n", time_format="gaps")
    with pytest.raises(SchemaError, match="do not have the format gaps"):
        make_plan(file, tmp_path / "out", action="product_id", time="order_id,wait", time_format="gaps")


def test_the_schema_can_be_given_back(tmp_path: Path) -> None:
    files = write_files(tmp_path / "raw", draw_log(3, 300), [])
    ingest(files, tmp_path / "a", action="product_id", max_reject=0.5, memory="8GB")
    ingest(files, tmp_path / "b", schema=tmp_path / "a" / "schema.toml", max_reject=0.5, memory="8GB")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "a" / "schema.toml").read_bytes() == (tmp_path / "b" / "schema.toml").read_bytes()


@pytest.mark.parametrize("bound", ["since", "until"])
def test_moments_cannot_bound_days_that_are_relative(tmp_path: Path, bound: str) -> None:
    files = write_files(tmp_path / "raw", draw_log(3, 300), [])
    with pytest.raises(SchemaError, match="only has the days between visits") as caught:
        make_plan(files, tmp_path / "out", action="product_id", **{bound: "1970-02-01"})  # type: ignore[arg-type]
    assert "order_number >= 2" in str(caught.value.hint)
