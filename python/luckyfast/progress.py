"""Progress as a stream of events: stages report, whoever runs them draws."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NullProgress", "Progress"]


class Progress(Protocol):
    """What a long-running stage tells the outside. Calls may come from one thread at a time."""

    def start(self, stage: str, total: float | None, unit: str) -> None:
        """Begin a stage of ``total`` units (None = unknown); ends the stage before it.

        Units are plural nouns; "bytes" are shown as sizes, and of "share" (in 0 to 1) only the percentage.
        """

    def advance(self, amount: float) -> None:
        """Count ``amount`` more units of the current stage."""

    def note(self, text: str) -> None:
        """Show one short line about the current stage, such as a loss."""

    def finish(self) -> None:
        """End the current stage."""


class NullProgress:
    """A listener that does nothing: the default everywhere."""

    def start(self, stage: str, total: float | None, unit: str) -> None:
        """Ignore."""

    def advance(self, amount: float) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""
