"""What people see of a search: on a terminal, in a log, and afterwards."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from luckyfast.cli import main
from luckyfast.models import ModelConfig
from luckyfast.search.journal import Journal, Record
from luckyfast.search.scheduler import RUNGS, Job
from luckyfast.search.space import default_space
from luckyfast.search.study import Best, Running, Status
from luckyfast.trial_display import LinePrinter, LivePanel, render

START = ModelConfig().to_dict()


def status(**changed: Any) -> Status:
    values: dict[str, Any] = {
        "elapsed_s": 65.0,
        "budget_s": 600.0,
        "running": [Running(Job(7, 1, START), 30.0, 50.0, share=0.5)],
        "n_workers": 2,
        "used_bytes": 700_000_000,
        "memory_bytes": 2_000_000_000,
        "rungs": [(1 / 9, 1.0, 5), (1 / 3, 1.0, 1), (1.0, 1.0, 1), (1.0, 3.0, 0)],
        "n_trials": 8,
        "best": Best(3, 1, START | {"hidden": 77}, 4.5432, {"valid_hit1": 0.41}, Path()),
        "ends_in_s": 480.0,
        "start": START,
        "habit_hit1": 0.375,
    }
    return Status(**values | changed)


def drawn(one: Status) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=110)
    console.print(render(one))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 110
    return str(text)


def test_the_panel_shows_time_memory_rungs_workers_and_the_best() -> None:
    text = drawn(status())
    for expected in ("1m05s of 10m00s", "search ends in 8m00s", "700 MB of 2 GB", "11%", "35.0s of about 50.0s"):
        assert expected in text
    assert "trial 3, loss 4.5432, hit@1 by score 0.410 (+3.5 points" in text
    assert "hidden 77" in text
    without = drawn(status(budget_s=math.inf, memory_bytes=None, best=None, running=[]))
    assert "no model yet" in without


def test_a_log_gets_news_and_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LinePrinter()
    for elapsed_s in (1.0, 2.0, 3.0, 40.0):
        printer(status(elapsed_s=elapsed_s))
    printer(status(message="trial 9: validation loss 4.5, the best so far"))
    printer(status(message="trial 0: validation loss 4.5, the best so far", single=True))
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 4
    assert "the best so far" in lines[2]


def test_the_live_panel_ends_with_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    panel = LivePanel()
    panel(status())
    panel(status(ended=True, message="the time is up"))
    assert panel._live is None
    assert capsys.readouterr().out == ""


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    space = default_space(ModelConfig())
    header = {"space": space.to_dict(), "rungs": [[rung.customers, rung.epochs] for rung in RUNGS]}
    journal = Journal(tmp_path / "trials.jsonl", header)
    for number in range(24):
        settings = START | {"learning_rate": 0.001 * (1 + number), "dropout": (number * 7 % 24) / 40}
        journal.begin(number, 0, settings, number)
        figures = {"valid_hit1": 0.4, "peak_bytes": 5e8}
        loss = None if number == 5 else abs(number - 10) / 10
        journal.end(number, 0, Record("ok" if loss is not None else "memory", loss, 3.0, figures, number + 0.5))
    journal.begin(10, 1, journal.trials[10].settings, 30.0)
    journal.end(10, 1, Record("ok", 0.0, 9.0, {"valid_hit1": 0.42, "peak_bytes": 5e8}, 39.0))
    journal.note("stop", 40.0, reason="the time is up")
    journal.close()
    return tmp_path


def test_trials_are_printed_best_first(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", str(searched), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "24 configurations, 25 trainings" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["10", "9", "11"]
    assert any("1 trainings ended for want of memory" in line for line in lines)
    assert any(line.strip().startswith("learning_rate") for line in lines)
    assert lines[-1] == "the search ended: the time is up"


def test_a_trial_is_as_good_as_its_best_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What more passes made worse is still first in the table, with the training that the model comes from."""
    header = {"space": default_space(ModelConfig()).to_dict(), "rungs": [[r.customers, r.epochs] for r in RUNGS]}
    whole = [number for number, rung in enumerate(RUNGS) if rung.customers == 1.0]
    journal = Journal(tmp_path / "trials.jsonl", header)
    for number, rung, loss in ((0, whole[0], 1.0), (0, whole[1], 2.0), (1, whole[0], 1.5), (2, 0, 0.5)):
        journal.begin(number, rung, START, 0.0)
        journal.end(number, rung, Record("ok", loss, 1.0, {"valid_hit1": 0.4, "peak_bytes": 5e8}, 1.0))
    journal.close()
    assert main(["trials", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:5]]
    assert [(line[0], line[3]) for line in lines] == [("0", "1.0000"), ("1", "1.5000"), ("2", "0.5000")]


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_trials_are_exported(searched: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = searched / f"all.{ending}"
    assert main(["trials", str(searched), "--out", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 25
    if ending == "parquet":
        import pyarrow.parquet as pq

        assert pq.read_table(file).num_rows == 25
    else:
        assert len(file.read_text().splitlines()) == 25 + (ending == "csv")
    assert main(["trials", str(searched), "--out", str(file)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--out", "trials.xlsx"]])
def test_mistakes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["trials", *arguments]) == 2
    said = capsys.readouterr().err
    assert "error:" in said
    assert "hint:" in said
