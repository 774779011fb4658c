"""What a search has done, as lines that are only ever appended: the one state from which it goes on after any end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luckyfast.errors import ModelError

__all__ = ["Journal", "Record", "Trial", "read_events"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Record:
    """What came of a trial at one rung.

    Args:
        status: ``ok``, ``memory`` (it wanted more than its share), or ``failed``.
        loss: validation loss; None unless ok.
        seconds: what it took.
        figures: further numbers of the run, such as ``valid_hit1`` and ``peak_bytes``.
        at_s: when it ended, in seconds of the search.
    """

    status: str
    loss: float | None
    seconds: float
    figures: dict[str, Any]
    at_s: float


@dataclass
class Trial:
    """One configuration.

    Args:
        number: of its proposal.
        settings: of the model.
        records: what came of it, by rung.
        open: rungs that were begun and not ended.
    """

    number: int
    settings: dict[str, Any]
    records: dict[int, Record] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    @property
    def rung(self) -> int:
        """The highest rung with a loss; -1 where there is none."""
        return max((rung for rung, record in self.records.items() if record.loss is not None), default=-1)

    @property
    def reached(self) -> int:
        """The highest rung that was begun."""
        return max([*self.records, *self.open], default=-1)

    @property
    def loss(self) -> float | None:
        """The loss at the highest rung that has one."""
        return self.records[self.rung].loss if self.rung >= 0 else None


class Journal:
    """The journal of one search, kept in a file.

    A line is on disk before the call that writes it returns. A last line that was cut off is left out when the file is
    read, and nothing is appended to it.

    Args:
        path: of the file; made if it is not there.
        header: what the search is; kept in the first line of a new file.

    Raises:
        ModelError: the file is damaged or of another version.

    Attributes:
        header: what the search is, as it was begun.
        trials: by number, as they stand.
        open: number and rung of what was begun and has not ended, in the order in which it first began.
        spent_s: seconds of the search until the last line of an earlier run.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.trials: dict[int, Trial] = {}
        self.open: list[tuple[int, int]] = []
        self.spent_s = 0.0
        events = list(read_events(path)) if path.exists() else []
        if path.exists():
            _cut_last_line(path)
        self._file = path.open("ab")
        if events:
            self.header: dict[str, Any] = events[0]
            for event in events[1:]:
                self._apply(event)
        else:
            self.header = {"event": "search", "version": FORMAT_VERSION, **header}
            self._write(self.header)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def begin(self, number: int, rung: int, settings: dict[str, Any], at_s: float) -> Trial:
        """Write that a trial begins at a rung."""
        self._add({"event": "begin", "trial": number, "rung": rung, "at_s": round(at_s, 3), "settings": settings})
        return self.trials[number]

    def end(self, number: int, rung: int, record: Record) -> None:
        """Write what came of it."""
        event = {"event": "end", "trial": number, "rung": rung, "status": record.status, "valid_loss": record.loss}
        event |= {"seconds": round(record.seconds, 3), "at_s": round(record.at_s, 3)}
        self._add(event | {"settings": self.trials[number].settings, "figures": record.figures})

    def note(self, event: str, at_s: float, **content: Any) -> None:
        """Write anything else that happened."""
        self._add({"event": event, "at_s": round(at_s, 3), **content})

    def _add(self, event: dict[str, Any]) -> None:
        self._write(event)
        self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        self.spent_s = max(self.spent_s, event["at_s"])
        if event["event"] == "begin":
            job = (event["trial"], event["rung"])
            self.open += [] if job in self.open else [job]
            trial = self.trials.setdefault(event["trial"], Trial(event["trial"], event["settings"]))
            trial.open.add(event["rung"])
        elif event["event"] == "end":
            trial = self.trials[event["trial"]]
            self.open.remove((event["trial"], event["rung"]))
            trial.open.discard(event["rung"])
            trial.records[event["rung"]] = Record(
                event["status"], event["valid_loss"], event["seconds"], event["figures"], event["at_s"]
            )

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a journal; a last line that was cut off is left out.

    Raises:
        ModelError: the file is missing, damaged, or of another version.
    """
    hint = "search anew without --resume"
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    for number, line in enumerate(lines, start=1):
        try:
            event: dict[str, Any] = json.loads(line)
            if number == 1 and event["version"] != FORMAT_VERSION:
                raise ModelError(f"{path} has version {event['version']}, not {FORMAT_VERSION}", hint=hint)
            event["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}:{number} is no line of a search", hint=hint) from error
        yield event


def _cut_last_line(path: Path) -> None:
    """Remove what was written of a line when the machine stopped."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
