"""A training on disk, so that a killed process loses less than a minute of it."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError
from luckyfast.files import completed

__all__ = ["Checkpoint", "Progressed", "read_share"]

INTERVAL_S = 30.0
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class Progressed:
    """How far a training has come.

    Args:
        values: JSON-able; of these ``share`` is how much of the training is done.
        arrays: by name.
    """

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class Checkpoint:
    """One file that always holds a whole state: a new one is written beside it and takes its name at the end.

    Args:
        path: the file; None keeps nothing.
        key: what the state belongs to, JSON-able.

    Example:
        >>> checkpoint = Checkpoint(tmp_path / "training.npz", {"seed": 1})
        >>> checkpoint.save(Progressed({"n_steps": 7}, {"weights": np.zeros(3)}))
        >>> Checkpoint(tmp_path / "training.npz", {"seed": 1}).load().values["n_steps"]
        7
    """

    def __init__(self, path: Path | None, key: dict[str, Any]) -> None:
        self.path, self.key = path, json.loads(json.dumps(key))
        self._saved = time.monotonic()

    def load(self) -> Progressed | None:
        """Read the state, if there is one.

        Raises:
            ModelError: the file is damaged, or belongs to another dataset or other settings.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with self.path.open("rb") as opened, np.load(opened) as file:
                arrays = {name: file[name] for name in file.files}
            content = json.loads(arrays.pop("json").tobytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"it has format {content['format']}, {_FORMAT} was expected")
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"the checkpoint {self.path} is damaged: {error}", hint="delete it to start anew"
            ) from error
        if content["key"] != self.key:
            raise ModelError(
                f"the checkpoint {self.path} belongs to another dataset or other settings",
                hint="give the same ones again, or delete it to start anew",
            )
        return Progressed(content["values"], arrays)

    def save(self, state: Progressed) -> None:
        """Replace the file."""
        if self.path is None:
            return
        content = json.dumps({"format": _FORMAT, "key": self.key, "values": state.values}).encode()
        with completed(self.path) as partial, partial.open("wb") as file:
            arrays: dict[str, Any] = {"json": np.frombuffer(content, np.uint8), **state.arrays}
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        self._saved = time.monotonic()

    def save_in_time(self, state: Callable[[], Progressed]) -> None:
        """Replace the file if the last time is half a minute ago."""
        if self.path is not None and time.monotonic() - self._saved >= INTERVAL_S:
            self.save(state())


def read_share(path: Path) -> float:
    """How much of a training its checkpoint has behind it; 0 where there is none that can be read.

    Example:
        >>> Checkpoint(tmp_path / "half.npz", {}).save(Progressed({"share": 0.5}, {}))
        >>> read_share(tmp_path / "half.npz"), read_share(tmp_path / "none.npz")
        (0.5, 0.0)
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return float(json.loads(file["json"].tobytes())["values"]["share"])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return 0.0
