"""One training without a search, and its refit: killed for real, resumed, and the same to the last bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_rows import habit_log
from naive_ingest import write_dataset

from luckyfast.checkpoint import Checkpoint, Progressed, read_share
from luckyfast.search.jobs import CHECKPOINTS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(habit_log(n_customers=300, n_visits=20), tmp_path_factory.mktemp("log") / "dataset")


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of a run that nothing ends."""
    out = tmp_path_factory.mktemp("whole") / "model"
    subprocess.run(command(dataset, out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def command(dataset: Path, out: Path, *more: str) -> list[str]:
    settings = ["--hidden=24", "--embedding=12", "--epochs=6", "--learning-rate=0.0005", "--seed=4"]
    settings += ["--threads=1", "--search=none", "--set", "refit_epochs=2"]
    return [sys.executable, "-m", "luckyfast", "fit", str(dataset), "--out", str(out), *settings, *more]


def often(folder: Path) -> dict[str, str]:
    """An environment in which every process keeps its training between any two batches, and takes its time for it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "from luckyfast import checkpoint\n"
        "checkpoint.INTERVAL_S = 0.0\n"
        "save = checkpoint.Checkpoint.save\n"
        "checkpoint.Checkpoint.save = lambda *kept: (save(*kept), time.sleep(0.02))[0]\n"
    )
    return dict(os.environ) | {"PYTHONPATH": str(folder)}


def kill_at(arguments: list[str], checkpoint: Path, share: float, environment: dict[str, str]) -> None:
    """Kill a run as soon as its checkpoint has a share behind it."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while read_share(checkpoint) < share:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    time.sleep(0.3)  # its children follow it
    assert 0 < read_share(checkpoint) < 1, "killed too late"


def content(checkpoint: Path) -> Progressed:
    with np.load(checkpoint) as file:
        key = json.loads(file["json"].tobytes())["key"]
    state = Checkpoint(checkpoint, key).load()
    assert state is not None
    return state


def assert_same_model(model: Path, other: Path) -> None:
    with np.load(model / "weights.npz") as one, np.load(other / "weights.npz") as two:
        assert sorted(one.files) == sorted(two.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])
    assert json.loads((model / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())
    assert (model / "model.onnx").read_bytes() == (other / "model.onnx").read_bytes()


def curve(model: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (model / "curve.jsonl").read_text().splitlines()]


def test_a_killed_training_goes_on_and_gives_the_same_bytes(dataset: Path, whole: Path, tmp_path: Path) -> None:
    out, study = tmp_path / "model", tmp_path / "model.search"
    environment, checkpoint = often(tmp_path / "often"), study / "trial-0-2.checkpoint"
    for share in (0.25, 0.6):
        kill_at(command(dataset, out, "--resume"), checkpoint, share, environment)
    before = content(checkpoint).values["lines"]
    assert len(before) >= 3
    unasked = subprocess.run(command(dataset, out), capture_output=True, text=True)
    assert unasked.returncode == 2
    assert "unfinished search or training" in unasked.stderr
    assert "--resume" in unasked.stderr
    subprocess.run(command(dataset, out, "--resume"), check=True, capture_output=True)
    # The first epochs are those of the killed runs, with the seconds that they took then.
    assert curve(out)[: len(before)] == before
    assert len(curve(out)) == len(curve(whole)) > len(before)
    assert_same_model(out, whole)
    assert not study.exists()


def test_a_killed_refit_goes_on_and_gives_the_same_bytes(dataset: Path, whole: Path, tmp_path: Path) -> None:
    out, study = tmp_path / "model", tmp_path / "model.search"
    environment, checkpoint = often(tmp_path / "often"), study / "refit-0-2.checkpoint"
    kill_at(command(dataset, out), checkpoint, 0.4, environment)
    assert [path.name for path in study.glob(CHECKPOINTS)] == ["refit-0-2.checkpoint"]
    trained = (study / "trial-0-2" / "trial.json").stat().st_mtime_ns
    n_steps = content(checkpoint).values["course"]["n_steps"]
    kill_at(command(dataset, out, "--resume"), checkpoint, read_share(checkpoint) + 0.1, environment)
    assert content(checkpoint).values["course"]["n_steps"] > n_steps
    assert (study / "trial-0-2" / "trial.json").stat().st_mtime_ns == trained
    subprocess.run(command(dataset, out, "--resume"), check=True, capture_output=True)
    assert_same_model(out, whole)
    assert not study.exists()


def test_another_configuration_never_takes_a_checkpoint(dataset: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "model", tmp_path / "other"
    checkpoint = tmp_path / "model.search" / "trial-0-2.checkpoint"
    kill_at(command(dataset, out), checkpoint, 0.2, often(tmp_path / "often"))
    kept = checkpoint.read_bytes()
    for settings in (["--hidden=25"], ["--seed=5"], ["--no-habit"]):
        refused = subprocess.run(command(dataset, out, "--resume", *settings), capture_output=True, text=True)
        assert refused.returncode == 2
        assert "had another" in refused.stderr
        assert checkpoint.read_bytes() == kept
    # Should one come to lie where another is looked for, its key still says whose it is.
    place = tmp_path / "other.search" / checkpoint.name
    kill_at(command(dataset, other, "--hidden=25"), place, 0.2, often(tmp_path / "often too"))
    shutil.copyfile(checkpoint, place)
    refused = subprocess.run(command(dataset, other, "--hidden=25", "--resume"), capture_output=True, text=True)
    assert refused.returncode == 2
    assert "belongs to another dataset or other settings" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_seconds_of_killed_runs_count(dataset: Path, tmp_path: Path) -> None:
    """The schedule of a resumed run is fitted into what is left of the budget, not into all of it again."""
    out, study = tmp_path / "model", tmp_path / "model.search"
    long = ["--epochs=100000", "--budget=80s", "--resume"]
    process = subprocess.Popen(command(dataset, out, *long), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(45)
    process.kill()
    process.wait()
    share = read_share(study / "trial-0-2.checkpoint")
    assert 0.1 < share < 1
    began = time.monotonic()
    subprocess.run(command(dataset, out, *long), check=True, capture_output=True)
    took = time.monotonic() - began
    # The time is written down every half minute, and a budget is kept to five seconds.
    assert 80 - 45 - 15 < took < 80 - 30 + 5
    assert json.loads((out / "config.json").read_text())["elapsed_s"] < 85


def test_ctrl_c_before_the_first_epoch_leaves_what_can_be_resumed(dataset: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    checkpoint = tmp_path / "model.search" / "trial-0-2.checkpoint"
    process = subprocess.Popen(
        command(dataset, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=often(tmp_path / "often")
    )
    while read_share(checkpoint) == 0:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said
    if process.returncode == 130:
        assert checkpoint.exists()
        subprocess.run(command(dataset, out, "--resume"), check=True, capture_output=True)
        assert_same_model(out, whole)
    else:  # an epoch had ended: that is the model
        assert process.returncode == 0
        assert json.loads((out / "config.json").read_text())["interrupted"]
