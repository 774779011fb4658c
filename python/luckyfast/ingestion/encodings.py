"""Text in other encodings, and with other line ends, as UTF-8 with line feeds.

What cannot be decoded becomes bytes that are no UTF-8, so that its rows are rejected and no two names become one.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from luckyfast.errors import SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "TextStream",
    "continued_encoding",
    "detect_encoding",
    "detect_line_end",
    "encode_text",
    "encoded_bytes",
    "looks_utf16",
    "parse_encoding",
]

CHUNK_BYTES = 1 << 18
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UTF8_NAMES = frozenset(("utf-8", "ascii"))
# quotes, dashes, dots, the euro and the ligature oe: what Windows text has between 0x80 and 0x9F
_USUAL_CP1252 = frozenset(b"\x80\x85\x8c\x91\x92\x93\x94\x95\x96\x97\x99\x9c")
_INSIDE_WORDS = re.compile(rb"(?<=[A-Za-z])[\x80-\x9f](?=[A-Za-z])")
_IN_WORDS = re.compile(rb"(?:(?<=[A-Za-z])[\x80-\xff]{1,2}|[\x80-\xff](?=[A-Za-z]))")
_SIGNS = re.compile(rb"(?<![\x80-\xff])[\xa0-\xbf](?![\x80-\xff])")
_UNDEFINED_CP1252 = b"\x81\x8d\x8f\x90\x9d"


def parse_encoding(name: str) -> str:
    """Read `--encoding`: the name of a text encoding that Python knows, in one spelling.

    Raises:
        SchemaError: no such encoding.

    Example:
        >>> parse_encoding("Latin1"), parse_encoding("UTF8"), parse_encoding("windows-1252")
        ('iso8859-1', 'utf-8', 'cp1252')
    """
    try:
        known = codecs.lookup(name)
        # codecs such as hex and rot13 are no text encodings
        text_like = isinstance("a".encode(name), bytes)
    except (LookupError, ValueError):
        text_like = False
    if not text_like:
        raise SchemaError(
            f"no such encoding: {name}", hint="for example --encoding utf-8, utf-16, cp1252, latin-1, cp850, shift_jis"
        )
    return "utf-8" if known.name in ("utf-8", "utf-8-sig", "ascii") else known.name


def looks_utf16(head: bytes) -> bool:
    """Whether there is a mark of UTF-16 or UTF-32, or every other byte is NUL, as in Latin text written as UTF-16."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return True
    return _utf16_by_nuls(head) is not None


def detect_encoding(label: str, pieces: tuple[bytes, ...]) -> tuple[str, str]:
    """Decide how the bytes of a file are to be read as text.

    Args:
        label: the file, for messages.
        pieces: sampled bytes, the file's beginning first.

    Returns:
        The encoding ("utf-8" for all that needs no decoding), and where it is another, why, for people.

    Raises:
        SchemaError: several encodings fit; names them, with a sample in each.

    Example:
        >>> detect_encoding("log.csv", ("7;crémerie\\n8;épicerie\\n9;entrée\\n".encode("cp1252"),))
        ('cp1252', "'7;crémerie'")
    """
    if found := _wide_encoding(pieces[0]):
        return found
    n_valid, broken = _try_utf8(pieces)
    text = b"\n".join(broken)
    # a few broken lines among valid ones are damage and will be rejected one by one; the reverse is another encoding
    if len(broken) <= n_valid or not (n_valid or _is_plausible(text)):
        return "utf-8", ""
    strange = sum(n for byte, n in Counter(b"".join(_INSIDE_WORDS.findall(text))).items() if byte not in _USUAL_CP1252)
    if strange > sum(byte >= 0xC0 for byte in text):
        line = next(line for line in broken if _INSIDE_WORDS.search(line))
        fitting = [(name, _excerpt(line, name)) for name in ("cp850", "mac-roman", "cp1252")]
        shown = ", ".join(f"{name}: {excerpt!r}" for name, excerpt in fitting)
        raise SchemaError(
            f"{label} is not UTF-8, and its encoding cannot be told: {shown}",
            hint="add the one that reads well: " + " or ".join(f"--encoding {name}" for name, _ in fitting),
        )
    name = "latin-1" if any(byte in text for byte in _UNDEFINED_CP1252) else "cp1252"
    return parse_encoding(name) if name == "latin-1" else name, repr(_excerpt(broken[0], name))


