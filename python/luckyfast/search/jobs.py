"""How jobs are named, and what one can tell while it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from luckyfast.progress import NullProgress, Progress

__all__ = ["BASELINES", "FINISH", "PROBE", "TRIAL", "call", "listener"]

# Names and not functions: who gives a job need not import what does it.
PROBE = "luckyfast.search.trial:probe"
TRIAL = "luckyfast.search.trial:run_trial"
BASELINES = "luckyfast.finishing:measure_baselines"
FINISH = "luckyfast.finishing:finish_model"

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
