"""An existing dataset as one more run of the merge, so that new files are added as if all had been read at once."""

from __future__ import annotations

import hashlib
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from luckyfast.errors import DatasetError, InputError, SchemaError
from luckyfast.ingestion.format import read_manifest, read_vocabulary
from luckyfast.ingestion.manifest import time_kind
from luckyfast.ingestion.partition import N_BUCKETS, N_UNITS, Run, Segment, bucket_starts
from luckyfast.kernels import parse as parse_kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luckyfast.ingestion.plan import FilePlan, IngestPlan

__all__ = ["Base", "ShardRun", "content_id", "content_ids", "open_base"]

_SAMPLE_BYTES = 1 << 20
_N_PIECES = 128


def content_id(path: Path) -> str:
    """A digest that tells files of other content apart, whatever they are called.

    Files of up to 1 MiB are read whole; of larger ones the size, both ends and 128 pieces between count, so that it
    takes no time; files that differ in a few bytes alone may be taken for one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = path.write_text("a,b\\n")
        >>> other = path.with_name("the same.csv")
        >>> _ = other.write_text("a,b\\n")
        >>> content_id(path) == content_id(other)
        True
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest = hashlib.blake2b(str(size).encode(), digest_size=16)
            whole = size <= _SAMPLE_BYTES
            end_bytes = _SAMPLE_BYTES // 4
            piece_bytes = _SAMPLE_BYTES // 2 // _N_PIECES
            places = [(0, size)] if whole else [(0, end_bytes), (size - end_bytes, end_bytes)]
            if not whole:
                places += [(size * i // (_N_PIECES + 1), piece_bytes) for i in range(1, _N_PIECES + 1)]
            for start, n_bytes in places:
                file.seek(start)
                digest.update(file.read(n_bytes))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="it has gone or changed: give it again"
        ) from error
    return digest.hexdigest()


def content_ids(files: Sequence[FilePlan]) -> list[str]:
    """The `content_id` of each file; names take part where they count, of zip entries and as values of rows."""
    of_path = {path: content_id(path) for path in dict.fromkeys(file.source.path for file in files)}
    found = []
    for file in files:
        content = of_path[file.source.path]
        if file.source.member is not None or file.constants:
            told = [content.encode(), (file.source.member or "").encode(), *file.constants]
            content = hashlib.blake2b(b"/".join(told), digest_size=16).hexdigest()
        found.append(content)
    return found


class _Batch(NamedTuple):
    """One record batch of a shard: where it lies, and where its customers, name bytes, visits and events begin."""

    path: Path
    number: int
    starts: tuple[int, int, int, int]
    n_customers: int


class ShardRun(Run):
    """The shards of a dataset as a run, of which a stretch of buckets at a time is read.

    Args:
        folder: the dataset.
        shards: as in its manifest.
        ids: uint32, for each row of its vocabulary the id in the run's vocabulary.
    """

    has_columns = False

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]], ids: NDArray[np.uint32]) -> None:
        self._ids = ids
        self._batches: list[_Batch] = []
        counts = np.zeros((N_UNITS, N_BUCKETS), np.int64)
        at = (0, 0, 0, 0)
        for shard in shards:
            path = folder / "shards" / shard["file"]
            for index, segment in _read_batches(path, ids):
                self._batches.append(_Batch(path, index, at, len(segment.hashes)))
                sizes = (len(segment.hashes), len(segment.names), len(segment.key), len(segment.actions))
                starts = bucket_starts(segment.hashes)
                name_starts = np.concatenate([[0], segment.name_stops])
                visit_starts = np.searchsorted(segment.customer, np.arange(len(segment.hashes) + 1))
                event_starts = np.concatenate([[0], np.cumsum(segment.n_actions, dtype=np.int64)])[visit_starts]
                for unit, borders in enumerate((np.arange(sizes[0] + 1), name_starts, visit_starts, event_starts)):
                    counts[unit] += np.diff(borders[starts])
                at = (at[0] + sizes[0], at[1] + sizes[1], at[2] + sizes[2], at[3] + sizes[3])
        starts = np.zeros((N_UNITS, N_BUCKETS + 1), np.int64)
        np.cumsum(counts, axis=1, out=starts[:, 1:])
        super().__init__(starts, [], None)

    def read(self, first: int, stop: int) -> Segment:
        """The buckets first:stop."""
        a, b = int(self.starts[0, first]), int(self.starts[0, stop])
        begins = [batch.starts[0] for batch in self._batches]
        parts = []
        for batch in self._batches[max(bisect_right(begins, a) - 1, 0) : bisect_left(begins, b)]:
            segment = next(
                part for i, part in _read_batches(batch.path, self._ids, only=batch.number) if i == batch.number
            )
            low, high = max(a - batch.starts[0], 0), min(b - batch.starts[0], batch.n_customers)
            if low < high:
                parts.append(_cut(segment, low, high, batch.starts[0], batch.starts[1]))
        columns = (np.concatenate(column) for column in zip(*(part[:-2] for part in parts), strict=True))
        return Segment._make((*columns, a, int(self.starts[1, first])))


def _cut(segment: Segment, low: int, high: int, first_customer: int, first_byte: int) -> Segment:
    """The customers low:high of a batch, numbered as those of the whole run."""
    bounds = np.searchsorted(segment.customer, [low, high])
    events = np.concatenate([[0], np.cumsum(segment.n_actions, dtype=np.int64)])[bounds]
    names = [int(segment.name_stops[i - 1]) if i else 0 for i in (low, high)]
    visits = slice(*bounds)
    return Segment(
        segment.hashes[low:high],
        segment.name_stops[low:high] + first_byte,
        segment.names[names[0] : names[1]],
        segment.customer[visits] + np.uint32(first_customer),
        segment.n_actions[visits],
        segment.time[visits],
        segment.key[visits],
        segment.actions[events[0] : events[1]],
        segment.rows,
        first_customer,
        first_byte,
    )


def _read_batches(path: Path, ids: NDArray[np.uint32], only: int | None = None) -> Iterator[tuple[int, Segment]]:
    """The record batches of a shard, or one of them, as segments that count from their own beginning."""
    import pyarrow as pa

    try:
        # not mapped: mapped pages would count as memory
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches) if only is None else (only,):
                yield index, _to_segment(reader.get_batch(index), ids)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged: {error}", hint="ingest all raw files again") from error


def _to_segment(batch: Any, ids: NDArray[np.uint32]) -> Segment:
    names, times, keys = batch.column("customer"), batch.column("visit_time"), batch.column("visit_key")
    pairs, counts = batch.column("actions").values, batch.column("counts").values
    n = len(names)
    _, stops, data = names.buffers()
    starts = np.frombuffer(stops, np.int32)[: n + 1].astype(np.int64)
    name_bytes = np.frombuffer(data, np.uint8)[: starts[-1]] if data is not None else np.zeros(0, np.uint8)
    hashes = np.empty(n, np.uint64)
    parse_kernel.hash_names(np.append(name_bytes, np.zeros(8, np.uint8)), starts, hashes)
    visit_starts = np.frombuffer(times.buffers()[1], np.int32)[: n + 1]
    pair_starts = np.frombuffer(pairs.buffers()[1], np.int32)[: len(pairs) + 1]
    n_of_pair = np.frombuffer(counts.values.buffers()[1], np.int32)[: len(counts.values)]
    n_before = np.concatenate([[0], np.cumsum(n_of_pair, dtype=np.int64)])
    actions = np.frombuffer(pairs.values.buffers()[1], np.int32)[: len(pairs.values)]
    return Segment(
        hashes,
        starts[1:],
        name_bytes,
        np.repeat(np.arange(n, dtype=np.uint32), np.diff(visit_starts)),
        np.diff(n_before[pair_starts]).astype(np.uint32),
        np.frombuffer(times.values.buffers()[1], np.int64)[: len(pairs)],
        np.frombuffer(keys.values.buffers()[1], np.uint64)[: len(pairs)],
        np.repeat(ids[actions], n_of_pair),
        np.zeros(0, np.uint64),
        0,
        0,
    )


@dataclass(frozen=True)
class Base:
    """The dataset that new files are added to: its folder, its manifest, its actions and their events."""

    folder: Path
    manifest: dict[str, Any]
    texts: list[bytes]
    events: list[int]

    def widen(self, times: tuple[int, int]) -> tuple[int, int]:
        """The range of the dataset's times and others."""
        return min(times[0], self.manifest["time"]["min"]), max(times[1], self.manifest["time"]["max"])

    def copy_rejects(self, folder: Path) -> int:
        """Copy the files of rejects; returns how many there are."""
        parts = sorted((self.folder / "rejects").glob("part-*.parquet"))
        for part in parts:
            shutil.copy(part, folder / part.name)
        return len(parts)

    def add_duplicates(self, found: dict[str, Any]) -> dict[str, Any]:
        """The measure of duplicates of old and new rows; an old row that comes again in a new file is not seen."""
        before = self.manifest.get("duplicates", {"rows_sampled": 0, "repeated": 0})
        n = before["rows_sampled"] + found["rows_sampled"]
        repeated = before["repeated"] + found["repeated"]
        return {
            "share": round(repeated / n, 6) if n else 0.0,
            "rows_sampled": n,
            "repeated": repeated,
            "complete": False,
        }


