"""How jobs are named, and what one can tell while it runs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from luckyfast.progress import NullProgress, Progress

__all__ = ["BASELINES", "CHECKPOINTS", "FINISH", "PROBE", "TRIAL", "call", "checkpoint_of", "listener"]

# Names and not functions: who gives a job need not import what does it.
PROBE = "luckyfast.search.trial:probe"
TRIAL = "luckyfast.search.trial:run_trial"
BASELINES = "luckyfast.finishing:measure_baselines"
FINISH = "luckyfast.finishing:finish_model"

CHECKPOINTS = "*.checkpoint"

listener: Progress = NullProgress()
"""Set in processes of :class:`~luckyfast.search.process.JobProcesses`; elsewhere nobody listens."""


def call(name: str, *arguments: Any) -> Any:
    """Call a function by its module and name.

    Example:
        >>> call("math:hypot", 3, 4)
        5.0
    """
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)(*arguments)


def checkpoint_of(folder: Path) -> Path:
    """The file in which a job keeps its training until the folder of what comes of it is safe.

    Example:
        >>> checkpoint_of(Path("study/trial-0-2")).name
        'trial-0-2.checkpoint'
    """
    return folder.with_name(f"{folder.name}.checkpoint")
