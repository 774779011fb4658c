"""What commands share: how they are added, and what was last written from a folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from luckyfast.errors import UserError

__all__ = ["add_command", "comma_separated", "recall", "remember"]

_MEMORY = Path(".luckyfast") / "last.json"


def add_command(commands: Any, name: str, run: Any, summary: str, epilog: str) -> argparse.ArgumentParser:
    """Add a command; ``options.run`` will be the function that does it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def comma_separated(text: str) -> list[str]:
    """Names joined by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def remember(kind: str, path: str | Path) -> None:
    """Keep what was last written from this folder: a dataset or a model."""
    known = _known()
    known[kind] = str(Path(path).resolve())
    try:
        _MEMORY.parent.mkdir(exist_ok=True)
        _MEMORY.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except OSError:
        return  # a folder that cannot be written costs the convenience, not the run


def recall(kind: str, command: str) -> str:
    """What was last written from this folder, which is said.

    Raises:
        UserError: nothing was.
    """
    known = _known()
    if kind not in known:
        raise UserError(f"no {kind} was given, and none was written from this folder yet", hint=f"name it: {command}")
    print(f"using the {kind} last written from here: {known[kind]}", file=sys.stderr)
    return known[kind]


def _known() -> dict[str, str]:
    try:
        known = json.loads(_MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(kind): str(path) for kind, path in known.items()} if isinstance(known, dict) else {}
