"""Predictions of others are read whole, in any order, and measured as our own are."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log
from luckyfast.kernels.submissions import fill_rows, find_visits, hash_names
from naive_ingest import name_hash, write_dataset
from tiny_model import make_dataset, make_model

from luckyfast import calibration, submissions
from luckyfast.baselines import PersonalFrequency
from luckyfast.calibration import calibrate
from luckyfast.cli import main
from luckyfast.comparison import evaluate, write_targets
from luckyfast.dataset import Dataset
from luckyfast.errors import InputError, ModelError
from luckyfast.evaluation import evaluate as measure
from luckyfast.figures import PROBABILISTIC
from luckyfast.windows import Labels, known_actions, split_by_time, target_visits

RANKED = ("hit@1", "hit@3", "recall@10", "ndcg@10")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    log = [*habit_log(), *((f"new {i}", 97 * DAY, "action 1", f"n{i}") for i in range(4))]
    return Dataset.open(write_dataset(log, tmp_path_factory.mktemp("data") / "log", batch_pairs=400))


def predictions_of(dataset: Dataset, *, parts: tuple[str, ...] = ("valid", "test"), short: bool = True) -> list[dict]:
    """One row per target visit and action with what a baseline says: what a peer would hand in."""
    split = split_by_time(dataset)
    rows = []
    for part in parts:
        scorer = PersonalFrequency().fit(dataset, split, before=split.valid_start if part == "valid" else None)
        for histories in dataset.batches():
            for is_short in (False, True)[: 1 + short]:
                targets = target_visits(histories, split, part, short=is_short)  # type: ignore[arg-type]
                for block, scores in scorer.score(histories, targets):
                    owners = np.searchsorted(histories.visit_start, block, side="right") - 1
                    for visit, owner, row in zip(block.tolist(), owners.tolist(), scores, strict=True):
                        customer, time = histories.customers[owner].as_py(), int(histories.visit_time[visit])
                        known = {"customer": customer, "time": time, "visit": int(histories.visit_key[visit])}
                        named = zip(dataset.vocabulary[1:], row[1:].tolist(), strict=True)
                        rows += [known | {"action": action, "score": score} for action, score in named]
    return rows


def write(path: Path, rows: list[dict], **types: Any) -> Path:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    kinds = {"visit": pa.uint64(), "time": pa.timestamp("us")} | types
    table = pa.table(
        {
            name: pa.array(values, kinds.get(name) if values and isinstance(values[0], int) else None)
            for name, values in columns.items()
        }
    )
    pq.write_table(table, path, row_group_size=1000)
    return path


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@pytest.fixture(scope="module")
def rows(dataset: Dataset) -> list[dict]:
    return predictions_of(dataset)


def only(dataset: Dataset, file: Path) -> tuple[Any, Any]:
    found = evaluate(dataset.path, predictions=[file], baselines=False)
    (result,) = found.results
    return result, found.coverage[result.name]


def test_a_file_is_measured_as_its_scorer_is(dataset: Dataset, rows: list[dict], tmp_path: Path) -> None:
    split = split_by_time(dataset)
    scorer = PersonalFrequency().fit(dataset, split)
    early = PersonalFrequency().fit(dataset, split, before=split.valid_start)
    expected = measure(scorer, dataset, split, calibrate(early, dataset, split))
    shuffled = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    found, coverage = only(dataset, write(tmp_path / "mine.parquet", without(shuffled, "time")))
    assert found.name == "mine"
    for metric in RANKED:
        assert found.figures[metric] == expected.figures[metric]
        for section in ("repeat", "explore", "short"):
            assert getattr(found, section).figures[metric] == getattr(expected, section).figures[metric]
    for metric in PROBABILISTIC:  # the smallest score stands for the unknown action here
        assert found.figures[metric].value == pytest.approx(expected.figures[metric].value, abs=0.02)
    assert coverage.test == coverage.test_targets == expected.n_visits
    assert coverage.valid == coverage.valid_targets > 0
    assert coverage.other_visits == coverage.unknown_actions == 0


def test_partitions_and_blocks_change_nothing(
    dataset: Dataset, rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "mine.parquet", without(rows, "time"))
    whole, coverage = only(dataset, file)
    monkeypatch.setattr(submissions, "PARTITION_BYTES", 1000)
    monkeypatch.setattr(submissions, "_WRITE_BYTES", 5000)
    monkeypatch.setattr(submissions, "_READ_ROWS", 70)
    monkeypatch.setattr(submissions, "_BLOCK_SCORES", 40)
    with submissions.open_submission(file, dataset) as submission:
        assert len(list(submission._folder.iterdir())) > 20
        assert submission._bits > 4
    cut, cut_coverage = only(dataset, file)
    assert cut_coverage == coverage
    for metric, figure in whole.figures.items():
        assert cut.figures[metric].value == pytest.approx(figure.value, rel=1e-5), metric


@pytest.mark.parametrize("form", ["time", "text of the visit", "lists", "lists with scores", "large strings"])
def test_forms_of_a_file(dataset: Dataset, rows: list[dict], tmp_path: Path, form: str) -> None:
    expected, _ = only(dataset, write(tmp_path / "plain.parquet", without(rows, "time")))
    by_visit: dict[int, list[dict]] = {}
    for row in rows:
        by_visit.setdefault(row["visit"], []).append(row)
    if form == "time":
        file = write(tmp_path / "f.parquet", without(rows, "visit"))
    elif form == "text of the visit":
        names = [f"{c}/{v}" for c in range(40) for v in range(20)] + [f"n{i}" for i in range(4)]
        ids = {name_hash(name.encode()): name for name in names}
        file = write(tmp_path / "f.parquet", [row | {"visit": ids[row["visit"]]} for row in without(rows, "time")])
    elif form == "large strings":
        table = pq.read_table(write(tmp_path / "f.parquet", rows))
        text = {name: table[name].cast(pa.large_string()).dictionary_encode() for name in ("customer", "action")}
        file = tmp_path / "f.parquet"
        pq.write_table(pa.table({name: text.get(name, table[name]) for name in table.column_names}), file)
    else:
        lists = []
        for group in by_visit.values():
            best = sorted(group, key=lambda row: -row["score"])
            kept = {"score": [row["score"] for row in best]} if form == "lists with scores" else {}
            lists.append(
                {
                    "customer": best[0]["customer"],
                    "visit": best[0]["visit"],
                    "actions": [r["action"] for r in best],
                    **kept,
                }
            )
        file = write(tmp_path / "f.parquet", lists)
    found, coverage = only(dataset, file)
    assert coverage.test == coverage.test_targets
    if form == "lists":  # ties are gone: only what is not tied at the edge of a list stays equal
        assert found.figures["hit@1"].value == pytest.approx(expected.figures["hit@1"].value, abs=0.05)
    else:
        assert found.to_dict() == expected.to_dict() | {"name": "f"}


def test_visits_without_a_prediction_are_misses(dataset: Dataset, rows: list[dict], tmp_path: Path) -> None:
    keys = sorted({row["visit"] for row in rows})
    kept = [row for row in rows if row["visit"] in set(keys[::2])]
    result, coverage = only(dataset, write(tmp_path / "half.parquet", without(kept, "time")))
    complete, _ = only(dataset, write(tmp_path / "all.parquet", without(rows, "time")))
    perfect = [row | {"score": 1.0} for row in kept]
    assert 0 < coverage.test < coverage.test_targets
    assert result.n_visits == complete.n_visits == coverage.test_targets
    assert result.figures["hit@1"].value < complete.figures["hit@1"].value
    tied, _ = only(dataset, write(tmp_path / "tied.parquet", without(perfect, "time")))
    # All actions tied: a covered visit is hit by chance, one without a prediction is not even hit by chance.
    n_hits = tied.figures["hit@1"].value * tied.n_visits
    sizes = [
        len(np.unique(histories.actions[histories.action_start[v] : histories.action_start[v + 1]]))
        for histories in dataset.batches()
        for v in target_visits(histories, split_by_time(dataset), "test")
        if int(histories.visit_key[v]) in set(keys[::2])
    ]
    assert n_hits == pytest.approx(sum(sizes) / (dataset.n_actions - 1), rel=0.02)


def test_actions_that_are_not_named_rank_last_and_share_their_place(
    dataset: Dataset, rows: list[dict], tmp_path: Path
) -> None:
    by_visit: dict[int, list[dict]] = {}
    for row in rows:
        by_visit.setdefault(row["visit"], []).append(row)
    top = [row for group in by_visit.values() for row in sorted(group, key=lambda r: -r["score"])[:1]]
    found, _ = only(dataset, write(tmp_path / "top.parquet", without(top, "time")))
    split, known = split_by_time(dataset), known_actions(dataset, split_by_time(dataset).test_start)
    best = {row["visit"]: row["action"] for row in top}
    n = dataset.n_actions - 1
    recalls = []
    for histories in dataset.batches():
        targets = target_visits(histories, split, "test")
        labels = Labels.of(histories, targets, known)
        for index, visit in enumerate(targets):
            right = {dataset.vocabulary[a] for a in labels.actions[labels.start[index] : labels.start[index + 1]]}
            named = best[int(histories.visit_key[visit])] in right
            recalls.append((named + (len(right) - named) * 9 / (n - 1)) / len(right))
    assert found.figures["recall@10"].value == pytest.approx(np.mean(recalls), rel=1e-9)


@pytest.mark.parametrize("kind", submissions.VALUES)
def test_without_validation_visits_values_are_taken_as_they_are(
    dataset: Dataset, rows: list[dict], tmp_path: Path, kind: str
) -> None:
    test_start = split_by_time(dataset).test_start
    test = [row for row in rows if row["time"] >= test_start]
    stated = [row | {"score": 0.3} for row in test] if kind == "chance" else test
    if kind == "probability":
        stated = [row | {"score": float(np.exp(row["score"]))} for row in test]
    named = [{(kind if name == "score" else name): value for name, value in row.items()} for row in stated]
    result, coverage = only(dataset, write(tmp_path / "f.parquet", without(named, "time")))
    assert coverage.valid == 0 < coverage.valid_targets
    figures = {name: figure.value for name, figure in result.figures.items()}
    if kind == "score":
        assert all(np.isnan(figures[name]) for name in PROBABILISTIC)
        assert not np.isnan(figures["hit@1"])
    elif kind == "chance":
        hits = figures["hit@1"]
        assert figures["ece"] == pytest.approx(abs(0.3 - hits), abs=0.12)
        assert figures["brier"] == pytest.approx(hits * 0.49 + (1 - hits) * 0.09, rel=1e-5)
        assert result.before["brier"].value == figures["brier"]
    else:
        split = split_by_time(dataset)
        same = measure(PersonalFrequency().fit(dataset, split), dataset, split)
        assert figures["nll"] == pytest.approx(same.figures["nll"].value, abs=0.01)


def edited(rows: list[dict], index: int, **values: Any) -> list[dict]:
    return [row | values if place == index else row for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: without(rows, "customer"), "no column customer"),
        (lambda rows: without(rows, "visit", "time"), "no column visit or time"),
        (lambda rows: without(rows, "score"), "no column score, probability or chance"),
        (lambda rows: [row | {"chance": 0.1} for row in rows], "score and chance"),
        (lambda rows: edited(rows, 5, score=float("nan")), "no number"),
        (lambda rows: edited(rows, 5, customer=None), "rows without customer"),
        (lambda rows: [without([row | {"chance": -row["score"]}], "score")[0] for row in rows], "outside 0 to 1"),
        (lambda rows: [*rows, rows[-1]], "two predictions for the same action"),
        (lambda rows: [row | {"customer": "nobody"} for row in rows], "none of which is a test visit"),
        (lambda rows: [row | {"action": [row["action"]]} for row in rows], "not read as string"),
    ],
)
def test_files_that_cannot_be_measured_are_refused(
    dataset: Dataset, rows: list[dict], tmp_path: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "bad.parquet", change(rows))
    with pytest.raises(InputError, match=said):
        evaluate(dataset.path, predictions=[file])
    assert main(["evaluate", str(dataset.path), "--predictions", str(file), "--quiet"]) == 2
    assert "hint:" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and nothing", b"customer,visit\n1,2\n"])
def test_what_is_no_parquet_file_is_refused(dataset: Dataset, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "f.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError):
        evaluate(dataset.path, predictions=[file])


def test_unknown_actions_and_other_visits_are_counted(dataset: Dataset, rows: list[dict], tmp_path: Path) -> None:
    more = [*rows, rows[0] | {"action": "nothing known"}, rows[0] | {"visit": 7}]
    result, coverage = only(dataset, write(tmp_path / "f.parquet", without(more, "time")))
    plain, _ = only(dataset, write(tmp_path / "plain.parquet", without(rows, "time")))
    assert (coverage.unknown_actions, coverage.other_visits) == (1, 1)
    assert result.to_dict() == plain.to_dict() | {"name": "f"}


@pytest.mark.parametrize("time_kind", ["clock", "order"])
def test_targets_say_nothing_of_what_visits_hold(tmp_path: Path, time_kind: str) -> None:
    log = habit_log(n_customers=12)
    logs = (log, [(c, t, f"action {hash(a) % 3}", v) for c, t, a, v in log])
    tables = []
    for number, rows in enumerate(logs):
        folder = write_dataset(rows, tmp_path / str(number), time_kind=time_kind)
        n_visits = write_targets(folder, tmp_path / f"{number}.parquet")
        tables.append(pq.read_table(tmp_path / f"{number}.parquet"))
        assert tables[-1].num_rows == n_visits
    assert tables[0].equals(tables[1])
    split = split_by_time(Dataset.open(tmp_path / "0"))
    for row in tables[0].to_pylist():
        time = row["time"] if time_kind == "order" else (row["time"] - np.datetime64(0, "us").item()).days * DAY
        assert row["part"] == ("test" if time >= split.test_start else "valid")


def test_commands(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", str(dataset.path), "--targets", "t.parquet"]
    assert main(command) == 0
    assert "visits to predict: t.parquet" in capsys.readouterr().out
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    targets = pq.read_table("t.parquet").to_pylist()
    guess = [
        {"customer": row["customer"], "visit": row["visit"], "actions": ["action 3", "action 1"]} for row in targets
    ]
    write(Path("guess.parquet"), guess)
    capsys.readouterr()
    assert main(["evaluate", str(dataset.path), "--predictions", "guess.parquet", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "guess" in shown
    assert "TIFU-KNN" in shown
    assert "points over the best baseline" in shown
    assert (
        main(["evaluate", str(dataset.path), "--predictions", "guess.parquet", "--json", "--no-baselines", "-q"]) == 0
    )
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    assert system["name"] == "guess"


def test_models_are_measured_with_their_own_split(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data")
    model = make_model(tmp_path / "model", dataset)
    found = evaluate(dataset.path, models=[model, model], baselines=False)
    assert [result.name for result in found.results] == ["model", "model #2"]
    assert found.results[0].to_dict() == dataclasses.replace(found.results[1], name="model").to_dict()
    config = json.loads((model / "config.json").read_text())
    config["split"]["test_start"] += 1
    other = make_model(tmp_path / "other", dataset)
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="different splits"):
        evaluate(dataset.path, models=[model, other])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=9), max_size=6))
def test_hashes_are_those_of_datasets(names: list[str]) -> None:
    data = [name.encode() for name in names]
    found = np.empty(len(names), np.uint64)
    offsets = np.concatenate(([0], np.cumsum([len(name) for name in data], dtype=np.int64)))
    hash_names(np.frombuffer(b"".join(data) or b" ", np.uint8), offsets, found)
    assert found.tolist() == [name_hash(name) for name in data]
    if names:
        sliced = pa.array(["x", *names]).slice(1)
        assert submissions._hash(sliced).tolist() == found.tolist()


@settings(max_examples=50, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)))
)
def test_visits_are_found(known: set, wanted: list) -> None:
    ordered = sorted(known)
    columns = [np.array([pair[side] for pair in pairs], np.uint64) for pairs in (ordered, wanted) for side in (0, 1)]
    found = np.empty(len(wanted), np.int64)
    find_visits(*columns, found)
    assert found.tolist() == [ordered.index(pair) if pair in known else -1 for pair in wanted]


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(0, 2))
def test_rows_keep_the_order_of_what_is_named(data: st.DataObject, kind: int) -> None:
    V = 7
    named = data.draw(st.lists(st.integers(1, V - 1), unique=True, min_size=1))
    limit = {"min_value": -50, "max_value": 50} if kind == 0 else {"min_value": 0, "max_value": 1}
    values = np.array(
        data.draw(st.lists(st.floats(**limit, width=32), min_size=len(named), max_size=len(named))), np.float32
    )
    rows = np.empty((2, V), np.float32)
    fill_rows(np.array([0, -1]), np.array([0, len(named)]), np.array(named, np.int32), values, kind, rows)
    others = np.delete(rows[0], named)
    assert len(set(others.tolist())) == 1
    assert others[0] < rows[0][named].min()
    for left, right in itertools.pairwise(named):
        a, b = values[named.index(left)], values[named.index(right)]
        assert (rows[0][left] > rows[0][right]) <= (a > b)
    assert len(set(rows[1].tolist())) == 1
    if kind == 1 and values.sum() <= 1:
        np.testing.assert_allclose(np.exp(rows[0][named]), np.maximum(values, 1e-9), rtol=1e-4)
        assert np.exp(rows[0].astype(float)).sum() <= 1.001


def test_nothing_to_measure_is_said(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        evaluate(dataset.path, baselines=False)


def test_visits_that_calibration_does_not_need_are_counted(
    dataset: Dataset, rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "mine.parquet", rows)
    whole = only(dataset, file)[1]
    monkeypatch.setattr(calibration, "SAMPLE_VISITS", 1)
    monkeypatch.setattr(submissions, "_BLOCK_SCORES", 100)
    assert only(dataset, file)[1] == whole


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=5), st.sampled_from([1e-3, 0.25, 8.0, 1e4]))
def test_the_unit_of_scores_does_not_matter(values: list[float], unit: float) -> None:
    """Nor does what is added to all of them: the place of what is not named follows."""
    if max(values) - min(values) < 1e-3:
        return
    rows = np.empty((2, 8), np.float32)
    for row, scores in zip(rows, (np.array(values), unit * (np.array(values) + 1)), strict=True):
        named = np.arange(1, len(values) + 1, dtype=np.int32)
        fill_rows(np.array([0]), np.array([0, len(values)]), named, scores.astype(np.float32), 0, row[None])
    np.testing.assert_allclose(rows[1] / unit - 1, rows[0], atol=1e-3)


def test_all_that_was_asked_for_is_looked_at(tmp_path: Path) -> None:
    """Customers whose first visits lie in validation have no targets there."""
    newcomers = [(f"late {i}", (82 + 2 * k) * DAY, f"action {k}", f"l{i}-{k}") for i in range(9) for k in range(7)]
    dataset = Dataset.open(write_dataset([*habit_log(), *newcomers], tmp_path / "log"))
    write_targets(dataset.path, tmp_path / "targets.parquet")
    targets = pq.read_table(tmp_path / "targets.parquet").to_pylist()
    assert {row["part"] for row in targets if row["n_earlier"] < 3} == {"test"}
    assert {row["part"] for row in targets} == {"valid", "test"}
    guess = [{"customer": row["customer"], "visit": row["visit"], "actions": ["action 3"]} for row in targets]
    _, coverage = only(dataset, write(tmp_path / "guess.parquet", guess))
    assert coverage.other_visits == 0
    assert coverage.test == coverage.test_targets
    assert coverage.valid == coverage.valid_targets


def test_a_file_with_damaged_pages_is_named(dataset: Dataset, rows: list[dict], tmp_path: Path) -> None:
    file = write(tmp_path / "mine.parquet", rows)
    data = bytearray(file.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"mine\.parquet cannot be read as Parquet"):
        evaluate(dataset.path, predictions=[file])


def test_targets_are_whole_or_not_there(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "targets.parquet"
    n_visits = write_targets(dataset.path, file)
    before = file.read_bytes()

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(submissions, "target_visits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_targets(dataset.path, file, overwrite=True)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["targets.parquet"]
    assert n_visits == pq.read_metadata(file).num_rows
