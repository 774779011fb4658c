"""What a dataset folder is: the versions, the manifest and the vocabulary, as they are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luckyfast.errors import DatasetError
from luckyfast.ingestion.plan import PART_SEPARATOR

__all__ = ["FORMAT", "FORMAT_VERSION", "REBUILD", "damaged", "read_manifest", "read_vocabulary"]

FORMAT = "luckyfast-dataset"
FORMAT_VERSION = 1
REBUILD = "run luckyfast ingest again from the raw logs"

_COUNTS = ("rows_read", "events", "duplicates_removed", "filtered", "rejected", "customers", "visits", "actions")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete dataset.

    Raises:
        DatasetError: the folder is missing, incomplete, damaged, or of another format version.
    """
    if not folder.is_dir():
        raise DatasetError(f"no dataset folder at {folder}", hint="make one with: luckyfast ingest RAW... OUT")
    file = folder / "manifest.json"
    if not file.is_file():
        raise DatasetError(
            f"{folder} is no complete dataset: it has no manifest.json", hint="run luckyfast ingest again"
        )
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format_version"] if manifest["format"] == FORMAT else None
        if version != FORMAT_VERSION:
            raise DatasetError(
                f"{file.parent} has dataset format {version}, this luckyfast reads format {FORMAT_VERSION}",
                hint=REBUILD,
            )
        if manifest["complete"] is not True:
            raise DatasetError(f"{file.parent} is no complete dataset", hint=REBUILD)
        counts, shards = manifest["counts"], manifest["shards"]
        for name in _COUNTS:
            if not isinstance(counts[name], int):
                raise TypeError(f"the count of {name} is no number")
        for name in ("customers", "visits"):
            if sum(shard[name] for shard in shards) != counts[name]:
                raise ValueError(f"its shards do not add up to {counts[name]} {name}")
        if manifest["time"]["kind"] not in ("clock", "order"):
            raise ValueError("its time is neither of kind clock nor order")
        if not all(isinstance(shard["file"], str) for shard in shards):
            raise TypeError("a shard has no file name")
        for feature in manifest.get("features", []):
            if not isinstance(feature["name"], str) or feature["kind"] not in ("number", "category"):
                raise ValueError("a feature is neither a number nor a category")
            if feature["kind"] == "category" and not all(isinstance(name, str) for name in feature["categories"]):
                raise TypeError("a category of a feature is no text")
    except KeyError as error:
        raise damaged(file, f"it has no {error.args[0]}") from error
    except (OSError, ValueError, TypeError) as error:
        raise damaged(file, error) from error
    return manifest


def read_vocabulary(folder: Path) -> tuple[list[bytes], list[int]]:
    """The actions of a dataset as they stand in the raw files (several columns joined), and their events.

    Raises:
        DatasetError: the vocabulary is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / "vocabulary.parquet"
    try:
        table = pq.read_table(file)
        texts = [text.encode() for text in table["action"].to_pylist()]
        if "parts" in table.column_names:
            texts = [PART_SEPARATOR.join(part.encode() for part in parts) for parts in table["parts"].to_pylist()]
        events: list[int] = table["n_events"].to_pylist()
    except (pa.ArrowException, KeyError, OSError) as error:
        raise damaged(file, error) from error
    return texts[1:], events[1:]


def damaged(file: Path, detail: object) -> DatasetError:
    """The error for a file of a dataset that cannot be read as what it should be."""
    return DatasetError(f"{file} is damaged: {detail}", hint=REBUILD)
