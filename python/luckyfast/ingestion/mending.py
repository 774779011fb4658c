"""Rejected rows of a dataset: what they are, and a file of them to be mended and added again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from luckyfast.errors import DatasetError, OutputExistsError, SchemaError
from luckyfast.ingestion.encodings import encode_text
from luckyfast.ingestion.format import damaged, read_manifest

if TYPE_CHECKING:
    import pyarrow as pa

    from luckyfast.ingestion.plan import FilePlan

__all__ = ["ExportedRejects", "RejectList", "describe_dialect", "export_rejects", "list_rejects"]


@dataclass(frozen=True)
class RejectList:
    """The rejects of a dataset.

    Attributes:
        path: the dataset folder.
        rows_read: all rows read.
        by_reason: reason to number of rows, most first.
        examples: reason to the first rejects as (source, line, byte offset, raw bytes).
    """

    path: Path
    rows_read: int
    by_reason: dict[str, int]
    examples: dict[str, list[tuple[str, int, int, bytes]]]


@dataclass(frozen=True)
class ExportedRejects:
    """A file of raw rows as they were read, below the header of their source.

    Attributes:
        path: the file.
        rows: how many there are.
        cut: rows that are not in it because only their beginning was kept (`too_long`).
    """

    path: Path
    rows: int
    cut: int


def list_rejects(dataset: str | Path, *, reasons: Collection[str] = (), examples: int = 3) -> RejectList:
    """List what was rejected, by reason.

    Args:
        dataset: the folder that `luckyfast ingest` wrote.
        reasons: only these; all if empty.
        examples: how many rows of each reason.

    Raises:
        DatasetError: the dataset is missing or damaged.
        SchemaError: there is no reject of such a reason.

    Example:
        >>> list_rejects(dataset_path).by_reason
        {}
    """
    folder = Path(dataset)
    manifest = read_manifest(folder)
    wanted = _check_reasons(manifest, reasons)
    ranked = sorted(manifest["rejects_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    by_reason = {reason: n for reason, n in ranked if reason in wanted}
    shown: dict[str, list[tuple[str, int, int, bytes]]] = {reason: [] for reason in by_reason}
    missing = {reason: min(examples, n) for reason, n in by_reason.items()}
    for batch in _read_parts(folder):
        if not any(missing.values()):
            break
        for row in batch.to_pylist():
            if missing.get(row["reason"], 0):
                missing[row["reason"]] -= 1
                shown[row["reason"]].append((row["source"], row["line"], row["byte_offset"], row["raw"]))
    return RejectList(folder, manifest["counts"]["rows_read"], by_reason, shown)


def export_rejects(
    dataset: str | Path, out: str | Path, *, reasons: Collection[str] = (), overwrite: bool = False
) -> list[ExportedRejects]:
    """Write the raw bytes of rejected rows below their header, so that they can be mended and added with `append`.

    Rows with an unclosed quote come last, since whatever follows one may be taken for its continuation. Rows of sources
    with other headers or delimiters go to files of their own, numbered from the second on.

    Args:
        dataset: the folder that `luckyfast ingest` wrote.
        out: the file to write.
        reasons: only these; all if empty.
        overwrite: replace the file if it exists.

    Returns:
        The files.

    Raises:
        DatasetError: the dataset is missing or damaged, or nothing was rejected.
        SchemaError: there is no reject of such a reason.
        OutputExistsError: `out` exists.
    """
    folder, target = Path(dataset), Path(out)
    manifest = read_manifest(folder)
    wanted = _check_reasons(manifest, reasons)
    if not wanted:
        raise DatasetError(f"nothing of {folder} was rejected", hint="there is nothing to mend")
    if "dialects" not in manifest:
        raise DatasetError(
            f"{folder} does not tell the header of its rejects", hint="ingest the raw files again with this luckyfast"
        )
    dialect_of = {source["path"]: source["dialect"] for source in manifest["sources"]}
    files: dict[int, IO[bytes]] = {}
    paths: dict[int, Path] = {}
    rows: dict[int, int] = {}
    cut: dict[int, int] = {}
    ends: dict[int, bytes] = {}
    with ExitStack() as stack:
        for is_last in (False, True):
            for batch in _read_parts(folder):
                columns = batch.select(["source", "reason", "raw"]).to_pydict()
                for source, reason, raw in zip(*columns.values(), strict=True):
                    if reason not in wanted or (reason == "unclosed_quote") != is_last:
                        continue
                    dialect = dialect_of[source]
                    if dialect not in files:
                        paths[dialect] = _numbered(target, len(files) + 1)
                        files[dialect] = stack.enter_context(_create(paths[dialect], overwrite))
                        own = manifest["dialects"][dialect]
                        ends[dialect] = encode_text(b"\n", own["encoding"], own["line_end"])
                        files[dialect].write(encode_text(_header_line(own), own["encoding"], own["line_end"]))
                        rows[dialect] = cut[dialect] = 0
                    if reason == "too_long":
                        cut[dialect] += 1
                        continue
                    files[dialect].write(raw + ends[dialect])
                    rows[dialect] += 1
    return [ExportedRejects(paths[i], rows[i], cut[i]) for i in files]


def describe_dialect(file: FilePlan) -> dict[str, Any]:
    """The `Dialect` of a file as the manifest has it; rows that are no delimited text need no header."""
    dialect, source = file.dialect, file.source
    return {
        "form": source.form,
        "delimiter": chr(dialect.delimiter),
        "quote": None if dialect.quote is None else chr(dialect.quote),
        "encoding": source.encoding,
        "line_end": source.line_end,
        "has_header": dialect.has_header and source.form == "delimited",
        "header": list(dialect.header),
    }


def _check_reasons(manifest: dict[str, Any], reasons: Collection[str]) -> set[str]:
    known = set(manifest["rejects_by_reason"])
    for reason in reasons:
        if reason not in known:
            raise SchemaError(
                f"no row was rejected for the reason {reason!r}", hint=f"there are {', '.join(sorted(known)) or 'none'}"
            )
    return set(reasons) or known


def _read_parts(folder: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted((folder / "rejects").glob("part-*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(1 << 12)
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _create(path: Path, overwrite: bool) -> IO[bytes]:
    if os.path.lexists(path) and not overwrite:
        raise OutputExistsError(f"{path} exists already", hint="choose another file, or add --overwrite")
    return path.open("wb")


def _header_line(dialect: dict[str, Any]) -> bytes:
    if not dialect["has_header"] or dialect["form"] != "delimited":
        return b""
    mark, delimiter = dialect["quote"], dialect["delimiter"]
    fields = [
        mark + name.replace(mark, mark * 2) + mark
        if mark and any(char in name for char in (mark, delimiter, "\n", "\r"))
        else name
        for name in dialect["header"]
    ]
    line: str = delimiter.join(fields)
    return line.encode() + b"\n"
