"""Look before ingesting, and look at what was ingested: raw files by a sample, datasets by their contents."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luckyfast import _engine
from luckyfast.ingestion.columnar import copy_beginning
from luckyfast.ingestion.dialect import parse_delimiter, parse_quote
from luckyfast.ingestion.encodings import parse_encoding
from luckyfast.ingestion.layout import main_tables, pool_columns, read_tables
from luckyfast.ingestion.plan import Source
from luckyfast.ingestion.planning import make_plan
from luckyfast.ingestion.sources import find_sources, open_source

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import FilePlan, IngestPlan
    from luckyfast.ingestion.run import IngestSummary

__all__ = [
    "DatasetInspection",
    "RawColumn",
    "RawInspection",
    "inspect_columns",
    "inspect_dataset",
    "inspect_raw",
    "is_dataset",
]

_N_FILES = 8
_FILE_BYTES = 4 << 20
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class RawInspection:
    """What ingest would do with some files.

    Attributes:
        n_files: how many files there are.
        n_bytes: their size on disk.
        compressions: how they are packed, and how many are.
        dialects: how many files are cut into fields in which way, with their header.
        time_format: the form of the times.
        nulls: role to the texts that mean no value there.
        differences: how the files differ, or nothing.
        sample: what ingest did with the beginnings of some files; its counts are those of the sample.
        sampled_files: whose beginnings were read.
        rows_estimated: rows of all files, if the sample is like the rest; None where that cannot be told.
    """

    n_files: int
    n_bytes: int
    compressions: dict[str, int]
    dialects: list[tuple[int, dict[str, Any]]]
    time_format: str
    nulls: dict[str, list[str]]
    differences: str
    sample: IngestSummary
    sampled_files: list[str]
    rows_estimated: int | None


@dataclass(frozen=True)
class DatasetInspection:
    """What a dataset holds.

    Attributes:
        path: its folder.
        manifest: its parsed `manifest.json`.
        n_bytes: its size on disk.
        top_actions: the most frequent actions with their events.
        visits_per_customer: quantile to number of visits.
        actions_per_visit: quantile to number of distinct actions.
    """

    path: Path
    manifest: dict[str, Any]
    n_bytes: int
    top_actions: list[tuple[str, int]]
    visits_per_customer: dict[str, int]
    actions_per_visit: dict[str, int]


@dataclass(frozen=True)
class RawColumn:
    """A column of raw files in a sample: how many values are empty or differ, and the most frequent ones."""

    name: str
    share_empty: float
    n_different: int
    examples: list[str]


def inspect_columns(
    raw: str | Path | list[str | Path],
    *,
    delimiter: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
    columns: str | list[str] | None = None,
) -> list[RawColumn]:
    """Say what the columns of raw files hold, for choosing roles where they cannot be told.

    Args:
        raw: files, folders or globs.
        delimiter, quote, encoding, columns: as for `luckyfast.ingest`.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = path.write_text("a,b\\n1,x\\n1,\\n2,x\\n")
        >>> inspect_columns(path)[1]
        RawColumn(name='b', share_empty=0.3333, n_different=1, examples=['x'])
    """
    tables = read_tables(
        find_sources([raw] if isinstance(raw, str | Path) else raw),
        delimiter=None if delimiter is None else parse_delimiter(delimiter),
        quote="detect" if quote is None else parse_quote(quote),
        encoding=None if encoding is None else parse_encoding(encoding),
        columns=columns.split(",") if isinstance(columns, str) else columns,
    )
    found = []
    for column in pool_columns(main_tables(tables)):
        filled = Counter(value for value in column.values if value)
        empty = 1 - filled.total() / max(len(column.values), 1)
        found.append(RawColumn(column.name, round(empty, 4), len(filled), [text for text, _ in filled.most_common(4)]))
    return found


def is_dataset(path: str | Path) -> bool:
    """Whether a path is a folder that `luckyfast ingest` wrote.

    Example:
        >>> is_dataset(dataset_path)
        True
    """
    return (Path(path) / "manifest.json").is_file()


def inspect_raw(raw: str | Path | list[str | Path], **settings: Any) -> RawInspection:
    """Say what ingest would do with raw files, from samples, without doing it.

    Args:
        raw: files, folders or globs.
        settings: as for `luckyfast.ingest`.

    Raises:
        InputError: a file is missing, unreadable or no delimited text.
        SchemaError: roles, times or arguments that do not fit or cannot be told apart.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "client;date;rayon;ticket\\n7;2024-05-01;FROMAGE;1\\n7;2024-05-02;PAIN;\\n"
        >>> _ = (folder / "log.csv").write_text(rows)
        >>> found = inspect_raw(folder / "log.csv")
        >>> found.sample.counts["events"], found.rows_estimated
        (2, 2)
    """
    from luckyfast.ingestion.mending import describe_dialect
    from luckyfast.ingestion.run import run_plan
    from luckyfast.ingestion.times import describe_time_format

    with tempfile.TemporaryDirectory(prefix="luckyfast-inspect-") as folder:
        plan = make_plan(raw, Path(folder) / "dataset", **settings)
        step = max(1, len(plan.files) // _N_FILES)
        chosen = plan.files[::step][:_N_FILES]
        files = [_cut_sample(file, Path(folder) / f"{i}") for i, file in enumerate(chosen)]
        rules = replace(plan.rules, min_visits=1, top_actions=None)
        sample_plan = replace(plan, files=tuple(files), rules=rules, max_reject=1.0, temp=None)
        sample = _rename(
            run_plan(sample_plan), {f.source.label: c.source.label for f, c in zip(files, chosen, strict=True)}
        )
    dialects: list[tuple[int, dict[str, Any]]] = []
    for file in plan.files:
        described = describe_dialect(file)
        known = next((i for i, (_, own) in enumerate(dialects) if own == described), None)
        if known is None:
            dialects.append((1, described))
        else:
            dialects[known] = (dialects[known][0] + 1, described)
    packed = [file.source.compression for file in plan.files]
    n_bytes = sum(file.source.size_bytes for file in plan.files)
    return RawInspection(
        n_files=len(plan.files),
        n_bytes=n_bytes,
        compressions={name: packed.count(name) for name in dict.fromkeys(packed)},
        dialects=dialects,
        time_format=describe_time_format(plan.time_format),
        nulls={role: [text.decode() for text in texts] for role, texts in plan.nulls.items() if texts},
        differences=plan.reasons.get("files", ""),
        sample=sample,
        sampled_files=[file.source.label for file in chosen],
        rows_estimated=_estimate(plan, sample, n_bytes),
    )


def _cut_sample(file: FilePlan, path: Path) -> FilePlan:
    """The beginning of a file, cut behind a record, as a file of its own."""
    if file.source.is_columnar:
        return replace(file, source=Source(path, "none", copy_beginning(file.source, path), form="arrow"))
    limit = file.dialect.header_stop + _FILE_BYTES
    with open_source(file.source) as stream:
        pieces, n = [], 0
        while n < limit and (piece := stream.read(limit - n)):
            pieces.append(piece)
            n += len(piece)
    data = b"".join(pieces)
    if n == limit:
        buffer = np.frombuffer(data[file.dialect.header_stop :] + bytes(_engine.SLACK), np.uint8)
        quote = -1 if file.dialect.quote is None else file.dialect.quote
        stop = _engine.find_boundary(buffer, 0, _FILE_BYTES, False, False, file.dialect.delimiter, quote)
        data = data[: file.dialect.header_stop + (stop or _FILE_BYTES)]
    path.write_bytes(data)
    source = replace(
        file.source,
        path=path,
        compression="none",
        size_bytes=len(data),
        member=None,
        encoding="utf-8",
        line_end="lf",
    )
    return replace(file, source=source)


def _rename(sample: IngestSummary, names: dict[str, str]) -> IngestSummary:
    """The summary with the names of the files that the samples came from."""
    examples = {
        reason: [(names.get(source, source), line, raw) for source, line, raw in rows]
        for reason, rows in sample.reject_examples.items()
    }
    return replace(sample, reject_examples=examples)


def _estimate(plan: IngestPlan, sample: IngestSummary, n_bytes: int) -> int | None:
    if not all(file.source.is_plain for file in plan.files) or not sample.bytes_read:
        return None
    n_header = sum(file.dialect.header_stop for file in plan.files)
    return round(sample.counts["rows_read"] * (n_bytes - n_header) / sample.bytes_read)


def inspect_dataset(path: str | Path) -> DatasetInspection:
    """Describe a dataset: what it was made of and what it holds.

    Raises:
        DatasetError: the folder is missing, incomplete, damaged, or of another format version.

    Example:
        >>> found = inspect_dataset(dataset_path)
        >>> sum(n for _, n in found.top_actions) <= found.manifest["counts"]["events"]
        True
    """
    import pyarrow.parquet as pq

    from luckyfast.dataset import Dataset

    dataset = Dataset.open(path)
    n_visits = np.zeros(1, np.int64)
    n_actions = np.zeros(1, np.int64)
    for histories in dataset.batches():
        n_visits = _add_counts(n_visits, np.diff(histories.visit_start))
        n_actions = _add_counts(n_actions, np.diff(histories.action_start))
    events = pq.read_table(dataset.path / "vocabulary.parquet", columns=["n_events"])["n_events"].to_pylist()
    ranked = sorted(range(1, dataset.n_actions), key=lambda i: (-events[i], i))[:10]
    files = [file for file in dataset.path.rglob("*") if file.is_file()]
    return DatasetInspection(
        path=dataset.path,
        manifest=dataset.manifest,
        n_bytes=sum(file.stat().st_size for file in files),
        top_actions=[(dataset.vocabulary[i], events[i]) for i in ranked],
        visits_per_customer=_quantiles(n_visits),
        actions_per_visit=_quantiles(n_actions),
    )


def _add_counts(n_of_value: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Add how often each value occurs; memory grows with the largest value, not with their number."""
    more = np.bincount(values, minlength=len(n_of_value))
    more[: len(n_of_value)] += n_of_value
    return more


def _quantiles(n_of_value: np.ndarray[Any, Any]) -> dict[str, int]:
    total = int(n_of_value.sum())
    below = np.cumsum(n_of_value)
    places = [min(max(int(np.ceil(q * total)), 1), total) for q in _QUANTILES]
    return {
        f"{q:.0%}": int(np.searchsorted(below, place)) if total else 0
        for q, place in zip(_QUANTILES, places, strict=True)
    }
