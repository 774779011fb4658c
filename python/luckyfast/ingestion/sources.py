"""From what the user typed to a list of readable text files, with samples of their bytes."""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import igzip, isal_zlib

from luckyfast.errors import InputError
from luckyfast.ingestion.encodings import TextStream
from luckyfast.ingestion.foreign import describe_foreign
from luckyfast.ingestion.format import FORMAT
from luckyfast.ingestion.plan import Compression, Form, Source

__all__ = ["Sample", "find_sources", "open_source", "read_sample"]

HEAD_BYTES = 1 << 18
BLOCK_BYTES = 1 << 16
N_BLOCKS = 6
COMPRESSED_REACH_BYTES = 16 << 20

_COMPRESSIONS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
)
_BZ2_BLOCK = b"1AY&SY"
_ZIP = b"PK\x03\x04"
_TEST_TOOLS = {"gzip": "gzip -t", "bz2": "bzip2 -t", "zstd": "zstd -t", "zip": "unzip -t"}
_TABLES: tuple[tuple[bytes, Form], ...] = ((b"PAR1", "parquet"), (b"ARROW1\x00\x00", "arrow"))
_DECOMPRESS_ERRORS: tuple[Any, ...] = (
    EOFError,
    zlib.error,
    isal_zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    NotImplementedError,
)


@dataclass(frozen=True)
class Sample:
    """Decompressed bytes of one source.

    `head` is its beginning, `blocks` are later pieces that start and end anywhere, `complete` says that `head` is all.
    """

    head: bytes
    blocks: tuple[bytes, ...]
    complete: bool


def find_sources(raw: Iterable[str | Path], *, exclude: Collection[Path] = ()) -> list[Source]:
    """Find the raw files behind files, folders and globs, each once.

    Folders are searched in depth, in sorted order, without hidden files and without datasets that lie in them; empty
    files are left out.

    Args:
        raw: paths or glob patterns as the user gave them.
        exclude: files that are no logs, such as the lookup table.

    Returns:
        The sources in the order of the arguments.

    Raises:
        InputError: a path is missing or cannot be read, there is no file, or a file is no log.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "log.csv").write_text("customer,date\\n1,2024-05-01\\n")
        >>> [source.path.name for source in find_sources([folder])]
        ['log.csv']
    """
    excluded = {os.path.realpath(path) for path in exclude}
    paths: dict[str, Path] = {}
    for argument in raw:
        for path in _expand(argument):
            real = os.path.realpath(path)
            if real not in excluded:
                paths.setdefault(real, path)
    if not paths:
        raise InputError("no raw files were given besides the lookup table", hint="give the logs, a folder or a glob")
    sources = [source for path in paths.values() for source in _identify(path)]
    filled = [source for source in sources if source.size_bytes > 0]
    if not filled:
        raise InputError(f"{_name_some([s.label for s in sources])}: empty, 0 bytes", hint="give files that hold rows")
    _refuse_foreign(filled)
    return filled


@contextmanager
def open_source(source: Source, opened: Callable[[BinaryIO], None] | None = None) -> Iterator[BinaryIO]:
    """Open a source for reading its text, decompressed, as UTF-8 with line feeds.

    `opened` is given the file below, whose position tells how far reading is. Every failure to read becomes an
    `InputError`.
    """
    try:
        with source.path.open("rb") as file:
            if opened is not None:
                opened(file)
            with _open_stream(source, file) as stream:
                yield stream
    except _DECOMPRESS_ERRORS as error:
        raise _damaged(source, error) from error
    except OSError as error:
        # pyarrow and bz2 report damaged data as an OSError without an errno
        if error.errno is None:
            raise _damaged(source, error) from error
        raise _unreadable(source.path, error) from error


