"""Adding files to a dataset gives what ingesting everything at once gives, and nothing is added twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dataset_files import contents, manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luckyfast.errors import DatasetError, InputError, SchemaError
from luckyfast.ingestion import giants, ingest, run, shards
from luckyfast.ingestion.append import content_id
from luckyfast.ingestion.planning import make_plan

COLUMNS = "card;when;shelf;product;ticket;quantity"
ROLES = {"customer": "card", "time": "when", "action": "shelf", "visit": "ticket", "memory": "8GB", "max_reject": 0.5}


def draw_rows(seed: int, n_rows: int, n_customers: int = 300) -> list[str]:
    draw = random.Random(seed)
    rows = []
    for _ in range(n_rows):
        customer = int(draw.expovariate(1 / n_customers))
        visit = draw.randrange(12)
        day, minute = 1 + (customer + visit) % 28, draw.randrange(60)
        # some visits last for days
        day += draw.randrange(3) if visit == 11 else 0
        shelf, product = draw.choice(["Milch", "Brot / Kuchen", "Käse", "x"]), draw.choice(["a", "b", "c / d"])
        ticket = f"{customer}-{visit}" if draw.random() < 0.95 else ""
        row = [f"k{customer}", f"2024-01-{day:02d} 10:{minute:02d}", shelf, product, ticket, str(draw.randrange(3))]
        if draw.random() < 0.03:
            row[draw.randrange(3)] = ""
        rows.append(";".join(row))
    return rows


def write_files(folder: Path, rows: list[str], borders: list[int]) -> list[Path]:
    folder.mkdir()
    files = []
    for i, (first, stop) in enumerate(zip([0, *borders], [*borders, len(rows)], strict=True)):
        files.append(folder / f"{i}.csv")
        files[-1].write_text("\n".join([COLUMNS, *rows[first:stop]]) + "\n", encoding="utf-8")
    return files


def check_equal(appended: Path, at_once: Path) -> None:
    assert contents(appended) == contents(at_once)
    a, b = manifest(appended), manifest(at_once)
    for key in ("counts", "rejects_by_reason", "filtered_by_rule", "time", "roles", "shards", "sources"):
        assert a[key] == b[key], key


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(2, 39).map(lambda n: 50 * n), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_appending_equals_ingesting_at_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, borders: list[int], data: st.DataObject
) -> None:
    """Files in any portions, each large enough to be sampled; visits go on from file to file, actions are new."""
    folder = tmp_path_factory.mktemp("append")
    settings_ = {
        **ROLES,
        "action": data.draw(st.sampled_from(["shelf", ["shelf", "product"]])),
        "visit": data.draw(st.sampled_from(["ticket", "none"])),
        "where": data.draw(st.sampled_from([None, "quantity > 0"])),
    }
    files = write_files(folder / "raw", draw_rows(seed, 2000), sorted(borders))
    ingest(files, folder / "at once", **settings_)  # type: ignore[arg-type]
    n_first = data.draw(st.integers(1, len(files) - 1))
    ingest(files[:n_first], folder / "grown", **settings_)  # type: ignore[arg-type]
    left = files[n_first:]
    while left:
        n = data.draw(st.integers(1, len(left)))
        ingest(left[:n], folder / "grown", append=True, max_reject=0.5)
        left = left[n:]
    check_equal(folder / "grown", folder / "at once")
    assert {path.name for path in folder.iterdir()} == {"raw", "at once", "grown"}


def test_many_shards_and_small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches that begin and end within the record batches of the old shards."""
    monkeypatch.setattr(shards, "BATCH_PAIRS", 300)
    monkeypatch.setattr(shards, "SHARD_BATCHES", 3)
    monkeypatch.setattr(run, "_MERGE_TARGET_BYTES", 5000)
    files = write_files(tmp_path / "raw", draw_rows(5, 20_000), [9000, 17_000])
    ingest(files, tmp_path / "at once", **ROLES)  # type: ignore[arg-type]
    ingest(files[:2], tmp_path / "grown", **ROLES)  # type: ignore[arg-type]
    summary = ingest(files[2:], tmp_path / "grown", append=True, max_reject=0.5)
    check_equal(tmp_path / "grown", tmp_path / "at once")
    assert 0 < manifest(tmp_path / "grown")["time"]["visits_over_days"] < summary.counts["visits"] / 2
    assert summary.visits_over_days == manifest(tmp_path / "grown")["time"]["visits_over_days"]
    assert len(list((tmp_path / "grown" / "shards").iterdir())) > 5
    assert summary.counts == manifest(tmp_path / "grown")["counts"]
    assert len(list((tmp_path / "grown" / "rejects").iterdir())) == 2


