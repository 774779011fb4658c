"""Files that are no logs, named by what their first bytes say they are."""

from __future__ import annotations

from luckyfast.ingestion.encodings import looks_utf16

__all__ = ["describe_foreign"]

_CONVERT = "turn it into CSV first, for example with `duckdb -c \"COPY (FROM 'FILE') TO 'log.csv'\"`"
_UNPACK = "unpack it first and give the files inside"
_NO_LOG = "give only the logs, for example 'FOLDER/*.csv'"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive inside another", _UNPACK),
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
    (b"[{", "one JSON array", "write one object per line first: jq -c '.[]' FILE > NEW.jsonl"),
    (b"<?xml", "an XML file", "export it as CSV first"),
    (b"<!doctype", "a web page", _NO_LOG),
    (b"<html", "a web page", _NO_LOG),
    (b"<svg", "an SVG picture", _NO_LOG),
)


def describe_foreign(head: bytes) -> tuple[str, str] | None:
    """Say what bytes are when they are no text, and what to do about it; None for text.

    Args:
        head: the first decompressed bytes of a file, 16 KiB are enough.

    Example:
        >>> describe_foreign(b"%PDF-1.7 ...")[0], describe_foreign(b"customer,date")
        ('a PDF document', None)
    """
    for magic, what, hint in _FOREIGN:
        # a header may well begin with "ORC"; real files of these kinds hold NUL bytes early
        if head.startswith(magic) and (not magic.isascii() or not magic.strip(b"\x00").isalnum() or b"\x00" in head):
            return what, hint
    text = b"".join(head.removeprefix(b"\xef\xbb\xbf")[:4096].split()).lower()
    for start, what, hint in _MARKUP:
        if text.startswith(start):
            return what, hint
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if not head or looks_utf16(head):
        return None
    table = [head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f"]
    # one control byte may be the delimiter: Hive writes ^A
    n_control = sum(table) - max(table[1:])
    if n_control > 0.02 * len(head):
        return "binary data", _NO_LOG
    if head.count(b"\n") + head.count(b"\r") == 0 and sum(byte >= 0x80 for byte in head) > 0.5 * len(head):
        return "binary data", _NO_LOG
    return None
