"""Values that stand in the names of the files: a customer per file, a date per folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import Source

__all__ = ["FILENAME", "read_filenames"]

FILENAME = "filename"
"""The column that stands for the file's name, wherever a role may be given."""

_ENDINGS = frozenset((".gz", ".zst", ".bz2", ".zip", ".csv", ".tsv", ".txt", ".log", ".dat", ".json", ".jsonl"))
_ENDINGS |= {".ndjson", ".parquet", ".arrow", ".feather"}


def read_filenames(sources: Sequence[Source], pattern: str | None) -> list[str]:
    """Take a value from the name of each source.

    Args:
        sources: the files.
        pattern: a regular expression to be found in the path; its first group is the value, or all of it where it has
            no group. None takes the file's name without its endings.

    Returns:
        One value per source.

    Raises:
        SchemaError: no regular expression, or a path in which it is not found.

    Example:
        >>> from pathlib import Path
        >>> source = Source(Path("logs/2024-05/client_0042.csv.gz"), "gzip", 1)
        >>> read_filenames([source], None), read_filenames([source], r"client_(\\d+)")
        (['client_0042'], ['0042'])
    """
    if pattern is None:
        return [_without_endings(source.label) for source in sources]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SchemaError(
            f"--filename-pattern {pattern!r} is no regular expression: {error}",
            hint=r"for example --filename-pattern 'client_(\d+)'",
        ) from error
    values = []
    for source in sources:
        match = compiled.search(source.label.replace("\\", "/"))
        value = (match[1] if compiled.groups else match[0]) if match else None
        if not value:
            raise SchemaError(
                f"--filename-pattern {pattern!r} is not found in {source.label}",
                hint="change it so that it fits the paths of all files, or leave this file out",
            )
        values.append(value)
    return values


def _without_endings(label: str) -> str:
    path = PurePosixPath(label.replace("\\", "/"))
    while path.suffix.lower() in _ENDINGS and path.stem:
        path = path.with_suffix("")
    return path.name