@pytest.mark.parametrize("visit", ["ticket", "none"])
def test_adding_to_customers_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visit: str) -> None:
    """Histories that are too large for the merge, some behind small ones in a batch, are read in pieces and go on."""
    monkeypatch.setattr(shards, "BATCH_PAIRS", 300)
    monkeypatch.setattr(run, "BATCH_PAIRS", 300)
    monkeypatch.setattr(shards, "SHARD_BATCHES", 3)
    sorted_on_disk = []
    sort = giants._sort_giant

    def listen(units: Any, unit: int, *rest: Any) -> Any:
        sorted_on_disk.append((units.name(unit), [type(one).__name__ for one in units.runs]))
        return sort(units, unit, *rest)

    monkeypatch.setattr(giants, "_sort_giant", listen)
    draw = random.Random(8)
    rows = draw_rows(5, 3000)
    for name in ("giant", "twin"):
        for i in range(24_000):
            visit_ = i // 4 if draw.random() < 0.9 else draw.randrange(6000)
            day = 1 + visit_ % 26 + (draw.randrange(3) if visit_ % 7 == 0 else 0)
            time = f"2024-{1 + visit_ // 600:02d}-{day:02d} {visit_ % 24:02d}:{draw.randrange(60):02d}"
            rows.append(f"{name};{time};{draw.choice('abcdefgh')};p;{name}-{visit_};1")
    draw.shuffle(rows)
    files = write_files(tmp_path / "raw", rows, [20_000, 40_000, 49_000])
    settings_: dict[str, Any] = {**ROLES, "visit": visit}
    ingest(files, tmp_path / "at once", **settings_)
    assert not sorted_on_disk
    ingest(files[:1], tmp_path / "grown", **settings_)
    small = run.Budget(2, 1 << 14, 300_000, 4 * 250_000)
    for new in (files[1:2], files[2:]):
        sorted_on_disk.clear()
        run.run_plan(make_plan(new, tmp_path / "grown", append=True, max_reject=0.5), budget=small)
        assert {name for name, _ in sorted_on_disk} == {b"giant", b"twin"}
        assert all(kinds[0] == "ShardRun" for _, kinds in sorted_on_disk)
    check_equal(tmp_path / "grown", tmp_path / "at once")


