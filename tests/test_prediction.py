from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from naive_ingest import write_dataset
from tiny_model import ACTIONS, DAY, make_dataset, make_model, make_rows, make_trained, without_trends

from luckyfast import prediction, windows
from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError, InputError, ModelError, OutputExistsError, UserError
from luckyfast.model import load
from luckyfast.prediction import predict


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "data")


@pytest.fixture(scope="module")
def model(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model", dataset, arch="lstm-embed")


def chances(file: Path) -> dict[str, list[float]]:
    """Chances by customer from a Parquet file of whole vectors."""
    rows = pq.read_table(file).to_pylist()
    return {row.pop("customer"): list(row.values()) for row in rows}


def histories_of(rows: list[tuple[str, int, str, str | None]], before: int) -> dict[str, list[tuple[int, list[str]]]]:
    """Visits by customer, straight from the rows."""
    times: dict[tuple[str, str | None], int] = {}
    actions: dict[tuple[str, str | None], list[str]] = {}
    for customer, time, action, session in rows:
        times[customer, session] = min(time, times.get((customer, session), time))
        actions.setdefault((customer, session), []).append(action)
    histories: dict[str, list[tuple[int, list[str]]]] = {}
    for key, time in times.items():
        if time < before:
            histories.setdefault(key[0], []).append((time, actions[key]))
    return histories


@pytest.mark.parametrize("at", [None, "1970-02-20", 1])
def test_all_get_what_one_history_alone_gets(
    model: Path, dataset: Dataset, tmp_path: Path, at: str | int | None
) -> None:
    summary = predict(model, at=at, out=tmp_path / "out.parquet", threads=1)
    moment = {None: dataset.manifest["time"]["max"] + 1, "1970-02-20": 50 * DAY, 1: 1}[at]
    expected = histories_of(make_rows(), moment)
    found = chances(summary.path)
    assert set(found) == set(expected)
    assert summary.customers == len(expected)
    assert summary.customers + summary.without_history == dataset.n_customers
    assert (at == 1) == (summary.without_history > 0)
    opened = load(model).following(dataset.path, at)
    for customer, history in expected.items():
        np.testing.assert_allclose(found[customer], opened.predict_proba(history, at=moment), rtol=0, atol=1e-6)


def test_what_happens_later_changes_nothing(model: Path, tmp_path: Path) -> None:
    rows = [row for row in make_rows() if row[1] < 50 * DAY or int(row[0][1:]) % 2]
    shorter = write_dataset([row for row in rows if row[1] < 50 * DAY], tmp_path / "shorter")
    later = write_dataset([(c, t, a if t < 50 * DAY else "BEER", s) for c, t, a, s in rows], tmp_path / "later")
    now = predict(model, shorter, at="1970-02-20", out=tmp_path / "a.parquet")
    then = predict(model, later, at="1970-02-20", out=tmp_path / "b.parquet")
    assert chances(now.path) == chances(then.path)


def test_top_is_the_best_of_the_whole_vector(model: Path, tmp_path: Path) -> None:
    whole = chances(predict(model, out=tmp_path / "whole.parquet").path)
    names = [name for name in pq.read_schema(tmp_path / "whole.parquet").names if name != "customer"]
    assert sorted(names) == sorted(ACTIONS)
    rows = pq.read_table(predict(model, top=3, out=tmp_path / "top.parquet").path).to_pylist()
    assert len(rows) == 3 * len(whole)
    ranked = pq.read_table(predict(model, top=len(ACTIONS), out=tmp_path / "all.parquet").path).to_pylist()
    for customer, vector in whole.items():
        own = [row for row in rows if row["customer"] == customer]
        assert [row["rank"] for row in own] == [1, 2, 3]
        everything = [row for row in ranked if row["customer"] == customer]
        first = max(everything, key=lambda row: row["chance"])
        assert own == sorted(everything, key=lambda row: (row is not first, -row["next_share"]))[:3]
        assert all(row["chance"] == vector[names.index(row["action"])] for row in own)
        assert 0 < sum(row["next_share"] for row in own) < 1


@pytest.mark.parametrize("top", [None, 2, 99])
def test_formats_hold_the_same(model: Path, tmp_path: Path, top: int | None) -> None:
    summaries = [predict(model, top=top, out=tmp_path / f"out{end}") for end in (".parquet", ".csv", ".jsonl")]
    parquet = pq.read_table(summaries[0].path)
    csv = pa_csv.read_csv(summaries[1].path, convert_options=pa_csv.ConvertOptions(column_types=parquet.schema))
    lines = [json.loads(line) for line in summaries[2].path.read_text(encoding="utf-8").splitlines()]
    if top is None:
        lines = [{"customer": line["customer"], **line["chances"]} for line in lines]
    jsonl = pa.Table.from_pylist(lines).select(parquet.column_names).cast(parquet.schema)
    assert csv.equals(parquet)
    assert jsonl.equals(parquet)
    assert {summary.rows for summary in summaries} == {parquet.num_rows}
    assert parquet.num_rows == summaries[0].customers * (min(top, len(ACTIONS)) if top else 1)


def test_size_of_groups_changes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict(model, out=tmp_path / "a.parquet")
    for name, size in (("_CHUNK_CHANCES", 60), ("_BATCH_CHANCES", 30), ("_BATCH_VISITS", 20), ("_BATCH_PAIRS", 30)):
        monkeypatch.setattr(prediction, name, size)
    pieces = predict(model, out=tmp_path / "b.parquet")
    one, other = pq.read_table(whole.path), pq.read_table(pieces.path)
    assert one["customer"] == other["customer"]
    for name in one.column_names[1:]:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-6)