def open_base(plan: IngestPlan, contents: Sequence[str]) -> Base:
    """Read the dataset that a plan adds to, and check that adding gives what reading everything at once would give.

    Args:
        plan: whose `out` is the dataset.
        contents: the `content_id` of each file of the plan.

    Raises:
        DatasetError: the dataset is missing, damaged, or was cleaned by rules that need all rows at once.
        SchemaError: roles, rules or kind of time differ.
        InputError: a file is part of it already.
    """
    manifest = read_manifest(plan.out)
    if manifest["time"]["kind"] != time_kind(plan):
        raise SchemaError(
            f"the times of {plan.out} are of kind {manifest['time']['kind']}, those of the new files are not",
            hint="leave --time and --time-format out",
        )
    rules = plan.rules
    for asked, flag in (
        (rules.drop_duplicates, "--drop-duplicates"),
        (rules.min_visits > 1, "--min-visits"),
        (rules.top_actions is not None, "--top-actions"),
    ):
        if asked:
            raise DatasetError(
                f"{plan.out} was made with {flag}, which needs all rows at once: nothing can be added to it",
                hint="ingest all raw files again",
            )
    for role, names in manifest["roles"].items():
        if list(names or ()) != list(getattr(plan.roles, role) or ()):
            raise SchemaError(f"the {role} of {plan.out} is {names}", hint=f"leave --{role} out")
    known = {source.get("content"): source["path"] for source in manifest["sources"]}
    for file, content in zip(plan.files, contents, strict=True):
        if content in known:
            raise InputError(
                f"{file.source.label} is part of {plan.out} already: it has the content of {known[content]}",
                hint="leave it out, and give only new files",
            )
    texts, events = read_vocabulary(plan.out)
    return Base(plan.out, manifest, texts, events)
