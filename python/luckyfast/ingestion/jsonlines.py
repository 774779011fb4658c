"""Lines of JSON objects: their columns from a sample, and the few needed values of each line as rows of fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast import _engine
from luckyfast.errors import InputError
from luckyfast.ingestion.plan import FilePlan
from luckyfast.ingestion.sources import Sample

__all__ = ["Projector", "find_projector", "looks_like_json", "sample_json"]


class Projector:
    """Turns indexed lines into indexed rows; its buffers are used again and again.

    Args:
        paths: the needed values, keys joined by dots.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [path.encode() for path in paths]
        self.n_fields = len(paths) + 1
        self._text = np.frombuffer(b"".join(encoded) + bytes(8), np.uint8)
        self._stops = np.cumsum([len(path) for path in encoded]).astype(np.uint32)
        self._out = np.empty(0, np.uint8)
        self._separators = self._row_stops = np.empty(0, np.uint32)

    def project(
        self,
        data: NDArray[np.uint8],
        start: int,
        separators: NDArray[np.uint32],
        row_stops: NDArray[np.uint32],
        lines: tuple[int, int],
        scratch_bytes: int,
    ) -> tuple[NDArray[np.uint8], int, NDArray[np.uint32], NDArray[np.uint32]]:
        """The rows of lines[0]:lines[1], row i being line lines[0] + i.

        Args:
            data: uint8, the block.
            start: where the first line begins.
            separators: uint32, the index of the block's lines.
            row_stops: uint32, likewise.
            lines: first and stop.
            scratch_bytes: room to leave behind the rows.

        Returns:
            The rows' bytes, how many there are, and their index as the engine's `scan` gives it.
        """
        first, n_lines = lines[0], lines[1] - lines[0]
        if len(self._row_stops) < n_lines:
            self._row_stops = np.empty(2 * n_lines, np.uint32)
        if len(self._separators) < n_lines * self.n_fields:
            self._separators = np.empty(2 * n_lines * self.n_fields, np.uint32)
        n_bytes = max(len(self._out), len(data) // 2) - scratch_bytes
        while True:
            if len(self._out) < n_bytes + scratch_bytes:
                self._out = np.empty(n_bytes + scratch_bytes, np.uint8)
            n_done, n_out = _engine.project_json(
                data,
                start,
                separators,
                row_stops,
                first,
                n_lines,
                self._text,
                self._stops,
                self._out[: len(self._out) - scratch_bytes],
                self._separators,
                self._row_stops,
            )
            if n_done == n_lines:
                return self._out, n_out, self._separators, self._row_stops
            n_bytes = 2 * len(self._out)


def find_projector(file: FilePlan, known: dict[tuple[str, ...], Projector]) -> Projector | None:
    """The projector of a file of JSON lines, from those that a worker has; None for other files."""
    if file.source.form != "json":
        return None
    paths = tuple(file.dialect.header[column] for column in file.needed)
    if paths not in known:
        known[paths] = Projector(paths)
    return known[paths]


def looks_like_json(head: bytes) -> bool:
    """Whether text begins with a JSON object."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"{") and text[1:].lstrip()[:1] in (b'"', b"}")


def sample_json(label: str, sample: Sample) -> tuple[list[str], list[tuple[str, ...]]]:
    """The columns of a log of JSON lines, and sampled rows as text.

    Args:
        label: the file, for messages.
        sample: its text.

    Returns:
        The paths of all values that are no objects, in the order in which they appear, and rows of their texts: numbers
        as they are written, nothing for null and for what is not there.

    Raises:
        InputError: most lines are no JSON objects, as in a file that spreads one over several lines.

    Example:
        >>> sample_json("log", Sample(b'{"id": 7.0, "event": {"type": "view"}}\\n{"id": "8"}\\n', (), True))
        (['id', 'event.type'], [('7.0', 'view'), ('8', '')])
    """
    pieces = [sample.head if sample.complete else sample.head[: sample.head.rfind(b"\n")]]
    pieces += [block[block.find(b"\n") + 1 : block.rfind(b"\n")] for block in sample.blocks]
    lines = [line for piece in pieces for line in piece.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    rows: list[dict[str, str]] = []
    for line in lines:
        try:
            found = json.loads(line.decode(errors="replace"), parse_int=str, parse_float=str, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            rows.append(dict(_flatten(found, "")))
    if len(rows) < 0.5 * len(lines):
        raise InputError(
            f"{label} is JSON, but not one object per line: {lines[0][:60].decode(errors='replace')!r}",
            hint="write one object per line first: jq -c . FILE > NEW.jsonl",
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [tuple(row.get(name, "") for name in names) for row in rows]


def _flatten(found: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _as_text(value)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
