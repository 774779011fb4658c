"""What a benchmark task is: one piece of work that several systems can do, and a way to tell that they did it right."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from luckyfast.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TASKS", "Inputs", "Settings", "Task", "find_task", "is_installed"]

TASKS: dict[str, str] = {
    "ingest": "luckyfast.bench.tasks.ingest",
    "scan": "luckyfast.bench.tasks.scan",
    "parse": "luckyfast.bench.tasks.parse",
    "jsonlines": "luckyfast.bench.tasks.jsonlines",
    "gzip": "luckyfast.bench.tasks.packed",
    "training": "luckyfast.bench.tasks.training",
    "quality": "luckyfast.bench.tasks.quality",
    "search": "luckyfast.bench.tasks.search",
}
"""Where each task lives; a module there has one object named TASK."""


@dataclass(frozen=True)
class Settings:
    """What a whole benchmark run is asked for.

    Args:
        quick: the small form of every task.
        scale: how many times the task's log is repeated, for tasks that can grow theirs.
        memory_bytes: the memory limit given to every system that takes one; None leaves each its default.
        n_threads: how many threads or worker processes a system may use.
    """

    quick: bool = False
    scale: int = 1
    memory_bytes: int | None = None
    n_threads: int = 1


@dataclass(frozen=True)
class Inputs:
    """What a run of a task starts from: plain JSON values, so that it can be handed to another process.

    Args:
        values: paths (as text), sizes and settings that `Task.run` needs. `n_threads`, if it is there, is the number of
            cores that a run's process is held to.
        expected: the checksum that every right result has; None where results are not compared.
        n_bytes: raw bytes that a run reads, from which its throughput is told; 0 where that says nothing.
        warm_up: `values` of a much smaller run that each process does before the one that is timed, and that is done
            once before all others so that compiled kernels are cached on disk; None for no such run.
        systems: those that take part unless others are asked for; None for all.
        environments: variables that a system's process is given before it imports anything.
    """

    values: Mapping[str, Any]
    expected: str | None = None
    n_bytes: int = 0
    warm_up: Mapping[str, Any] | None = None
    systems: tuple[str, ...] | None = None
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the inputs as a JSON object."""
        return asdict(self)


class Task(Protocol):
    """One piece of work. `prepare` runs once; `run` is measured in a fresh process; `check` runs afterwards in another.

    Attributes:
        name: its name on the command line.
        title: one line for people.
        systems: who can do it, luckyfast first, each with the modules it must be able to import.
        default_runs: how often each system runs unless asked otherwise, (whole, quick).
    """

    name: str
    title: str
    systems: Mapping[str, tuple[str, ...]]
    default_runs: tuple[int, int]

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Make the input below `cache`, unless an earlier call has left it there, and say what a right result is."""

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Do the work once and leave the result in the new folder `out`: this is what is timed.

        Returns:
            Figures of the task itself (hit rates, seconds by stage), shown beside time and memory.
        """

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str | None:
        """Return the checksum of the result in `out`, the same for every right result; None where there is none.

        Raises:
            ValueError: the result is no result at all, for instance out of order.
        """


def find_task(name: str) -> Task:
    """Return the task of that name.

    Args:
        name: a key of `TASKS`, or `module:object` for a task that lives elsewhere.

    Returns:
        The task.

    Raises:
        UserError: there is no such task.

    Example:
        >>> find_task("ingest").name
        'ingest'
    """
    module, _, attribute = TASKS.get(name, name).partition(":")
    if name not in TASKS and not attribute:
        raise UserError(f"there is no benchmark task {name!r}", hint=f"the tasks are: {', '.join(TASKS)}")
    return cast("Task", getattr(import_module(module), attribute or "TASK"))


def is_installed(modules: tuple[str, ...]) -> bool:
    """Say whether all these modules can be imported, without importing them.

    Example:
        >>> is_installed(("json",)), is_installed(("json", "no_such_package.module"))
        (True, False)
    """
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # the package around one of them is missing
        return False
