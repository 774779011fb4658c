"""Open a dataset folder and read its histories without copying them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from luckyfast.errors import DatasetError
from luckyfast.ingestion.featureshards import feature_columns
from luckyfast.ingestion.format import REBUILD, damaged, read_manifest
from luckyfast.moments import DAY_US

__all__ = ["Dataset", "FeatureColumn", "FeatureInfo", "Histories"]

_PAIRS = pa.list_(pa.list_(pa.int32()))


@dataclass(frozen=True)
class FeatureInfo:
    """A side column of a dataset.

    Attributes:
        name: its column in the raw files.
        kind: ``number`` or ``category``.
        categories: their names; the first has id 1, and 0 is no value.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FeatureColumn:
    """What a side column holds at the visits of a batch.

    Attributes:
        values: int64[n_visits], of a number the sum over the visit's rows in millionths; of a category int32[n_visits],
            the id of the most frequent one.
        rows: int32[n_visits], rows of the visit with that category, or with any number; 0 is no value.
    """

    values: NDArray[np.int64] | NDArray[np.int32]
    rows: NDArray[np.int32]

    def take(self, visits: NDArray[np.int64] | slice) -> FeatureColumn:
        """The column at some visits."""
        return FeatureColumn(self.values[visits], self.rows[visits])


@dataclass(frozen=True)
class Histories:
    """The histories of some customers: one record batch of a shard, as read-only views.

    Customer ``c`` owns visits ``visit_start[c]:visit_start[c + 1]``; visit ``v`` owns pairs
    ``action_start[v]:action_start[v + 1]``.

    Attributes:
        customers: string array of n_customers.
        visit_start: int32[n_customers + 1].
        visit_time: int64[n_visits], µs since the epoch, or order numbers; ascending within a customer.
        visit_key: uint64[n_visits], hash of the session.
        action_start: int32[n_visits + 1].
        actions: int32[n_pairs], distinct action ids of each visit, ascending.
        counts: int32[n_pairs], events of that action in that visit.
        visit_days: uint16[n_visits], days (of UTC) between the day of a visit's first row and that of its last, 65,535
            at most; 0 for most, and None where nothing is known of it.
        first_visit: how many visits the batches before this one hold.
        features: the side columns, in the order of the dataset's.
    """

    customers: pa.StringArray
    visit_start: NDArray[np.int32]
    visit_time: NDArray[np.int64]
    visit_key: NDArray[np.uint64]
    action_start: NDArray[np.int32]
    actions: NDArray[np.int32]
    counts: NDArray[np.int32]
    visit_days: NDArray[np.uint16] | None = None
    first_visit: int = 0
    features: tuple[FeatureColumn, ...] = ()

    @property
    def n_customers(self) -> int:
        """Number of customers."""
        return len(self.visit_start) - 1

    @property
    def n_visits(self) -> int:
        """Number of visits."""
        return len(self.visit_time)

    def stretches(self, n_visits: int = 1 << 18) -> Iterator[slice]:
        """Stretches of at most so many visits that follow one another, whoever's they are.

        What looks at all visits of a batch goes along these: one customer may have millions, and a copy of them all
        would take more memory than is promised.

        Args:
            n_visits: the most visits of a stretch.

        Example:
            >>> histories = next(dataset.batches())
            >>> visits = list(histories.stretches(100))
            >>> visits[0].start == 0, visits[-1].stop == histories.n_visits
            (True, True)
        """
        for begin in range(0, self.n_visits, n_visits):
            yield slice(begin, min(begin + n_visits, self.n_visits))

    def actions_of(self, visits: slice, chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The actions of the chosen visits of a stretch, int32 [n_pairs], one after the other.

        Args:
            visits: the stretch.
            chosen: bool, of each of its visits.

        Example:
            >>> histories = next(dataset.batches())
            >>> histories.actions_of(slice(0, 2), np.array([False, True])).tolist() == (
            ...     histories.actions[histories.action_start[1] : histories.action_start[2]].tolist()
            ... )
            True
        """
        bounds = self.action_start[visits.start : visits.stop + 1]
        return self.actions[bounds[0] : bounds[-1]][np.repeat(chosen, np.diff(bounds))]

    def last_days(self, visits: slice) -> NDArray[np.int64]:
        """The days of the last rows of a stretch of visits, in days since 1970: who sees a visit whole sees this day.

        Args:
            visits: the stretch.

        Example:
            >>> histories = next(dataset.batches())
            >>> bool((histories.last_days(slice(0, 9)) >= histories.visit_time[:9] // 86_400_000_000).all())
            True
        """
        days: NDArray[np.int64] = self.visit_time[visits] // DAY_US
        return days if self.visit_days is None else days + self.visit_days[visits]

    def stops_before(self, time: int) -> NDArray[np.int64]:
        """Where each customer's visits before a time end, int64 [n_customers]: their first visit where none is before.

        By bisection of all customers at once, so memory grows with customers and not with visits.

        Args:
            time: in the unit of `visit_time`.

        Example:
            >>> histories = next(dataset.batches())
            >>> bool((histories.stops_before(2**62) == histories.visit_start[1:]).all())
            True
        """
        low, high = self.visit_start[:-1].astype(np.int64), self.visit_start[1:].astype(np.int64)
        while len(unsure := np.flatnonzero(low < high)):
            middle = (low[unsure] + high[unsure]) // 2
            early = self.visit_time[middle] < time
            low[unsure[early]] = middle[early] + 1
            high[unsure[~early]] = middle[~early]
        return low

    def part(self, customers: slice, visits: slice) -> Histories:
        """Some customers, and of their visits those in a stretch, as views but for the starts; all of them are these.

        Args:
            customers: of these histories, with a start and a stop.
            visits: local to these histories, with a start and a stop, within those of these customers.
        """
        if (customers, visits) == (slice(0, self.n_customers), slice(0, self.n_visits)):
            return self
        starts = np.clip(self.visit_start[customers.start : customers.stop + 1], visits.start, visits.stop)
        pairs = slice(*self.action_start[[visits.start, visits.stop]].tolist())
        return replace(
            self,
            customers=self.customers[customers],
            visit_start=(starts - visits.start).astype(np.int32),
            visit_time=self.visit_time[visits],
            visit_key=self.visit_key[visits],
            action_start=self.action_start[visits.start : visits.stop + 1] - self.action_start[visits.start],
            actions=self.actions[pairs],
            counts=self.counts[pairs],
            visit_days=None if self.visit_days is None else self.visit_days[visits],
            first_visit=self.first_visit + visits.start,
            features=tuple(column.take(visits) for column in self.features),
        )


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
        self._n_first = self.n_customers
        self._checked_shards: set[str] = set()

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
        manifest = read_manifest(folder)
        files = [*(folder / "shards" / shard["file"] for shard in manifest["shards"]), folder / "vocabulary.parquet"]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise DatasetError(f"{folder} lacks {missing[0].name}", hint=REBUILD)
        return cls(folder, manifest)

    @property
    def counts(self) -> dict[str, int]:
        """Row counts: rows_read, events, duplicates_removed, filtered, rejected, customers, visits, actions."""
        return dict(self.manifest["counts"])

    @cached_property
    def vocabulary(self) -> list[str]:
        """Action names; the position is the id, 0 is the unknown action."""
        file = self.path / "vocabulary.parquet"
        try:
            names: list[str] = pq.read_table(file, columns=["action"])["action"].to_pylist()
        except (pa.ArrowException, KeyError, OSError) as error:
            raise damaged(file, error) from error
        if len(names) != self.counts["actions"] + 1:
            raise damaged(file, f"it has {len(names)} rows, {self.counts['actions'] + 1} were expected")
        return names

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

    @property
    def has_common_times(self) -> bool:
        """Whether times of different customers compare: not order numbers, nor days since the own first visit."""
        return self.time_kind == "clock" and not self.manifest["time"].get("relative", False)

    @cached_property
    def features(self) -> tuple[FeatureInfo, ...]:
        """The side columns that were kept."""
        described = self.manifest.get("features", [])
        return tuple(FeatureInfo(own["name"], own["kind"], tuple(own.get("categories", ()))) for own in described)

    def sample(self, share: float) -> Dataset:
        """A view of this dataset whose :meth:`batches` hold the first customers only; nothing is copied.

        Customers are ordered by hash, so the first ones are a random sample, and larger samples hold smaller ones.

        Args:
            share: how many of the customers, in (0, 1]; at least one is kept. Counts stay those of the whole.

        Example:
            >>> sum(histories.n_customers for histories in dataset.sample(0.5).batches()) <= dataset.n_customers / 2 + 1
            True
        """
        view = copy(self)
        view._n_first = max(round(share * self._n_first), 1)
        return view

    def batches(self) -> Iterator[Histories]:
        """Read all histories, one record batch at a time, memory-mapped and without copies.

        Yields:
            Histories in the order of the shards.

        Raises:
            DatasetError: a shard is damaged.
        """
        if self._n_first >= self.n_customers:
            yield from self._all_batches()
            return
        left = self._n_first
        for histories in self._all_batches():
            n = min(left, histories.n_customers)
            yield histories.part(slice(0, n), slice(0, int(histories.visit_start[n])))
            left -= n
            if left <= 0:
                return

    def _all_batches(self) -> Iterator[Histories]:
        """Read the shards and check them against the manifest."""
        first_visit = 0
        for shard in self.manifest["shards"]:
            file = self.path / "shards" / shard["file"]
            n_customers, n_visits = 0, 0
            try:
                with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
                    for index in range(reader.num_record_batches):
                        batch = reader.get_batch(index)
                        if shard["file"] not in self._checked_shards:
                            _check_batch(file, batch, self.time_kind, self.n_actions, self.features)
                        histories = _view(batch, first_visit + n_visits, self.features)
                        n_visits += histories.n_visits
                        n_customers += histories.n_customers
                        yield histories
            except (pa.ArrowException, OSError) as error:
                raise damaged(file, error) from error
            if (n_customers, n_visits) != (shard["customers"], shard["visits"]):
                raise damaged(
                    file,
                    f"it has {n_customers} customers with {n_visits} visits, "
                    f"{shard['customers']} with {shard['visits']} were expected",
                )
            self._checked_shards.add(shard["file"])
            first_visit += n_visits


def _check_batch(
    file: Path, batch: pa.RecordBatch, time_kind: str, n_actions: int, features: Sequence[FeatureInfo]
) -> None:
    """Refuse what a kernel could not read safely: other types, offsets out of range, unknown ids."""
    time = pa.timestamp("us") if time_kind == "clock" else pa.int64()
    types = {"visit_time": pa.list_(time), "visit_key": pa.list_(pa.uint64()), "actions": _PAIRS, "counts": _PAIRS}
    if "visit_days" in batch.schema.names:
        types["visit_days"] = pa.list_(pa.uint16())
    side = {name: pa.list_(type_) for name, type_, _ in feature_columns([(own.name, own.kind) for own in features])}
    for name, type_ in {"customer": pa.string(), **types, **side}.items():
        if name not in batch.schema.names or batch.schema.field(name).type != type_:
            raise damaged(file, f"it has no column {name} of type {type_}")
    batch.validate(full=True)
    columns = [batch.column(name) for name in types]
    outer = [batch.column(name).offsets for name in (*types, *side)]
    inner = [column.values.offsets for column in columns[2:4]]
    if any(not offsets.equals(outer[0]) for offsets in outer[1:]) or not inner[0].equals(inner[1]):
        raise damaged(file, "its columns disagree about where visits end")
    ids = columns[2].values.values
    bounds = pc.min_max(ids)
    if len(ids) and (bounds["min"].as_py() < 0 or bounds["max"].as_py() >= n_actions):
        raise damaged(file, f"it has action ids beyond the {n_actions} of the vocabulary")
    for own in features:
        if own.kind == "category" and len(ids):
            bounds = pc.min_max(batch.column(f"feature.{own.name}.category").values)
            if bounds["min"].as_py() < 0 or bounds["max"].as_py() > len(own.categories):
                raise damaged(file, f"it has categories of {own.name} beyond the {len(own.categories)} that are named")


def _view(batch: pa.RecordBatch, first_visit: int, features: Sequence[FeatureInfo]) -> Histories:
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
        visit_days=_numpy(batch.column("visit_days").values) if "visit_days" in batch.schema.names else None,
        first_visit=first_visit,
        features=tuple(_view_feature(batch, own) for own in features),
    )


def _view_feature(batch: pa.RecordBatch, info: FeatureInfo) -> FeatureColumn:
    what = "sum" if info.kind == "number" else "category"
    entries, rows = (batch.column(f"feature.{info.name}.{name}").values for name in (what, "rows"))
    if info.kind == "category":
        return FeatureColumn(_numpy(entries), _numpy(rows))
    # 18 digits fit into the low half of a decimal of 128 bits
    halves = np.frombuffer(entries.buffers()[1], np.int64).reshape(-1, 2)
    return FeatureColumn(halves[entries.offset : entries.offset + len(entries), 0], _numpy(rows))


def _numpy(array: pa.Array) -> NDArray[Any]:
    view: NDArray[Any] = array.to_numpy(zero_copy_only=True)
    return view
