"""Open a dataset folder and read its histories without copying them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luckyfast.errors import DatasetError

__all__ = ["FORMAT", "FORMAT_VERSION", "Dataset", "Histories"]

FORMAT = "luckyfast-dataset"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Histories:
    """The histories of some customers: one record batch of a shard, as read-only views.

    Customer ``c`` owns visits ``visit_start[c]:visit_start[c + 1]``; visit ``v`` owns pairs ``action_start[v]:action_start[v + 1]``.

    Attributes:
        customers: string array of n_customers.
        visit_start: int32[n_customers + 1].
        visit_time: int64[n_visits], µs since the epoch, or order numbers; ascending within a customer.
        visit_key: uint64[n_visits], hash of the session.
        action_start: int32[n_visits + 1].
        actions: int32[n_pairs], distinct action ids of each visit, ascending.
        counts: int32[n_pairs], events of that action in that visit.
        first_visit: how many visits the batches before this one hold.
    """

    customers: pa.StringArray
    visit_start: NDArray[np.int32]
    visit_time: NDArray[np.int64]
    visit_key: NDArray[np.uint64]
    action_start: NDArray[np.int32]
    actions: NDArray[np.int32]
    counts: NDArray[np.int32]
    first_visit: int = 0

    @property
    def n_customers(self) -> int:
        """Number of customers."""
        return len(self.visit_start) - 1

    @property
    def n_visits(self) -> int:
        """Number of visits."""
        return len(self.visit_time)


class Dataset:
    """A dataset folder: histories of all customers, sorted and ready to be read.

    Args:
        path: the folder that ``luckyfast ingest`` wrote.
        manifest: its parsed ``manifest.json``.

    Example:
        >>> dataset = Dataset.open(dataset_path)
        >>> sum(histories.n_visits for histories in dataset.batches()) == dataset.n_visits
        True
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._vocabulary: list[str] | None = None

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Open a dataset folder.

        Args:
            path: the folder that ``luckyfast ingest`` wrote.

        Returns:
            The dataset; no history is read yet.

        Raises:
            DatasetError: the folder is missing, incomplete, damaged, or of another format version.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise DatasetError(f"no dataset folder at {folder}", hint="make one with: luckyfast ingest RAW... OUT")
        manifest_path = folder / "manifest.json"
        if not manifest_path.is_file():
            raise DatasetError(
                f"{folder} is no complete dataset: it has no manifest.json", hint="run luckyfast ingest again"
            )
        try:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
            version = manifest["format_version"] if manifest["format"] == FORMAT else None
            shard_files = [folder / "shards" / shard["file"] for shard in manifest["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{manifest_path} is damaged: {error}", hint="run luckyfast ingest again from the raw logs"
            ) from error
        if version != FORMAT_VERSION:
            raise DatasetError(
                f"{folder} has dataset format {version}, this luckyfast reads format {FORMAT_VERSION}",
                hint="run luckyfast ingest again from the raw logs",
            )
        missing = [file for file in [*shard_files, folder / "vocabulary.parquet"] if not file.is_file()]
        if missing:
            raise DatasetError(f"{folder} lacks {missing[0].name}", hint="run luckyfast ingest again from the raw logs")
        return cls(folder, manifest)

    @property
    def counts(self) -> dict[str, int]:
        """Row counts: rows_read, events, duplicates_removed, filtered, rejected, customers, visits, actions."""
        return dict(self.manifest["counts"])

    @property
    def vocabulary(self) -> list[str]:
        """Action names; the position is the id, 0 is the unknown action."""
        if self._vocabulary is None:
            self._vocabulary = pq.read_table(self.path / "vocabulary.parquet", columns=["action"])["action"].to_pylist()
        return self._vocabulary

    @property
    def n_actions(self) -> int:
        """Number of actions, the unknown one included."""
        return len(self.vocabulary)

    @property
    def n_customers(self) -> int:
        """Number of customers."""
        return int(self.manifest["counts"]["customers"])

    @property
    def n_visits(self) -> int:
        """Number of visits."""
        return int(self.manifest["counts"]["visits"])

    @property
    def time_kind(self) -> str:
        """``clock`` (times are µs since the epoch) or ``order`` (times are order numbers)."""
        return str(self.manifest["time"]["kind"])

    def batches(self) -> Iterator[Histories]:
        """Read all histories, one record batch at a time, memory-mapped and without copies.

        Yields:
            Histories in the order of the shards.

        Raises:
            DatasetError: a shard is damaged.
        """
        first_visit = 0
        for shard in self.manifest["shards"]:
            file = self.path / "shards" / shard["file"]
            try:
                with pa.memory_map(str(file)) as source:
                    reader = pa.ipc.open_file(source)
                    for index in range(reader.num_record_batches):
                        histories = _view(reader.get_batch(index), first_visit)
                        first_visit += histories.n_visits
                        yield histories
            except pa.ArrowInvalid as error:
                raise DatasetError(f"{file} is damaged: {error}", hint="run luckyfast ingest again") from error


def _view(batch: pa.RecordBatch, first_visit: int) -> Histories:
    times = batch.column("visit_time")
    actions = batch.column("actions")
    pairs = actions.values
    return Histories(
        customers=batch.column("customer"),
        visit_start=_numpy(times.offsets),
        visit_time=_numpy(times.values).view(np.int64),
        visit_key=_numpy(batch.column("visit_key").values),
        action_start=_numpy(pairs.offsets),
        actions=_numpy(pairs.values),
        counts=_numpy(batch.column("counts").values.values),
        first_visit=first_visit,
    )


def _numpy(array: pa.Array) -> NDArray[Any]:
    return array.to_numpy(zero_copy_only=True)
