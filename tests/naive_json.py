"""Naive twin of the projection of JSON lines: Python's reader, one line at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class Number(str):
    """The text of a number."""


def project_line(line: bytes, paths: Sequence[str]) -> list[Any] | None:
    """The values of some paths in a line; None where it is no object."""
    try:
        text = line.decode("utf-8", "surrogateescape").strip(" \t\r")
        found = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse, strict=False)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return [next(reversed(list(_find(found, path))), None) for path in paths]


def same_value(field: bytes, value: Any) -> bool:
    """Whether a projected field holds a value."""
    if value is None:
        return field == b""
    if isinstance(value, dict | list):
        text = field.decode("utf-8", "surrogateescape")
        return bool(json.loads(text, parse_int=Number, parse_float=Number, strict=False) == value)
    if isinstance(value, bool):
        return field == str(value).lower().encode()
    return field in (value.encode("utf-8", "surrogatepass"), value.encode("utf-8", "replace"), _with_bytes(value))


def _with_bytes(value: str) -> bytes:
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _find(found: Any, path: str) -> Any:
    """All values that a path can mean, in order: keys may hold dots themselves."""
    for key, value in found.items():
        if key == path:
            yield value
        elif path.startswith(f"{key}.") and isinstance(value, dict):
            yield from _find(value, path[len(key) + 1 :])
