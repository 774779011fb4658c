"""What lies in a dataset's folder, to compare two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def contents(dataset: Path) -> dict[str, bytes]:
    names = ["vocabulary.parquet", *(f"shards/{path.name}" for path in sorted((dataset / "shards").iterdir()))]
    return {name: (dataset / name).read_bytes() for name in names}


def manifest(dataset: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((dataset / "manifest.json").read_text())
    return loaded
