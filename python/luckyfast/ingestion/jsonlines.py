"""Lines of JSON objects: their columns from a sample, and the few needed values of each line as rows of fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast import _engine
from luckyfast.errors import InputError
from luckyfast.ingestion.plan import FilePlan
from luckyfast.ingestion.sources import Sample
from luckyfast.ingestion.stream import SCRATCH_BYTES, Block, Workspace, row_bounds

__all__ = ["Projector", "find_projector", "looks_like_json", "sample_json"]

_FIRST_BYTES = 1 << 18


class Projector:
    """Turns blocks of lines into blocks of rows, in a workspace of its own that is used again and again.

    Args:
        paths: the needed values, keys joined by dots.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        encoded = [path.encode() for path in paths]
        self._text = np.frombuffer(b"".join(encoded) + bytes(8), np.uint8)
        self._stops = np.cumsum([len(path) for path in encoded]).astype(np.uint32)
        self._workspace = Workspace(_FIRST_BYTES)

    def project(self, block: Block) -> Block:
        """The rows of a block of indexed lines, row i being its line i."""
        if block.long_row is not None:
            return block
        lines, rows = block.workspace, self._workspace
        first, n_lines = block.rows[0], block.rows[1] - block.rows[0]
        rows.make_room(n_lines)
        while True:
            room = len(rows.buffer) - SCRATCH_BYTES - _engine.SLACK
            n_done, n_out = _engine.project_json(
                lines.buffer,
                block.row_start,
                lines.separators,
                lines.row_stops,
                first,
                n_lines,
                self._text,
                self._stops,
                rows.buffer[:room],
                rows.separators,
                rows.row_stops,
            )
            if n_done == n_lines:
                break
            rows.make_room(2 * room)
        return replace(
            block,
            workspace=rows,
            scratch=n_out + _engine.SLACK,
            rows=(0, n_lines),
            row_start=0,
            has_escapes=False,
            original=_Lines(block),
            is_projected=True,
        )


class _Lines:
    """The lines that a block's rows come from."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes]]:
        """See `Original`."""
        block = self._block
        if block.original is not None:
            return block.original.take(rows)
        starts, ends = row_bounds(block, rows)
        raws = [block.workspace.buffer[i:j].tobytes() for i, j in zip(starts.tolist(), ends.tolist(), strict=True)]
        return block.origin + starts, raws


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
