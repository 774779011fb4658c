"""From what the user typed to a list of readable text files, with samples of their bytes."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import os
import stat
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from luckyfast.errors import InputError
from luckyfast.ingestion.plan import Compression, Source

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
_TEST_TOOLS = {"gzip": "gzip -t", "bz2": "bzip2 -t", "zstd": "zstd -t"}
_CONVERT = "turn it into CSV first, for example with `duckdb -c \"COPY (FROM 'FILE') TO 'log.csv'\"`"
_UNPACK = "unpack it first and give the files inside"
_NO_LOG = "give only the logs, for example 'FOLDER/*.csv'"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or an Excel workbook)", "unpack it, or save the sheet as CSV"),
    (b"PAR1", "a Parquet file", _CONVERT),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"ORC", "an ORC file", _CONVERT),
    (b"Obj\x01", "an Avro file", _CONVERT),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV first"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "export the table as CSV first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file", "save the sheet as CSV"),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "an lz4 file", _UNPACK),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", _NO_LOG),
    (b"\xff\xd8\xff", "a JPEG picture", _NO_LOG),
    (b"GIF8", "a GIF picture", _NO_LOG),
    (b"II*\x00", "a TIFF picture", _NO_LOG),
    (b"MM\x00*", "a TIFF picture", _NO_LOG),
    (b"RIFF", "a picture, sound or film (RIFF)", _NO_LOG),
    (b"%PDF", "a PDF document", _NO_LOG),
    (b"\x7fELF", "a program", _NO_LOG),
    (b"MZ\x90", "a program", _NO_LOG),
)
_MARKUP: tuple[tuple[bytes, str, str], ...] = (
    (b'{"', "JSON", "turn it into CSV first, for example with `jq -r '[.customer, .time, .action] | @csv'`"),
    (b"[{", "JSON", "turn it into CSV first, for example with `jq -r '.[] | [.customer, .time, .action] | @csv'`"),
    (b"<?xml", "an XML file", "export it as CSV first"),
    (b"<!doctype", "a web page", _NO_LOG),
    (b"<html", "a web page", _NO_LOG),
    (b"<svg", "an SVG picture", _NO_LOG),
)
_DECOMPRESS_ERRORS = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


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

    Folders are searched in depth, in sorted order, without hidden files; empty files are left out.

    Args:
        raw: paths or glob patterns as the user gave them.
        exclude: files that are no logs, such as the lookup table.

    Returns:
        The sources in the order of the arguments.

    Raises:
        InputError: a path is missing or cannot be read, there is no file, or a file is no delimited text.

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
    sources = [_identify(path) for path in paths.values()]
    filled = [source for source in sources if source.size_bytes > 0]
    if not filled:
        raise InputError(f"{_name_some([s.path for s in sources])}: empty, 0 bytes", hint="give files that hold rows")
    _refuse_foreign(filled)
    return filled


@contextmanager
def open_source(source: Source) -> Iterator[BinaryIO]:
    """Open a source for reading its decompressed bytes; every failure to read becomes an `InputError`."""
    try:
        with _open_stream(source) as stream:
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
        n_blocks: number of later blocks, spread over an uncompressed file, or over the next megabytes of another.

    Returns:
        The sample; at most `head_bytes` + `n_blocks` x 64 KiB.

    Raises:
        InputError: the file cannot be read, or its compressed data are damaged.
    """
    blocks = []
    with open_source(source) as stream:
        head = _read_fully(stream, head_bytes + 1)
        complete = len(head) <= head_bytes
        if not complete and source.compression == "none":
            room = source.size_bytes - head_bytes
            for i in range(1, n_blocks + 1):
                stream.seek(head_bytes + max(0, room * i // n_blocks - BLOCK_BYTES))
                blocks.append(_read_fully(stream, BLOCK_BYTES))
        elif not complete:
            for _ in range(n_blocks):
                piece = _read_fully(stream, COMPRESSED_REACH_BYTES // n_blocks)
                blocks.append(piece[-BLOCK_BYTES:])
    return Sample(head[:head_bytes], tuple(block for block in blocks if block), complete)


def describe_foreign(head: bytes) -> tuple[str, str] | None:
    """Say what bytes are when they are no text, and what to do about it; None for text."""
    for magic, what, hint in _FOREIGN:
        # a header may well begin with "ORC"; real files of these kinds hold NUL bytes early
        if head.startswith(magic) and (not magic.isascii() or not magic.strip(b"\x00").isalnum() or b"\x00" in head):
            return what, hint
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, what, hint in _MARKUP:
        if text.startswith(start):
            return what, hint
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or not head:
        return None
    table = [head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f"]
    # one control byte may be the delimiter (Hive writes ^A), and UTF-16 without a mark has a NUL in every other place
    n_control = sum(table) - max(table[1:])
    if n_control > 0.02 * len(head) and not looks_utf16(head):
        return "binary data", _NO_LOG
    if head.count(b"\n") + head.count(b"\r") == 0 and _share_high(head) > 0.5:
        return "binary data", _NO_LOG
    return None


def looks_utf16(head: bytes) -> bool:
    """Whether every other byte is NUL, as in Latin text written as UTF-16."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    n_pairs = len(head) // 2
    return n_pairs > 0 and any(
        head[i::2].count(0) > 0.8 * n_pairs and head[1 - i :: 2].count(0) < 0.1 * n_pairs for i in (0, 1)
    )


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
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, name) for name in names if not name.startswith(".")]
    if errors:
        raise _unreadable(Path(errors[0].filename or folder), errors[0])
    return sorted(files)


def _identify(path: Path) -> Source:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file (a pipe, socket or device)", hint="write the log to a file")
        with path.open("rb") as stream:
            start = stream.read(10)
    except OSError as error:
        raise _unreadable(path, error) from error
    compression: Compression = next((name for magic, name in _COMPRESSIONS if start.startswith(magic)), "none")
    if compression == "bz2" and start[4:] != _BZ2_BLOCK:
        compression = "none"
    return Source(path, compression, status.st_size)


def _refuse_foreign(sources: Sequence[Source]) -> None:
    found: list[tuple[Source, str, str]] = []
    for source in sources:
        with open_source(source) as stream:
            described = describe_foreign(_read_fully(stream, 1 << 14))
        if described:
            found.append((source, *described))
    if not found:
        return
    source, what, hint = found[0]
    inside = "" if source.compression == "none" else f" inside {source.compression}"
    if len(found) == 1:
        raise InputError(f"{source.path} is {what}{inside}, not a delimited text log", hint=hint)
    share = "all" if len(found) == len(sources) else f"{len(found)} of {len(sources)}"
    names = _name_some([entry[0].path for entry in found])
    raise InputError(f"{share} files are no delimited text logs: {names} (the first is {what}{inside})", hint=hint)


@contextmanager
def _open_stream(source: Source) -> Iterator[BinaryIO]:
    if source.compression == "gzip":
        with gzip.open(source.path, "rb") as unzipped:
            yield cast(BinaryIO, unzipped)
    elif source.compression == "bz2":
        with bz2.open(source.path, "rb") as unzipped_bz2:
            yield cast(BinaryIO, unzipped_bz2)
    elif source.compression == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(str(source.path), "zstd") as unzipped_zstd:
            yield cast(BinaryIO, unzipped_zstd)
    else:
        with source.path.open("rb") as stream:
            yield stream


def _read_fully(stream: BinaryIO, n_bytes: int) -> bytes:
    """Read up to `n_bytes`; a single read of a decompressing stream may return less."""
    pieces = []
    while n_bytes > 0 and (piece := stream.read(n_bytes)):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _share_high(head: bytes) -> float:
    return sum(byte >= 0x80 for byte in head) / len(head)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror or error}", hint="check its permissions and the disk")


def _damaged(source: Source, error: Exception) -> InputError:
    return InputError(
        f"{source.path} is {source.compression} but damaged or cut short ({error})",
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


def _name_some(paths: Sequence[Path], n_shown: int = 3) -> str:
    names = ", ".join(str(path) for path in paths[:n_shown])
    return names if len(paths) <= n_shown else f"{names} and {len(paths) - n_shown} more"
