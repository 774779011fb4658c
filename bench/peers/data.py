"""What a peer sees of a dataset, and how it hands over its predictions."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["DAY_US", "Log", "Targets", "main", "parts_of"]

DAY_US = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Log:
    """All visits of a dataset in memory.

    Customer ``c`` owns visits ``visit_start[c]:visit_start[c + 1]`` in time order; visit ``v`` owns
    ``actions[action_start[v]:action_start[v + 1]]``, distinct ids from 1.
    """

    names: list[str]
    customers: list[str]
    visit_start: NDArray[np.int64]
    visit_time: NDArray[np.int64]
    visit_key: NDArray[np.uint64]
    action_start: NDArray[np.int64]
    actions: NDArray[np.int32]

    @classmethod
    def read(cls, folder: Path) -> Log:
        """Read a dataset folder."""
        names = pq.read_table(folder / "vocabulary.parquet")["action"].to_pylist()
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = [folder / "shards" / shard["file"] for shard in manifest["shards"]]
        table = pa.concat_tables(pa.ipc.open_file(file).read_all() for file in files).combine_chunks()
        visits, sets = table["visit_time"].chunk(0), table["actions"].chunk(0).values
        return cls(
            names,
            table["customer"].to_pylist(),
            visits.offsets.to_numpy().astype(np.int64),
            visits.values.to_numpy(zero_copy_only=False).astype("datetime64[us]").astype(np.int64),
            table["visit_key"].chunk(0).values.to_numpy(),
            sets.offsets.to_numpy().astype(np.int64),
            sets.values.to_numpy(),
        )

    @property
    def n_actions(self) -> int:
        """Number of actions, the unknown one included."""
        return len(self.names)

    def of(self, visit: int) -> NDArray[np.int32]:
        """Actions of a visit."""
        return self.actions[self.action_start[visit] : self.action_start[visit + 1]]


@dataclass(frozen=True, eq=False)
class Targets:
    """The visits to be predicted, as visit indices of the log, and where each part begins in time."""

    visits: NDArray[np.int64]
    valid_start: int

    @classmethod
    def read(cls, file: Path, log: Log) -> Targets:
        """Find the targets of a file in the log."""
        table = pq.read_table(file)
        index = {key: visit for visit, key in enumerate(log.visit_key.tolist())}
        if len(index) != len(log.visit_key):  # without visit ids a key is that of a time, shared by many customers
            customers = np.repeat(np.arange(len(log.customers)), np.diff(log.visit_start))
            number = {name: customer for customer, name in enumerate(log.customers)}
            by_both = {both: v for v, both in enumerate(zip(customers.tolist(), log.visit_key.tolist(), strict=True))}
            pairs = zip(table["customer"].to_pylist(), table["visit"].to_pylist(), strict=True)
            visits = np.array([by_both[number[name], key] for name, key in pairs])
        else:
            visits = np.array([index[key] for key in table["visit"].to_pylist()])
        return cls(np.sort(visits), int(log.visit_time[visits].min()))


def parts_of(array: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Cut an array into parts of at most a size."""
    for start in range(0, len(array), size):
        yield array[start : start + size]


Scores = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


def main(predict: Callable[[Log, Targets], Scores]) -> None:
    """Run a peer: ``DATASET TARGETS OUT``; writes one row per visit and action, and OUT.json with the CPU seconds.

    Args:
        predict: gives blocks of visits and their scores float32 [n, n_actions].
    """
    parser = argparse.ArgumentParser()
    for name in ("dataset", "targets", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    log = Log.read(options.dataset)
    targets = Targets.read(options.targets, log)
    schema = pa.schema({"customer": pa.string(), "visit": pa.uint64(), "action": pa.string(), "score": pa.float32()})
    customers, names = pa.array(log.customers), pa.array(log.names[1:])
    began = time.process_time()
    with pq.ParquetWriter(options.out, schema, use_dictionary=["customer", "action"]) as writer:
        for visits, scores in predict(log, targets):
            owners = np.searchsorted(log.visit_start, visits, side="right") - 1
            n = log.n_actions - 1
            writer.write_table(
                pa.table(
                    [
                        customers.take(pa.array(np.repeat(owners, n))),
                        pa.array(np.repeat(log.visit_key[visits], n)),
                        names.take(pa.array(np.tile(np.arange(n), len(visits)))),
                        pa.array(scores[:, 1:].ravel()),
                    ],
                    schema=schema,
                )
            )
    cost = {"cpu_s": time.process_time() - began}
    options.out.with_suffix(".json").write_text(json.dumps(cost), encoding="utf-8")
