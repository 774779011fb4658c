"""Every example in a docstring runs. What an example may use beside its own module is made here."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import make_dataset, make_model, make_trained

import luckyfast
from luckyfast.calibration import Calibration
from luckyfast.features import FeatureScale
from luckyfast.models import ModelConfig
from luckyfast.search.space import default_space
from luckyfast.training import train
from luckyfast.windows import Split, split_by_time


def find_documented() -> list[str]:
    """Modules with an example, from their text: importing them all takes long."""
    (root,) = luckyfast.__path__
    found = ["luckyfast"]
    for module in pkgutil.walk_packages([root], "luckyfast.", onerror=lambda name: None):
        path = Path(root, *module.name.split(".")[1:])
        file = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        if any(">>> " in line and "+SKIP" not in line for line in lines):
            found.append(module.name)
    return found


DOCUMENTED = find_documented()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("examples")
    dataset = make_dataset(folder / "dataset")
    (dataset.path / "rejects").mkdir()
    scorer, split = make_trained(dataset)
    return {
        "luckyfast": luckyfast,
        "np": np,
        "Calibration": Calibration,
        "FeatureScale": FeatureScale,
        "ModelConfig": ModelConfig,
        "Path": Path,
        "Split": Split,
        "default_space": default_space,
        "split_by_time": split_by_time,
        "train": train,
        "dataset": dataset,
        "dataset_path": dataset.path,
        "split": split,
        "scorer": scorer,
        "trained": scorer,
        "model_folder": make_model(folder / "model", dataset),
    }


def test_examples_are_found() -> None:
    assert {"luckyfast", "luckyfast.fitting", "luckyfast.ingestion.times", "luckyfast.bench.checksum"} <= {*DOCUMENTED}
    assert len(DOCUMENTED) > 50


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_run(name: str, made: dict[str, Any], tmp_path: Path) -> None:
    names = made | {"tmp_path": tmp_path, "folder": tmp_path, "model_path": tmp_path / "model"}
    names["model"] = luckyfast.load(made["model_folder"])
    found = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert (found.failed, found.attempted > 0) == (0, True)