def continued_encoding(pieces: tuple[bytes, ...], before: str) -> tuple[str, str]:
    """The encoding of a file that is added to others: theirs, unless its bytes are clearly UTF-8 or UTF-16.

    Args:
        pieces: sampled bytes, the file's beginning first.
        before: the encoding of the others.

    Returns:
        The encoding, and why, for people.

    Example:
        >>> continued_encoding(("7;łóżko\\n8;żur\\n".encode("cp1250"),), "cp1250")
        ('cp1250', 'as the files before')
        >>> continued_encoding(("7;łóżko\\n8;żur\\n".encode(),), "cp1250")
        ('utf-8', '')
    """
    if found := _wide_encoding(pieces[0]):
        return found
    n_valid, broken = _try_utf8(pieces)
    if n_valid > len(broken) or (not broken and "a".encode(before) != b"a"):
        return "utf-8", ""
    return before, "as the files before"


def _wide_encoding(head: bytes) -> tuple[str, str] | None:
    """UTF-16 and UTF-32, by their marks or zeros."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, "byte order mark"
    by_nuls = _utf16_by_nuls(head)
    return (by_nuls, "every other byte is NUL") if by_nuls else None


def _try_utf8(pieces: tuple[bytes, ...]) -> tuple[int, list[bytes]]:
    """How many lines beyond ASCII are valid UTF-8, and those that are not."""
    n_valid, broken = 0, []
    for number, piece in enumerate(pieces):
        if piece.isascii():
            continue
        # the first and the last line of a piece may be cut
        for line in re.split(rb"[\r\n]+", piece)[min(number, 1) : -1] or [piece]:
            if line.isascii():
                continue
            try:
                line.decode()
                n_valid += 1
            except UnicodeDecodeError:
                broken.append(line)
    return n_valid, broken


def detect_line_end(text: bytes) -> str:
    """Whether lines end with a line feed ("lf", also behind a carriage return) or a carriage return alone ("cr")."""
    n_lone = text.count(b"\r") - text.count(b"\r\n") - text.endswith(b"\r")
    return "cr" if n_lone > text.count(b"\n") else "lf"


class TextStream:
    """A stream of bytes in any encoding and with any line end, read as UTF-8 with line feeds.

    Args:
        stream: the decompressed bytes.
        encoding: a name from `parse_encoding`.
        line_end: "lf", or "cr" to read lone carriage returns as line feeds.
    """

    def __init__(self, stream: BinaryIO, encoding: str, line_end: str) -> None:
        self._stream = stream
        self._line_end = line_end
        self._decoder: codecs.IncrementalDecoder | None = None
        self._table = ""
        self._errors = "surrogatepass" if encoding.startswith("utf") else "surrogateescape"
        if encoding not in _UTF8_NAMES:
            self._table = _single_byte_table(encoding)
            if not self._table:
                self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._left = memoryview(b"")
        self._at_end = False

    def read(self, n_bytes: int = -1) -> bytes:
        """Up to so many bytes (all without a number); fewer only at the end."""
        pieces = []
        while n_bytes != 0 and self._fill():
            piece = self._left if n_bytes < 0 else self._left[:n_bytes]
            self._left = self._left[len(piece) :]
            pieces.append(bytes(piece))
            n_bytes -= len(piece) if n_bytes > 0 else 0
        return b"".join(pieces)

    def readinto(self, room: memoryview) -> int:
        """Fill a buffer as far as the next chunk reaches; 0 at the end."""
        if not self._fill():
            return 0
        n = min(len(room), len(self._left))
        room[:n] = self._left[:n]
        self._left = self._left[n:]
        return n

    def _fill(self) -> bool:
        while not self._left and not self._at_end:
            raw = self._stream.read(CHUNK_BYTES)
            self._at_end = not raw
            text = self._decode(raw)
            self._left = memoryview(text.replace(b"\r", b"\n") if self._line_end == "cr" else text)
        return bool(self._left)

    def _decode(self, raw: bytes) -> bytes:
        if self._table:
            if raw.isascii():
                return raw
            return codecs.charmap_decode(raw, "strict", self._table)[0].encode()
        if self._decoder is None:
            return raw
        try:
            # an escaped byte becomes a lone surrogate, which is no UTF-8; several bytes themselves might be
            return self._decoder.decode(raw, not raw).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            # half a character at the end of the file
            return b"\xff"


def encode_text(text: bytes, encoding: str, line_end: str = "lf") -> bytes:
    """What `TextStream` has read as these bytes; they are returned as they are where that cannot be told.

    Example:
        >>> encode_text("crémerie\\n".encode(), "cp1252", "cr")
        b'cr\\xe9merie\\r'
    """
    if line_end == "cr":
        text = text.replace(b"\n", b"\r")
    if encoding in _UTF8_NAMES:
        return text
    table = _single_byte_table(encoding)
    try:
        if table:
            return codecs.charmap_encode(text.decode(), "strict", codecs.charmap_build(table))[0]
        errors = "surrogatepass" if encoding.startswith("utf") else "surrogateescape"
        return text.decode("utf-8", "surrogatepass").encode(encoding, errors)
    except UnicodeError:
        return text


def encoded_bytes(text: NDArray[np.uint8], encoding: str) -> int:
    """How many bytes such text has in a file of this encoding; of encodings without fixed sizes, in UTF-8."""
    if encoding.startswith(("utf-16", "utf-32")):
        n_chars = np.count_nonzero((text & 0xC0) != 0x80)
        return int(4 * n_chars if encoding.startswith("utf-32") else 2 * (n_chars + np.count_nonzero(text >= 0xF0)))
    if encoding not in _UTF8_NAMES and _single_byte_table(encoding):
        return int(np.count_nonzero((text & 0xC0) != 0x80))
    return len(text)


@functools.cache
def _single_byte_table(encoding: str) -> str:
    """The character of each byte, the control character of the same number where the encoding has none."""
    if len("é".encode(encoding, "replace")) != 1 or len("aé".encode(encoding, "replace")) != 2:
        return ""
    table = [bytes([byte]).decode(encoding, "replace") for byte in range(256)]
    if table[:128] != [chr(byte) for byte in range(128)]:
        return ""
    pairs = [(first, second) for first in range(128, 256) for second in (0x40, 0x81, 0xA1, 0xFE)]
    if any(bytes(pair).decode(encoding, "replace") != table[pair[0]] + table[pair[1]] for pair in pairs):
        return ""
    table = [chr(byte) if char == "\ufffd" else char for byte, char in enumerate(table)]
    # two bytes that become one character would make two names one
    return "".join(table) if len(set(table)) == 256 else ""


def _utf16_by_nuls(head: bytes) -> str | None:
    n_pairs = len(head) // 2
    if n_pairs:
        for i, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            if head[i::2].count(0) > 0.8 * n_pairs and head[1 - i :: 2].count(0) < 0.1 * n_pairs:
                return name
    return None


def _is_plausible(text: bytes) -> bool:
    """Whether most bytes beyond ASCII are signs, or letters in or beside words, as text has them and noise has not."""
    n_high = sum(byte >= 0x80 for byte in text)
    n_usual = sum(byte in _USUAL_CP1252 for byte in text)
    return len(_IN_WORDS.findall(text)) + len(_SIGNS.findall(text)) + n_usual > 0.5 * n_high


def _excerpt(line: bytes, encoding: str) -> str:
    """The neighbourhood of the first byte that is no ASCII."""
    at = next(i for i, byte in enumerate(line) if byte >= 0x80)
    return line[max(0, at - 12) : at + 12].decode(encoding, "replace")
