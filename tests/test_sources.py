"""Files, folders and globs become readable sources; anything else is one clear sentence."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest

from luckyfast.errors import InputError
from luckyfast.ingestion.foreign import describe_foreign
from luckyfast.ingestion.sources import find_sources, open_source, read_sample

LOG = b"customer,date,rayon\n" + b"".join(b"%d,2017-01-%02d,FROMAGE\n" % (i, i % 28 + 1) for i in range(50))


def png() -> bytes:
    """A valid picture of one pixel."""
    chunks = b""
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\1\2\3"))):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def test_folders_are_searched_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    fill(tmp_path, {"b.csv": LOG, "a/z.csv": LOG, ".hidden": LOG, ".git/x.csv": LOG, "a/_SUCCESS": b""})
    found = find_sources([tmp_path])
    assert [source.path.relative_to(tmp_path).as_posix() for source in found] == ["a/z.csv", "b.csv"]
    assert [source.size_bytes for source in found] == [len(LOG)] * 2


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": LOG, "b.csv": LOG})
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    found = find_sources([tmp_path / "b.csv", tmp_path, str(tmp_path / "*.csv")])
    assert [source.path.name for source in found] == ["b.csv", "a.csv"]


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": LOG})
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [source.path.name for source in find_sources([tmp_path])] == ["a.csv"]


def test_the_lookup_table_is_no_source(tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": LOG, "products.csv": LOG})
    found = find_sources([tmp_path], exclude=[tmp_path / "x" / ".." / "products.csv"])
    assert [source.path.name for source in found] == ["a.csv"]
    with pytest.raises(InputError, match="besides the lookup table"):
        find_sources([tmp_path / "a.csv"], exclude=[tmp_path / "a.csv"])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    fill(tmp_path, {"log[1].csv": LOG, "log1.csv": LOG})
    assert [source.path.name for source in find_sources([str(tmp_path / "log[1].csv")])] == ["log[1].csv"]


@pytest.mark.parametrize(
    ("data", "compression"),
    [
        (LOG, "none"),
        (gzip.compress(LOG), "gzip"),
        (gzip.compress(LOG[:100]) + gzip.compress(LOG[100:]), "gzip"),
        (bz2.compress(LOG), "bz2"),
        (zstd(LOG), "zstd"),
    ],
)
def test_compression_is_told_by_content_and_not_by_name(tmp_path: Path, data: bytes, compression: str) -> None:
    fill(tmp_path, {"log.txt": data})
    (source,) = find_sources([tmp_path])
    assert source.compression == compression
    with open_source(source) as stream:
        assert stream.read() == LOG
    sample = read_sample(source)
    assert (sample.head, sample.blocks, sample.complete) == (LOG, (), True)


@pytest.mark.parametrize("compression", ["none", "gzip", "bz2", "zstd"])
def test_a_sample_of_a_long_file_sees_its_beginning_and_later_rows(tmp_path: Path, compression: str) -> None:
    text = b"".join(b"%09d\n" % i for i in range(200_000))
    pack = {"none": bytes, "gzip": gzip.compress, "bz2": bz2.compress, "zstd": zstd}[compression]
    fill(tmp_path, {"log": pack(text)})
    sample = read_sample(find_sources([tmp_path])[0], head_bytes=1000, n_blocks=3)
    assert sample.head == text[:1000]
    assert not sample.complete
    assert len(sample.blocks) in (1, 3)
    assert all(block in text for block in sample.blocks)
    if compression == "none":
        assert sample.blocks[-1].endswith(b"000199999\n")


@pytest.mark.parametrize("n_bytes", [30, 200])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zstd])
def test_damaged_compressed_files_are_named(tmp_path: Path, pack, n_bytes: int) -> None:  # type: ignore[no-untyped-def]
    data = pack(os.urandom(4000).hex().encode())
    fill(tmp_path, {"log.gz": data[:n_bytes]})
    with pytest.raises(InputError, match=r"log\.gz is .* but damaged or cut short"):
        read_sample(find_sources([tmp_path])[0])


def test_a_missing_path_is_named_with_the_closest_one(tmp_path: Path) -> None:
    fill(tmp_path, {"receipts.csv": LOG})
    with pytest.raises(InputError, match=r"no such file or folder: .*reciepts\.csv") as caught:
        find_sources([tmp_path / "reciepts.csv"])
    assert caught.value.hint == f"did you mean {tmp_path / 'receipts.csv'}?"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, "no files in the folder"),
        (lambda folder: fill(folder, {".hidden": LOG}), "no files in the folder"),
        (lambda folder: folder / "*.csv", "no file matches"),
        (lambda folder: fill(folder, {"a.csv": b""}), r"a\.csv: empty, 0 bytes"),
        (lambda folder: [(folder / "l").symlink_to(folder / "gone"), folder / "l"][1], "a broken link"),
        (lambda folder: [os.mkfifo(folder / "pipe"), folder / "pipe"][1], "is no regular file"),
    ],
)
def test_what_holds_nothing_to_read_is_refused(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message) as caught:
        find_sources([make(tmp_path)])
    assert caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens but cannot be read")
def test_an_unreadable_file_is_named_with_the_cause() -> None:
    with pytest.raises(InputError, match="cannot read /proc/self/mem: Input/output error"):
        find_sources(["/proc/self/mem"])


def test_a_folder_of_pictures_is_refused_in_one_sentence(tmp_path: Path) -> None:
    fill(tmp_path, {f"{i}.png": png() for i in range(5)})
    with pytest.raises(InputError) as caught:
        find_sources([tmp_path])
    assert caught.value.message.startswith("all files are no logs: ")
    assert "0.png" in caught.value.message
    assert "and 2 more (the first is a PNG picture)" in caught.value.message


def test_a_picture_among_logs_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a.csv": LOG, "b.png": png()})
    with pytest.raises(InputError, match=r"b\.png is a PNG picture, not a log"):
        find_sources([tmp_path])


def test_foreign_formats_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<xml/>")
    tar = b"name".ljust(257, b"\0") + b"ustar\x0000".ljust(300, b"\0")
    fill(
        tmp_path, {"tar.gz": gzip.compress(tar), "noise": os.urandom(5000), "json": b'[{"a": 1}]\n', "xml": b"<?xml ?>"}
    )
    expected = {
        "xlsx": "an Excel workbook",
        "tar.gz": "a tar archive inside gzip",
        "noise": "binary data",
        "json": "one JSON array",
        "xml": "an XML file",
    }
    for name, what in expected.items():
        with pytest.raises(InputError, match=what):
            find_sources([tmp_path / name])


@pytest.mark.parametrize(
    "head",
    [
        b"ORCHID,RIFF\nGIF8,PAR1\n",
        b"PAR1,b\n1,2\n",
        b"BZh,b\n1,2\n",
        "clé;été;né\n1;2;3\n".encode(),
        "顧客,日付\n1,2\n".encode(),
        "clé;été;né\n".encode("cp1252"),
        "a,b\n1,2\n".encode("utf-16"),
        "a,b\n1,2\n".encode("utf-16-le"),
        b"1\x01CHEESE\x01 2\n" * 50,
        b"a,b\n" * 100 + b"x\0y,1\n",
    ],
)
def test_text_of_many_kinds_is_text(head: bytes) -> None:
    assert describe_foreign(head) is None
