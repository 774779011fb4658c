"""Side columns on their way through ingest: what they are taken for, and what is kept of them at each visit."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from feature_rows import (
    FEATURES,
    HEADER,
    KINDS,
    ROLES,
    Line,
    draw_lines,
    naive_features,
    naive_number,
    read_features,
    write_log,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from luckyfast.kernels import parse as parse_kernel

from luckyfast.cli import main
from luckyfast.dataset import Dataset
from luckyfast.errors import BudgetError, DatasetError, SchemaError
from luckyfast.ingestion import categories, checkpoint, ingest, make_plan
from luckyfast.ingestion.features import _tell_kind
from luckyfast.ingestion.run import Budget, run_plan
from luckyfast.progress import NullProgress

ONE = Budget(1, 1 << 20, 1 << 26, 1 << 28)


def read_folder(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def contents(path: Path) -> dict[str, Any]:
    """What must be the same whatever files the rows lay in."""
    manifest = json.loads((path / "manifest.json").read_text())
    kept = {name: manifest[name] for name in ("counts", "time", "shards", "features")}
    return kept | {name: data for name, data in read_folder(path).items() if name.startswith(("shards", "vocab"))}


def check_equals_naive(path: Path, lines: list[Line]) -> None:
    naive, found = naive_features(lines), read_features(path)
    customers = {customer for customer, _ in naive}
    assert set(found) == customers
    for customer in customers:
        # visits come in the order of time and key, which is not at issue here
        expected = Counter(tuple(features) for (own, _), features in naive.items() if own == customer)
        assert Counter(tuple(features) for features in found[customer]) == expected


@pytest.fixture(scope="module")
def lines() -> list[Line]:
    return draw_lines(1, 8000)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, lines: list[Line]) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "log.csv", lines)


def test_what_is_kept_equals_the_naive_twin(log: Path, lines: list[Line], tmp_path: Path) -> None:
    summary = ingest(log, tmp_path / "data", feature=FEATURES, **ROLES)
    check_equals_naive(tmp_path / "data", lines)
    told = {own["name"]: own for own in summary.features}
    assert {name: own["kind"] for name, own in told.items()} == KINDS
    for k, (name, kind) in enumerate(KINDS.items()):
        texts = [line.values[k] for line in lines]
        read = [naive_number(text) if kind == "number" else text.strip() or None for text in texts]
        assert told[name]["without_value"] == read.count(None)
        unreadable = [text for text, one in zip(texts, read, strict=True) if one is None and text not in ("", "NA")]
        assert told[name]["unreadable"] == len(unreadable)
        if kind == "category":
            counts = Counter(text for text in texts if text)
            names = sorted(counts, key=str.encode)
            assert told[name]["categories"] == names
            assert told[name]["n_events"] == [counts[one] for one in names]
    assert told["price"]["unreadable"] > 100
    assert summary.counts["rejected"] == 0


@pytest.mark.parametrize(
    "budget",
    [Budget(4, 1 << 12, 1 << 26, 1 << 28), Budget(1, 777, 300_000, 1 << 28), Budget(3, 1 << 13, 300_000, 1 << 22)],
    ids=["4 workers", "tiny blocks, spills", "3 workers, spills, little memory"],
)
def test_output_is_the_same_for_any_division_of_work(tmp_path: Path, budget: Budget) -> None:
    paths = [write_log(tmp_path / f"{i}.csv", draw_lines(i, 20_000, n_customers=300)) for i in range(2)]
    packed = tmp_path / "2.csv.gz"
    packed.write_bytes(gzip.compress(write_log(tmp_path / "2.csv", draw_lines(9, 9000)).read_bytes()))
    paths.append(packed)
    first = run_plan(make_plan(paths, tmp_path / "a", feature=FEATURES, **ROLES), budget=ONE)
    other = run_plan(make_plan(paths, tmp_path / "b", feature=FEATURES, **ROLES), budget=budget)
    assert (first.n_spilled_runs, other.n_spilled_runs > 1) == (0, budget.store_bytes < 1 << 26)
    assert read_folder(first.path) == read_folder(other.path)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, draw: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("shuffled")
    lines = draw_lines(seed, 300, n_customers=4)
    kinds = [f"{name}:{kind}" for name, kind in KINDS.items()]
    ingest(write_log(folder / "a.csv", lines), folder / "a", feature=kinds, **ROLES)
    draw.shuffle(lines)
    ingest(write_log(folder / "b.csv", lines), folder / "b", feature=kinds, **ROLES)
    assert contents(folder / "a") == contents(folder / "b")
    check_equals_naive(folder / "a", lines)


NUMBERS = st.one_of(
    st.from_regex(r"\s?[-+]?\d{0,25}([.,]\d{0,12})?([eE][-+]?\d{1,2})?\s?", fullmatch=True),
    st.text(alphabet="0123456789.,-+eE x", max_size=8),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(NUMBERS, max_size=5))
@example(["0E00000", "1e9999", "1E-0003"])
def test_numbers_are_read_to_the_millionth(texts: list[str]) -> None:
    data = np.frombuffer("".join(texts).encode() + bytes(8), np.uint8)
    starts = np.cumsum([0, *(len(text.encode()) for text in texts)]).astype(np.int64)
    values = np.zeros(len(texts), np.int64)
    parse_kernel.read_numbers(data, starts, values)
    for text, value in zip(texts, values.tolist(), strict=True):
        plain = text.strip(" ").replace(",", ".")
        try:
            number = Decimal(plain) if plain.count(".") <= 1 and "\t" not in text and "\n" not in text else None
        except ArithmeticError:
            number = None
        power = plain.lower().partition("e")[2].strip("+-")  # of five digits and more it is none
        if number is None or len(power) > 4 or not set(plain) <= set("0123456789.+-eE"):
            assert value == parse_kernel.UNREADABLE
        elif len(plain.partition("e")[0].replace(".", "").strip("+-0")) > 18:
            # digits beyond the 19th are dropped
            assert abs(value) <= 10**18 - 1
        else:
            exact = (number * 10**6).to_integral_value(ROUND_HALF_UP)
            assert value == max(min(exact, 10**18 - 1), 1 - 10**18)


def test_sums_of_any_size_are_exact_or_cut_off(tmp_path: Path) -> None:
    values = {"a": ["999999999999", "999999999999", "-999999999999"], "b": ["999999999999"] * 3, "c": ["-1e30"] * 2}
    lines = [Line("c", 1, "MILK", visit, (text, "1", "x", "")) for visit, texts in values.items() for text in texts]
    ingest(write_log(tmp_path / "log.csv", lines), tmp_path / "data", feature="price", **ROLES)
    most = Decimal(10**18 - 1).scaleb(-6)
    found = Counter(visit[0] for visit in read_features(tmp_path / "data")["c"])
    assert found == Counter([(Decimal(999999999999), 3), (most, 3), (-most, 2)])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 999), st.integers(1, 3), st.data())
def test_appending_equals_ingesting_at_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n_parts: int, data: st.DataObject
) -> None:
    """Visits go on from file to file; their stores and brands stay the same, or nothing could be added."""
    folder = tmp_path_factory.mktemp("append")
    lines = draw_lines(seed, 1200, n_customers=20, mixed=False)
    cuts = sorted(data.draw(st.lists(st.integers(100, 1100), min_size=n_parts, max_size=n_parts, unique=True)))
    files = [
        write_log(folder / f"{i}.csv", lines[first:stop])
        for i, (first, stop) in enumerate(zip([0, *cuts], [*cuts, len(lines)], strict=True))
    ]
    kinds = [f"{name}:{kind}" for name, kind in KINDS.items()]
    ingest(files, folder / "at once", feature=kinds, **ROLES)
    ingest(files[0], folder / "grown", feature=kinds, **ROLES)
    for file in files[1:]:
        ingest(file, folder / "grown", append=True, memory="8GB")
    assert contents(folder / "grown") == contents(folder / "at once")
    assert (folder / "grown" / "schema.toml").read_text() == (folder / "at once" / "schema.toml").read_text()


def test_what_cannot_be_appended_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = [Line("c", 1, "MILK", "v", ("1", "7", brand, "")) for brand in ("x", "y", "y")]
    other = [Line("c", 2, "MILK", "w", ("1", "7", "z", ""))]
    first = write_log(tmp_path / "first.csv", mixed)
    ingest(first, tmp_path / "data", feature="brand", **ROLES)
    before = read_folder(tmp_path / "data")
    again = write_log(tmp_path / "again.csv", mixed[:1])
    with pytest.raises(DatasetError, match="different categories of a feature"):
        ingest(again, tmp_path / "data", append=True, memory="8GB")
    with pytest.raises(SchemaError, match=r"the features of .* are brand:category"):
        ingest(again, tmp_path / "data", append=True, memory="8GB", feature="price")
    assert read_folder(tmp_path / "data") == before
    more = write_log(tmp_path / "more.csv", other)
    ingest(more, tmp_path / "data", append=True, memory="8GB")
    check = ingest([first, more], tmp_path / "at once", feature="brand", **ROLES)
    assert contents(tmp_path / "data") == contents(check.path)
    monkeypatch.setattr(categories, "MOST_CATEGORIES", 2)
    ingest([first, more], tmp_path / "capped", feature="brand", **ROLES)
    with pytest.raises(DatasetError, match="more than 2 categories"):
        ingest(again, tmp_path / "capped", append=True, memory="8GB")


def test_rare_categories_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "MOST_CATEGORIES", 2)
    names = ["a"] * 3 + ["b"] * 2 + ["d"] * 2 + ["c"]
    lines = [Line("c", i, "MILK", str(i), ("1", "7", name, "")) for i, name in enumerate(names)]
    summary = ingest(write_log(tmp_path / "log.csv", lines), tmp_path / "data", feature="brand", **ROLES)
    (told,) = summary.features
    assert told["categories"] == ["<other>", "a", "b"]
    assert told["n_events"] == [3, 3, 2]
    assert told["other_categories"] == {"categories": 2, "events": 3}
    found = Counter(visit[0][0] for visit in read_features(tmp_path / "data")["c"])
    assert found == {"a": 3, "b": 2, "<other>": 3}


class Stops(NullProgress):
    """Presses Ctrl-C when so many bytes have been read."""

    def __init__(self, amount: float) -> None:
        self.left = amount

    def advance(self, amount: float) -> None:
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.01)
    path = write_log(tmp_path / "log.csv", draw_lines(3, 60_000, n_customers=500))
    whole = run_plan(make_plan(path, tmp_path / "whole", feature=FEATURES, **ROLES), budget=ONE)
    small = Budget(2, 1 << 13, 400_000, 1 << 26)
    plan = make_plan(path, tmp_path / "out", feature=FEATURES, **ROLES)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run_plan(plan, progress=Stops(0.6 * path.stat().st_size), budget=small)
    with pytest.raises(DatasetError, match="other roles, formats or rules"):
        run_plan(make_plan(path, tmp_path / "out", feature="price", resume=True, **ROLES), budget=small)
    resumed = run_plan(make_plan(path, tmp_path / "out", feature=FEATURES, resume=True, **ROLES), budget=small)
    assert read_folder(resumed.path) == read_folder(whole.path)


def test_rules_on_whole_histories(tmp_path: Path) -> None:
    """Equal rows count once, and their features with them; customers with few visits are left out."""
    lines = draw_lines(4, 3000, n_customers=60)
    lines += [*lines[:500], Line("rare", 3, "MILK", "only", ("1", "100", "own", "30"))]
    path = write_log(tmp_path / "log.csv", lines)
    summary = ingest(path, tmp_path / "data", feature=FEATURES, drop_duplicates=True, min_visits=2, **ROLES)
    kept = [line for line in dict.fromkeys(lines) if line.customer != "rare"]
    assert summary.counts["duplicates_removed"] == len(lines) - len(kept) - 1
    check_equals_naive(tmp_path / "data", kept)


def test_other_forms_of_the_same_log_give_the_same(log: Path, tmp_path: Path) -> None:
    table = pa_csv.read_csv(
        log,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(HEADER.strip().split(","), pa.string())),
    )
    pq.write_table(table, tmp_path / "log.parquet")
    rows = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    ingest(log, tmp_path / "csv", feature=FEATURES, **ROLES)
    for name in ("log.parquet", "log.jsonl"):
        ingest(tmp_path / name, tmp_path / name.partition(".")[2], feature=FEATURES, **ROLES)
        assert contents(tmp_path / name.partition(".")[2]) == contents(tmp_path / "csv")


def test_columns_of_a_lookup_table(tmp_path: Path, lines: list[Line]) -> None:
    """Of customers beside a log that has the action, and of products beside their category."""
    path = write_log(tmp_path / "log.csv", lines)
    ages = {f"c{i}": str(20 + i % 50) if i % 5 else "NA" for i in range(60)} | {"c7": "old"}
    rows = "".join(f"{name},{age},{'ab'[len(age) % 2]}\n" for name, age in ages.items() if name != "c9")
    (tmp_path / "people.csv").write_text("card,years,town\n" + rows)
    table = {"lookup": tmp_path / "people.csv", "on": "card"}
    summary = ingest(path, tmp_path / "data", feature="years,town,store_id", **table, **ROLES)
    told = {own["name"]: own for own in summary.features}
    assert [told[name]["kind"] for name in ("years", "town", "store_id")] == ["number", "category", "category"]
    assert "looked up in people.csv by card" in told["years"]["reason"]
    found = read_features(tmp_path / "data")
    n_of = Counter(line.customer for line in lines)
    for name in ages:
        age = naive_number(ages[name]) if name != "c9" else None
        town = "ab"[len(ages[name]) % 2] if name != "c9" else None
        for visit in found[name]:
            n = visit[0][1]
            assert visit[0] == (Decimal(0) if age is None else n * age, n)
            assert (n == 0) == (age is None)
            assert visit[1][0] == town
        assert sum(visit[1][1] for visit in found[name]) == (n_of[name] if town else 0)
    assert told["years"]["unreadable"] == n_of["c7"]

    (tmp_path / "shelves.csv").write_text("shelf,section,shade\nMILK,cold,1.5\nBREAD,dry,\nTEA,dry,2\n")
    table = {"lookup": tmp_path / "shelves.csv", "on": "shelf"}
    roles = ROLES | {"action": "section"}
    ingest(path, tmp_path / "sections", feature="shade,price", **table, **roles)
    assert Dataset.open(tmp_path / "sections").vocabulary == ["<unknown>", "cold", "dry"]
    total = sum(visit[0][0] for own in read_features(tmp_path / "sections").values() for visit in own)
    assert total == sum({"MILK": Decimal("1.5"), "BREAD": 0, "TEA": 2}[line.action] for line in lines)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("quantity", ["1", "2", "1", "10"], "number"),
        ("sales_value", ["1.5", "2", "-0.99", "NA"], "number"),
        ("prix", ["1,5", "2,25", "3", ""], "number"),
        ("age", ["34", "71", "18"], "number"),
        ("store_id", ["330", "406", "330"], "category"),
        ("code_postal", ["75011", "69001"], "category"),
        ("payment type", ["1", "2", "1"], "category"),
        ("till", ["007", "008"], "category"),
        ("brand", ["National", "Private"], "category"),
        ("price of a group", ["1.5", "2.25"], "number"),
        ("amount", ["12"] * 96 + ["broken"] * 4, "number"),
        ("amount", ["12"] * 80 + ["broken"] * 20, "category"),
        ("nothing", ["", " "], "category"),
    ],
)
def test_kinds_are_told_from_names_and_values(name: str, values: list[str], kind: str) -> None:
    found, reason = _tell_kind(name, values, ())
    assert found == kind
    assert reason


def test_literals_mean_no_value(tmp_path: Path) -> None:
    lines = [
        Line("c", i, "MILK", str(i), (price, "7", brand, ""))
        for i, (price, brand) in enumerate([("-1", "none"), ("5", "own"), ("6", "?")])
    ]
    path = write_log(tmp_path / "log.csv", lines)
    null = ["price=-1", "brand=?"]
    ingest(path, tmp_path / "data", feature="price,brand", null=null, **ROLES)
    found = Counter(tuple(visit) for visit in read_features(tmp_path / "data")["c"])
    assert found == Counter(
        [
            ((Decimal(0), 0), ("none", 1, 0)),
            ((Decimal(5), 1), ("own", 1, 0)),
            ((Decimal(6), 1), (None, 0, 0)),
        ]
    )
    # what was decided can be given back
    schema = tmp_path / "data" / "schema.toml"
    ingest(path, tmp_path / "again", schema=schema, memory="8GB")
    assert contents(tmp_path / "again") == contents(tmp_path / "data")


def test_customers_larger_than_memory_are_refused(tmp_path: Path) -> None:
    lines = [Line("giant", i % 300, "MILK", str(i % 4000), ("1", "7", "x", "")) for i in range(20_000)]
    plan = make_plan(write_log(tmp_path / "log.csv", lines), tmp_path / "data", feature="price", **ROLES)
    with pytest.raises(BudgetError, match="together with their features") as caught:
        run_plan(plan, budget=Budget(1, 1 << 14, 300_000, 600_000))
    assert "--feature" in (caught.value.hint or "")


def test_a_dataset_without_features_is_as_it_was(log: Path, tmp_path: Path) -> None:
    ingest(log, tmp_path / "data", **ROLES)
    dataset = Dataset.open(tmp_path / "data")
    assert "features" not in dataset.manifest
    assert dataset.features == ()
    schema = pa.ipc.open_file(str(tmp_path / "data" / "shards" / "part-00000.arrow")).schema
    assert schema.names == ["customer", "visit_time", "visit_key", "actions", "counts", "visit_days"]
    assert "feature" not in (tmp_path / "data" / "schema.toml").read_text()


def test_files_are_added_beside_visits_of_several_days_and_categories(tmp_path: Path) -> None:
    """Such a visit is two fragments when it is read back, which is not to say that it goes on."""
    rows = [f"k{i % 7},2024-01-{1 + i % 5 + 7 * (i % 3):02d} 10:00,a{i % 4},c{i % 2},v{i % 21}" for i in range(420)]
    log, more = tmp_path / "log.csv", tmp_path / "more.csv"
    log.write_text("\n".join(["card,when,shelf,colour,receipt", *rows]) + "\n")
    more.write_text("card,when,shelf,colour,receipt\n" + "new,2024-02-01 10:00,a1,c1,w\n" * 50)
    roles: dict[str, Any] = {"customer": "card", "time": "when", "action": "shelf", "visit": "receipt", "memory": "8GB"}
    ingest([log, more], tmp_path / "at once", feature=["colour:category"], **roles)
    ingest(log, tmp_path / "grown", feature=["colour:category"], **roles)
    assert Dataset.open(tmp_path / "grown").manifest["time"]["visits_over_days"] == 21
    ingest(more, tmp_path / "grown", append=True, memory="8GB")
    assert contents(tmp_path / "grown") == contents(tmp_path / "at once")


def test_a_damaged_feature_is_told(log: Path, tmp_path: Path) -> None:
    ingest(log, tmp_path / "data", feature=FEATURES, **ROLES)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    for change, message in (
        ({"name": "colour"}, "no column feature.colour"),
        ({"kind": "number"}, "no column feature.brand.sum"),
        ({"categories": ["own"]}, "beyond the 1 that are named"),
        ({"kind": "picture"}, "neither a number nor a category"),
    ):
        features = [own | change if own["name"] == "brand" else own for own in manifest["features"]]
        (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"features": features}))
        with pytest.raises(DatasetError, match=message):
            list(Dataset.open(tmp_path / "data").batches())


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("colour", "has no column 'colour'; it has card, when"),
        ("prices", "has no column 'prices'"),
        ("ticket", "--feature ticket: that column is the visit already"),
        ("CARD", "--feature card: that column is the customer already"),
        ("price:money", "there is no kind 'money'"),
        ("price,price:number", "--feature names price twice"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    feature: str, message: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = [part for role in ("customer", "time", "action", "visit") for part in (f"--{role}", ROLES[role])]
    assert main(["ingest", str(log), str(tmp_path / "data"), *roles, "--feature", feature, "-q"]) == 2
    said = capsys.readouterr().err
    assert f"error: {message}" in said or message in said.partition("\n")[0]
    assert "hint:" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_commands_show_what_was_kept(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roles = [part for role in ("customer", "time", "action", "visit") for part in (f"--{role}", ROLES[role])]
    asked = ["--feature", "price,store_id", "--feature", "age:category"]
    assert main(["inspect", str(log), *roles, *asked]) == 0
    said = capsys.readouterr().out
    assert "feature (category)  store_id" in said
    assert "whole numbers that are codes" in said
    assert main(["ingest", str(log), str(tmp_path / "data"), *roles, *asked, "-q", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["features"]
    assert [(own["name"], own["kind"]) for own in told] == [
        ("price", "number"),
        ("store_id", "category"),
        ("age", "category"),
    ]
    assert main(["inspect", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "feature price" in said
    assert "because it is no number" in said
    assert "7 categories: 10" in said


def test_no_store_is_too_small_for_categories(tmp_path: Path) -> None:
    """Names of categories outgrow their first room, and the memory given."""
    names = [f"category {i} {'x' * 40}" for i in range(30_000)]
    lines = [Line("c", i % 300, "MILK", str(i), ("1", "7", name, "")) for i, name in enumerate(names)]
    path = write_log(tmp_path / "log.csv", lines)
    plan = make_plan(path, tmp_path / "data", feature="brand", **ROLES)
    summary = run_plan(plan, budget=Budget(1, 1 << 14, 1 << 25, 1 << 28))
    assert summary.features[0]["other_categories"]["categories"] == 30_000 - categories.MOST_CATEGORIES
    plan = make_plan(path, tmp_path / "other", feature="brand", **ROLES)
    with pytest.raises(BudgetError, match="different categories of the features"):
        run_plan(plan, budget=Budget(1, 1 << 14, 1 << 20, 1 << 28))
