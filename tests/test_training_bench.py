"""The training benchmark compares equal work, and tells when it is not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from log_rows import habit_log
from luckyfast.bench.original import main as original
from luckyfast.bench.task import Settings
from luckyfast.bench.tasks.training import TASK, TOLERANCE, Shape, compare, main
from naive_ingest import write_dataset


@pytest.mark.parametrize("embedding", [0, 6])
def test_both_systems_have_the_same_losses(embedding: int) -> None:
    found = compare(Shape(8, 5, 12, 40, embedding), ["luckyfast", "torch"], 50, 1)
    assert found["gap"] < 1e-4
    assert set(found["ms"]) == {"luckyfast", "torch"}
    assert found["share"] > 0


def test_the_task_checks_losses(tmp_path: Path) -> None:
    inputs = TASK.prepare(tmp_path, Settings(quick=True, n_threads=1))
    assert TASK.run("luckyfast", inputs.values, tmp_path)["ms_per_step"] > 0
    assert TASK.check("luckyfast", inputs.values, tmp_path) is None
    losses = json.loads((tmp_path / "losses.json").read_text())
    assert len(losses) == 10
    losses[-1] += 2e-4
    (tmp_path / "losses.json").write_text(json.dumps(losses))
    with pytest.raises(ValueError, match="losses of luckyfast differ by"):
        TASK.check("luckyfast", inputs.values, tmp_path)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "3", "--shapes", "2"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3
    assert rows[2].startswith("| 64 x 32, hidden 128, 300 actions, embedding 64 | ")
    assert len({row.count("|") for row in rows}) == 1


def test_windows_are_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(habit_log(), tmp_path / "complete-journey-dataset")
    assert original(["--cache", str(tmp_path), "--times", "0.1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("luckyfast: ")
    assert rows[1].startswith("windows: ")
    assert all("hit@1 0." in row for row in rows)


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
def test_keras_learns_the_same() -> None:
    assert compare(Shape(8, 5, 12, 40, 6), ["luckyfast", "keras"], 10, 1)["gap"] < TOLERANCE