def test_a_shard_that_was_cut_short_is_told(dataset: Path, tmp_path: Path) -> None:
    (new,) = write_files(tmp_path / "new", draw_rows(2, 100), [])
    (shard,) = (dataset / "shards").iterdir()
    whole = shard.read_bytes()
    for n_bytes in (0, 100, len(whole) // 2, len(whole) - 20):
        shard.write_bytes(whole[:n_bytes])
        refused(dataset, new, DatasetError, "part-00000.arrow is damaged")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (file,) = write_files(tmp_path / "raw", draw_rows(1, 500), [])
    ingest(file, tmp_path / "dataset", **ROLES)  # type: ignore[arg-type]
    return tmp_path / "dataset"


def refused(dataset: Path, raw: Path, error: type[Exception], message: str, **arguments: Any) -> None:
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    with pytest.raises(error, match=message) as caught:
        ingest(raw, dataset, append=True, max_reject=0.5, **arguments)
    assert caught.value.hint  # type: ignore[attr-defined]
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before
    assert not list(dataset.parent.glob("dataset.*"))


def test_the_same_content_is_refused_under_any_name(dataset: Path, tmp_path: Path) -> None:
    again = tmp_path / "other name.csv"
    again.write_bytes((tmp_path / "raw" / "0.csv").read_bytes())
    refused(dataset, again, InputError, r"other name.csv is part of .* already: it has the content of .*0.csv")
    again.write_text(again.read_text(encoding="utf-8") + "k1;2024-01-02 10:00;x;a;1-1;1\n", encoding="utf-8")
    assert ingest(again, dataset, append=True, max_reject=0.5).counts["rows_read"] == 1001


def test_the_same_content_under_another_name_is_new_where_names_are_customers(tmp_path: Path) -> None:
    raw, more = tmp_path / "raw", tmp_path / "more"
    for folder, names in ((raw, ("a", "b")), (more, ("c",))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.csv").write_text("when;shelf\n2024-01-02;Milch\n2024-01-03;Brot\n")
    roles = {"customer": "filename", "time": "when", "action": "shelf", "memory": "8GB"}
    ingest(raw, tmp_path / "data", **roles)
    ingest(more, tmp_path / "data", append=True, memory="8GB")
    ingest([raw, more], tmp_path / "at once", **roles)
    check_equal(tmp_path / "data", tmp_path / "at once")
    refused(tmp_path / "data", more, InputError, "is part of .* already")


def test_what_would_not_equal_ingesting_at_once_is_refused(dataset: Path, tmp_path: Path) -> None:
    (new,) = write_files(tmp_path / "new", draw_rows(2, 100), [])
    refused(dataset, new, SchemaError, "--where cannot go with --append", where="quantity > 0")
    refused(dataset, new, SchemaError, "--min-visits cannot go with --append", min_visits=2)
    refused(dataset, new, SchemaError, "the action of .* is", action="product")
    refused(tmp_path / "nowhere", new, DatasetError, "no dataset folder")
    for rule in ({"min_visits": 2}, {"top_actions": 2}, {"drop_duplicates": True}):
        cleaned = tmp_path / next(iter(rule))
        ingest(tmp_path / "raw", cleaned, **ROLES, **rule)  # type: ignore[arg-type]
        refused(cleaned, new, DatasetError, "needs all rows at once")


def test_a_failed_append_leaves_the_dataset_as_it_was(dataset: Path, tmp_path: Path) -> None:
    (new,) = write_files(tmp_path / "new", [";2024-01-02 10:00;x;a;1-1;1"] * 90 + draw_rows(2, 30), [])
    refused(dataset, new, InputError, "were rejected: missing_customer")


def test_content_ids(tmp_path: Path) -> None:
    """Any changed byte of a small file counts; of a large one, size, ends and any shift."""
    draw = random.Random(0)
    small, large = tmp_path / "small", tmp_path / "large"
    data = draw.randbytes(100_000)
    small.write_bytes(data)
    seen = {content_id(small)}
    for _ in range(20):
        at = draw.randrange(len(data))
        small.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        seen.add(content_id(small))
    assert len(seen) == 21
    data = draw.randbytes(5_000_000)
    large.write_bytes(data)
    seen = {content_id(large)}
    for changed in (data[:-1], data + b"x", data[1:] + b"x", data[:2_000_000] + b"x" + data[2_000_000:-1]):
        large.write_bytes(changed)
        seen.add(content_id(large))
    assert len(seen) == 5
    large.write_bytes(data)
    assert content_id(large) in seen


@pytest.mark.parametrize("encoding", ["cp1250", "utf-16", "shift_jis"])
def test_the_encoding_of_the_first_files_goes_on(tmp_path: Path, encoding: str) -> None:
    """Also where its bytes could be text in another; and what is UTF-8 by itself is read as such."""
    shelves = ["牛乳", "米"] if encoding == "shift_jis" else ["łóżko", "żur"]
    parts = [
        "".join(f"k{i % 9};2024-0{month}-{1 + i:02d};{shelves[i % 2]}\n" for i in range(25)) for month in range(1, 4)
    ]
    files = []
    for i, part in enumerate(parts):
        files.append(tmp_path / f"{i}.csv")
        files[-1].write_bytes(("card;when;shelf\n" + part).encode("utf-8" if i == 2 else encoding))
    ingest(files[:1], tmp_path / "out", encoding=encoding, action="shelf", memory="2GB")
    for file in files[1:]:
        ingest(file, tmp_path / "out", append=True, memory="2GB")
    actions = pq.read_table(tmp_path / "out" / "vocabulary.parquet")["action"].to_pylist()
    assert actions == ["<unknown>", *sorted(shelves)]


def test_a_link_to_a_dataset_is_followed(tmp_path: Path) -> None:
    files = write_files(tmp_path / "raw", draw_rows(3, 2000), [1000])
    (tmp_path / "disk").mkdir()
    ingest(files[:1], tmp_path / "disk" / "receipts", **ROLES)  # type: ignore[arg-type]
    (tmp_path / "receipts").symlink_to(tmp_path / "disk" / "receipts")
    ingest(files[1:], tmp_path / "receipts", append=True, max_reject=0.5)
    assert (tmp_path / "receipts").is_symlink()
    assert manifest(tmp_path / "disk" / "receipts")["counts"]["rows_read"] == 2000
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["receipts"]
