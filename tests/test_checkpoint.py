"""A training that is killed goes on where it was, with the same result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from log_rows import habit_log
from naive_ingest import write_dataset
from tiny_model import TINY

from luckyfast import checkpoint as module
from luckyfast.checkpoint import Checkpoint, Progressed, read_share
from luckyfast.dataset import Dataset
from luckyfast.errors import ModelError
from luckyfast.progress import NullProgress
from luckyfast.training import refit, train
from luckyfast.windows import split_by_time

CONFIG = replace(TINY, epochs=4, refit_epochs=3)
CHILD = """
import sys
from luckyfast import checkpoint
from luckyfast.dataset import Dataset
from luckyfast.models import ModelConfig
from luckyfast.training import train
from luckyfast.windows import split_by_time
from pathlib import Path
import json
checkpoint.INTERVAL_S = 0.0
dataset = Dataset.open(sys.argv[1])
config = ModelConfig.from_dict(json.loads(sys.argv[3]))
tell = lambda line: print(line["epoch"], flush=True)
train(dataset, split_by_time(dataset), config, checkpoint=Path(sys.argv[2]), on_epoch=tell)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(write_dataset(habit_log(n_customers=60), tmp_path_factory.mktemp("log") / "dataset"))


def test_a_killed_training_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    split, file = split_by_time(dataset), tmp_path / "training.npz"
    whole: list[dict[str, Any]] = []
    expected = train(dataset, split, CONFIG, on_epoch=whole.append)
    command = [sys.executable, "-c", CHILD, str(dataset.path), str(file), json.dumps(CONFIG.to_dict())]
    for epoch in ("1", "3"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() == epoch:
                    child.send_signal(signal.SIGKILL)
                    break
        assert child.returncode == -signal.SIGKILL
        assert file.exists()
    lines: list[dict[str, Any]] = []
    model = train(dataset, split, CONFIG, checkpoint=file, on_epoch=lines.append)
    for name, array in expected.state.items():
        np.testing.assert_array_equal(model.state[name], array)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["valid_loss"] for line in lines] == [line["valid_loss"] for line in whole]
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


class Watch(NullProgress):
    """Counts the share of a refit that is told, and presses Ctrl-C at a share."""

    def __init__(self, stop_at: float = 2.0) -> None:
        self.stop_at, self.share, self.first = stop_at, 0.0, -1.0

    def advance(self, amount: float) -> None:
        self.share += amount
        self.first = amount if self.first < 0 else self.first
        if self.share >= self.stop_at:
            raise KeyboardInterrupt


def test_a_refit_goes_on(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, file = split_by_time(dataset), tmp_path / "refit.checkpoint"
    blind = train(dataset, split, CONFIG).blind
    expected = refit(blind, dataset, split)
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    assert refit(blind, dataset, split, checkpoint=file, progress=Watch(0.5)).interrupted
    assert 0.3 < read_share(file) < 0.6
    watch = Watch()
    again = refit(blind, dataset, split, checkpoint=file, progress=watch)
    assert 0.3 < watch.first < 0.6
    assert read_share(file) == 1
    for model in (again, refit(blind, dataset, split, checkpoint=file)):
        for name, array in expected.state.items():
            np.testing.assert_array_equal(model.state[name], array)
    other = replace(blind, state={name: array + 1 for name, array in blind.state.items()})
    with pytest.raises(ModelError, match="another dataset or other settings"):
        refit(other, dataset, split, checkpoint=file)
    with pytest.raises(ModelError, match="another dataset or other settings"):
        train(dataset, split, CONFIG, checkpoint=file)


def test_ctrl_c_leaves_the_checkpoint(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    split, file = split_by_time(dataset), tmp_path / "training.npz"

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    assert train(dataset, split, CONFIG, checkpoint=file, on_epoch=stop).interrupted
    assert file.exists()
    with pytest.raises(ModelError, match="another dataset or other settings"):
        train(dataset, split, replace(CONFIG, seed=1), checkpoint=file)
    with pytest.raises(ModelError, match="another dataset or other settings"):
        train(dataset, split, CONFIG, customers=0.5, checkpoint=file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="damaged"):
        train(dataset, split, CONFIG, checkpoint=file)


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "x.npz", {"a": (1, 2)})
    assert kept.load() is None
    kept.save(Progressed({"n": 1}, {"w": np.arange(3)}))
    kept.save(Progressed({"n": 2}, {"w": np.arange(4)}))
    state = kept.load()
    assert state is not None
    assert state.values == {"n": 2}
    assert state.arrays["w"].tolist() == [0, 1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]
    nothing = Checkpoint(None, {})
    nothing.save(Progressed({}, {}))
    assert nothing.load() is None