def read_sample(source: Source, *, head_bytes: int = HEAD_BYTES, n_blocks: int = N_BLOCKS) -> Sample:
    """Read the beginning of a source and some later blocks, so that later dates and values are seen too.

    Args:
        source: where to read.
        head_bytes: size of the beginning, in decompressed bytes.
        n_blocks: number of later blocks, spread over a plain file, or over the next megabytes of another.

    Returns:
        The sample; at most `head_bytes` + `n_blocks` x 64 KiB.

    Raises:
        InputError: the file cannot be read, or its compressed data are damaged.
    """
    blocks = []
    with open_source(source) as stream:
        head = _read_fully(stream, head_bytes + 1)
        complete = len(head) <= head_bytes
        if not complete and source.is_plain:
            room = source.size_bytes - head_bytes
            for i in range(1, n_blocks + 1):
                stream.seek(head_bytes + max(0, room * i // n_blocks - BLOCK_BYTES))
                blocks.append(_read_fully(stream, BLOCK_BYTES))
        elif not complete:
            for _ in range(n_blocks):
                piece = _read_fully(stream, COMPRESSED_REACH_BYTES // n_blocks)
                blocks.append(piece[-BLOCK_BYTES:])
    return Sample(head[:head_bytes], tuple(block for block in blocks if block), complete)


def _expand(argument: str | Path) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_dir():
        files = _walk(path)
        if not files:
            raise InputError(f"no files in the folder {path}", hint="hidden files are skipped; check the path")
        return files
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        files = [file for match in found for file in (_walk(match) if match.is_dir() else [match])]
        if not files:
            raise InputError(f"no file matches {path}", hint="check the pattern, and quote it in the shell")
        return files
    what = "a broken link" if path.is_symlink() else "no such file or folder"
    raise InputError(f"{what}: {path}", hint=_similar_hint(path))


def _walk(folder: Path) -> list[Path]:
    files: list[Path] = []
    seen: set[str] = set()
    errors: list[OSError] = []
    for root, folders, names in os.walk(folder, followlinks=True, onerror=errors.append):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_own(Path(root, name)))
        files += [Path(root, name) for name in names if not name.startswith(".")]
    if errors:
        raise _unreadable(Path(errors[0].filename or folder), errors[0])
    return sorted(files)


def _is_own(folder: Path) -> bool:
    """Whether a folder is a dataset, or the work of a run that was to make one: neither holds raw files."""
    if folder.name.endswith(".partial") and (folder / "journal").is_file():
        return True
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _identify(path: Path) -> list[Source]:
    """The source that a file is; of a zip archive, all that are inside."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file (a pipe, socket or device)", hint="write the log to a file")
        with path.open("rb") as stream:
            start = stream.read(10)
            if start.startswith(_ZIP):
                return _list_entries(path)
            form = next((form for magic, form in _TABLES if start.startswith(magic)), None)
            if form is not None:
                stream.seek(-min(6, status.st_size), os.SEEK_END)
                # a text may begin so too
                form = form if stream.read().endswith(b"PAR1" if form == "parquet" else b"ARROW1") else None
    except OSError as error:
        raise _unreadable(path, error) from error
    if form is not None:
        return [Source(path, "none", status.st_size, form=form)]
    compression: Compression = next((name for magic, name in _COMPRESSIONS if start.startswith(magic)), "none")
    if compression == "bz2" and start[4:] != _BZ2_BLOCK:
        compression = "none"
    return [Source(path, compression, status.st_size)]


def _list_entries(path: Path) -> list[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise _damaged(Source(path, "zip", 0), error) from error
    if any(entry.filename == "[Content_Types].xml" for entry in entries):
        raise InputError(f"{path} is an Excel workbook, not a log", hint="save the sheet as CSV")
    if any(entry.flag_bits & 1 for entry in entries):
        raise InputError(f"{path} is an encrypted zip archive", hint="unpack it first and give the files inside")
    sources = []
    for entry in sorted(entries, key=lambda entry: entry.filename):
        parts = entry.filename.split("/")
        if not entry.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in parts):
            sources.append(Source(path, "zip", entry.compress_size if entry.file_size else 0, member=entry.filename))
    return sources or [Source(path, "zip", 0)]


def _refuse_foreign(sources: Sequence[Source]) -> None:
    found: list[tuple[Source, str, str]] = []
    for source in sources:
        if source.form in ("parquet", "arrow"):
            continue
        with open_source(source) as stream:
            described = describe_foreign(_read_fully(stream, 1 << 14))
        if described:
            found.append((source, *described))
    if not found:
        return
    source, what, hint = found[0]
    inside = "" if source.compression == "none" else f" inside {source.compression}"
    if len(found) == 1:
        raise InputError(f"{source.label} is {what}{inside}, not a log", hint=hint)
    share = "all" if len(found) == len(sources) else f"{len(found)} of {len(sources)}"
    names = _name_some([entry[0].label for entry in found])
    raise InputError(f"{share} files are no logs: {names} (the first is {what}{inside})", hint=hint)


@contextmanager
def _open_stream(source: Source, file: BinaryIO) -> Iterator[BinaryIO]:
    with _open_bytes(source, file) as stream:
        if source.encoding == "utf-8" and source.line_end == "lf":
            yield stream
        else:
            yield cast(BinaryIO, TextStream(stream, source.encoding, source.line_end))


@contextmanager
def _open_bytes(source: Source, file: BinaryIO) -> Iterator[BinaryIO]:
    if source.compression == "gzip":
        with igzip.open(file, "rb") as unzipped:  # type: ignore[no-untyped-call]
            yield cast(BinaryIO, unzipped)
    elif source.compression == "bz2":
        with bz2.open(file, "rb") as unzipped_bz2:
            yield cast(BinaryIO, unzipped_bz2)
    elif source.compression == "zip":
        with zipfile.ZipFile(file) as archive, archive.open(source.member or "") as entry:
            yield cast(BinaryIO, entry)
    elif source.compression == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as unzipped_zstd:
            yield cast(BinaryIO, unzipped_zstd)
    else:
        yield file


def _read_fully(stream: BinaryIO, n_bytes: int) -> bytes:
    """Read up to `n_bytes`; a single read of a decompressing stream may return less."""
    pieces = []
    while n_bytes > 0 and (piece := stream.read(n_bytes)):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror or error}", hint="check its permissions and the disk")


def _damaged(source: Source, error: Exception) -> InputError:
    return InputError(
        f"{source.label} is {source.compression} but damaged or cut short ({error})",
        hint=f"copy it again, and test it with `{_TEST_TOOLS[source.compression]} {source.path}`",
    )


def _similar_hint(path: Path) -> str:
    import difflib

    try:
        names = [neighbour.name for neighbour in path.parent.iterdir()]
    except OSError:
        return "check the path"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the path"


def _name_some(labels: Sequence[str], n_shown: int = 3) -> str:
    names = ", ".join(labels[:n_shown])
    return names if len(labels) <= n_shown else f"{names} and {len(labels) - n_shown} more"