def test_actions_are_matched_by_name(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    rows = make_rows()
    extra = [("stranger", 5 * DAY, "AARDVARK", None), ("stranger", 6 * DAY, "MILK", None)]
    other = write_dataset([*rows, *extra], tmp_path / "other")
    assert Dataset.open(other).vocabulary != dataset.vocabulary
    at = dataset.manifest["time"]["max"] + 1
    trained = without_trends(make_trained(dataset)[0])  # what the stranger takes is a trend
    model = make_model(tmp_path / "model", dataset, trained=trained)
    summary = predict(model, other, at=at, out=tmp_path / "other.parquet")
    assert summary.unknown_actions == 1
    found, expected = chances(summary.path), chances(predict(model, at=at, out=tmp_path / "own.parquet").path)
    assert found.keys() - expected.keys() == {"stranger"}
    for customer, vector in expected.items():
        np.testing.assert_allclose(found[customer], vector, rtol=0, atol=1e-6)


def test_long_histories_are_shortened(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert predict(model, out=tmp_path / "a.parquet").shortened == 0
    lengths = [len(history) for history in histories_of(make_rows(), 1000 * DAY).values()]
    monkeypatch.setattr(prediction, "MAX_VISITS", 8)
    assert predict(model, out=tmp_path / "b.parquet").shortened == sum(length > 8 for length in lengths)
    # Of customers with so many visits the others are not even looked at.
    monkeypatch.setattr(windows, "MAX_VISITS", 8)
    for moment in (None, 60 * DAY):
        whole = predict(model, at=moment, out=tmp_path / "whole.parquet", overwrite=True)
        with monkeypatch.context() as patch:
            patch.setattr(windows, "MAX_VISITS", 2**14)
            parts = predict(model, at=moment, out=tmp_path / "parts.parquet")
        assert replace(parts, path=whole.path, elapsed_s=whole.elapsed_s) == whole
        found, expected = chances(tmp_path / "whole.parquet"), chances(tmp_path / "parts.parquet")
        assert found.keys() == expected.keys()
        for customer, vector in expected.items():
            np.testing.assert_allclose(found[customer], vector, rtol=0, atol=1e-6)
        (tmp_path / "parts.parquet").unlink()
    monkeypatch.setattr(prediction, "MAX_PAIRS", 1)
    # The latest visit is always read, however large it is.
    assert predict(model, out=tmp_path / "c.parquet").shortened == sum(length > 1 for length in lengths)


def test_the_file_stands_in_the_model_folder_unless_told_otherwise(dataset: Dataset, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dataset)
    assert predict(model).path == model / "predictions.parquet"
    with pytest.raises(OutputExistsError, match="exists already"):
        predict(model)
    assert predict(model, overwrite=True).rows == dataset.n_customers


def test_mistakes_say_what_to_do_and_leave_nothing_behind(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    strangers = write_dataset([("c", 5, "AARDVARK", None)], tmp_path / "strangers")
    no_clock = make_dataset(tmp_path / "order", clock=False).path
    before = set(tmp_path.iterdir())
    out = tmp_path / "out.parquet"
    attempts: list[tuple[type[UserError], str, dict[str, object]]] = [
        (InputError, "no format", {"out": tmp_path / "out.xls"}),
        (InputError, "no folder", {"out": tmp_path / "nowhere" / "out.csv"}),
        (InputError, "not a moment", {"at": "yesterday", "out": out}),
        (ModelError, "must be positive", {"top": 0, "out": out}),
        (ModelError, "knows none of the actions", {"dataset": strangers, "out": out}),
        (DatasetError, "times of kind order", {"dataset": no_clock, "out": out}),
    ]
    for kind, message, arguments in attempts:
        with pytest.raises(kind, match=message):
            predict(model, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no model folder"):
        predict(tmp_path / "nothing")
    assert set(tmp_path.iterdir()) == before


def test_dates_and_days_since_the_first_visit_are_not_mixed(dataset: Dataset, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", dataset)
    config = json.loads((model / "config.json").read_text())
    for relative in (False, True):
        config["dataset"]["time"] = {"kind": "clock", "relative": relative}
        (model / "config.json").write_text(json.dumps(config))
        if relative:
            with pytest.raises(DatasetError, match="are not alike"):
                predict(model, out=tmp_path / "out.parquet")
        else:
            predict(model, out=tmp_path / "out.parquet")
            (tmp_path / "out.parquet").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_half_way_leaves_nothing_behind(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    broken = make_dataset(tmp_path / "broken").path
    shard = next((broken / "shards").iterdir())
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError):
        predict(model, broken, out=tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.parametrize("kind", ["order", "relative"])
def test_where_times_do_not_compare_each_customer_has_an_own_moment(tmp_path: Path, kind: str) -> None:
    dataset = make_dataset(tmp_path / "data", clock=kind == "relative")
    if kind == "relative":
        dataset.manifest["time"]["relative"] = True
        (dataset.path / "manifest.json").write_text(json.dumps(dataset.manifest))
    model = make_model(tmp_path / "model", dataset, arch="lstm")
    summary = predict(model, out=tmp_path / "out.parquet")
    assert summary.at == "each customer's next visit"
    assert (summary.customers, summary.without_history) == (dataset.n_customers, 0)
    found, opened = chances(summary.path), load(model)
    for customer, history in histories_of(make_rows(clock=kind == "relative"), 10**18).items():
        np.testing.assert_allclose(found[customer], opened.predict_proba(history), rtol=0, atol=1e-6)
    at = predict(model, at=7, out=tmp_path / "at.parquet")
    assert at.at == ("7" if kind == "order" else "1970-01-01T00:00:00")


def test_actions_that_are_rare_elsewhere_are_other_here(tmp_path: Path) -> None:
    rows = [(c, t, "<other>" if a in ("RICE", "FISH") else a, s) for c, t, a, s in make_rows()]
    model = make_model(tmp_path / "model", Dataset.open(write_dataset(rows, tmp_path / "pooled")), arch="lstm-embed")
    here = predict(model, write_dataset(make_rows(), tmp_path / "whole"), out=tmp_path / "whole.parquet")
    there = predict(model, out=tmp_path / "pooled.parquet")
    assert here.unknown_actions == 0
    for customer, expected in chances(there.path).items():
        np.testing.assert_allclose(chances(here.path)[customer], expected, rtol=0, atol=1e-6)
