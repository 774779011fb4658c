"""Seeded random logs, as dirty as logs get, and what a slow reader of every byte makes of them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from naive_reader import read_rows
from naive_times import naive_time

from luckyfast.ingestion.plan import TimeFormat

HEADER = ("store", "client", "day", "clock", "rayon", "ticket", "note")
DELIMITERS = b",;\t|=^~\x01\x1f #"
QUOTES = (ord('"'), ord('"'), ord("'"), None)
LINE_ENDS = (b"\n", b"\r\n", b"\r", b"mixed")
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-16", "cp1252", "iso8859-1", "cp850")
TIME = TimeFormat("iso", has_clock=True)


@dataclass(frozen=True)
class FuzzLog:
    """A raw log, how it is to be read, and what is in it.

    `text` is the log as UTF-8 with line feeds, from its first data row on; `data` the bytes of the file.
    """

    data: bytes
    text: bytes
    delimiter: int
    quote: int | None
    line_end: bytes
    encoding: str
    header: str
    rows: list[tuple[int, bytes, str]] = field(default_factory=list)
    events: Counter[tuple[str, int, str]] = field(default_factory=Counter)

    def locate(self, start: int, offset: int, raw: bytes) -> tuple[int, bytes]:
        """Where a row of `text` stands in the file, and its bytes there."""
        if self.encoding.startswith("utf-8"):
            return start + offset, raw.replace(b"\n", b"\r") if self.line_end == b"\r" else raw
        encoding = "utf-16-le" if self.encoding == "utf-16" else self.encoding
        end = "\r" if self.line_end == b"\r" else "\n"
        written = raw.decode().replace("\n", end).encode(encoding)
        before = self.data.decode(self.encoding)[: len(self.header) + len(self.text[:offset].decode())]
        return len(before.encode(self.encoding)), written


def make_log(seed: int, n_rows: int) -> FuzzLog:
    """A log of about so many rows, and its reading by the naive twins.

    Args:
        seed: every log of a seed is the same.
        n_rows: lines to write; some are empty, and open quotes join some.
    """
    draw = random.Random(seed)
    delimiter = draw.choice(DELIMITERS)
    quote = draw.choice(QUOTES)
    line_end = draw.choice(LINE_ENDS)
    encoding = draw.choice(ENCODINGS)
    ends = {b"mixed": (b"\n", b"\r\n")}.get(line_end, (line_end,))
    alphabet = _alphabet(draw, encoding, delimiter, line_end)
    good = bytes([delimiter]).join((b"s0", b"c0", b"2024-01-01", b"10:00", b"PAIN", b"t0", b""))
    body = (
        good + ends[0] + b"".join(_row(draw, delimiter, quote, alphabet, i) + draw.choice(ends) for i in range(n_rows))
    )
    if draw.random() < 0.5:
        body = body.removesuffix(b"\n").removesuffix(b"\r")
    header = bytes([delimiter]).join(name.encode() for name in HEADER) + ends[0]
    if encoding.startswith("utf-8"):
        data = header + body
        data = b"\xef\xbb\xbf" + data if encoding == "utf-8-sig" else data
    else:
        # damage is written as UTF-8 and would not survive
        data = (header + body).decode("utf-8", "replace").replace("\ufffd", "?").encode(encoding, "replace")
        body = data.decode(encoding).removeprefix("\ufeff").encode()[len(header) :]
    text = body.replace(b"\r", b"\n") if line_end == b"\r" else body
    log = FuzzLog(data, text, delimiter, quote, line_end, encoding, header.decode())
    for offset, raw, fields in read_rows(text, delimiter, quote):
        log.rows.append((offset, raw, _reason(fields, log.events)))
    return log


def _alphabet(draw: random.Random, encoding: str, delimiter: int, line_end: bytes) -> list[bytes]:
    pieces = [b"a", b"B", b"0", b" ", b"x y", b".", b"-", b"\x00", b"'", b"n/a"]
    pieces += [text.encode() for text in ("é", "à", "Ç", "ñ")]
    if encoding.startswith("utf-"):
        pieces += [text.encode() for text in ("日本", "🛒", "e\u0301", "\ufeff", "œ")]
    if encoding.startswith("utf-8") and draw.random() < 0.5:
        pieces += [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f"]
    if line_end != b"\r" and draw.random() < 0.3:
        pieces.append(b"\r")
    return [piece for piece in pieces if delimiter not in piece]


def _row(draw: random.Random, delimiter: int, quote: int | None, alphabet: list[bytes], number: int) -> bytes:
    def word() -> bytes:
        return b"".join(draw.choices(alphabet, k=draw.randrange(0, 5) if draw.random() < 0.95 else draw.randrange(60)))

    day = b"2024-%02d-%02d" % (draw.randrange(1, 13), draw.randrange(1, 31))
    clock = draw.choice((b"10:00", b"9:05:07", b"23:59:59.25", b"00:00:00Z", b"12:00+02:00", b"25:00", b""))
    if draw.random() < 0.05:
        day = draw.choice((b"", b"NULL", b"2024-02-30", b"yesterday", b" "))
    client = b"c%d" % draw.randrange(40) if draw.random() < 0.7 else word()
    rayon = draw.choice((b"PAIN", b"VIN", b"NA")) if draw.random() < 0.6 else word()
    fields = [b"s%d" % draw.randrange(3), client, day, clock, rayon, b"t%d" % (number // 3), word()]
    written = [_field(draw, one, delimiter, quote) for one in fields]
    chance = draw.random()
    if chance < 0.02:
        written = written[: draw.randrange(len(written))]
    elif chance < 0.03:
        written.append(b"more")
    elif chance < 0.04:
        return b""
    return bytes([delimiter]).join(written)


def _field(draw: random.Random, value: bytes, delimiter: int, quote: int | None) -> bytes:
    if quote is None:
        return value + (b'"' if draw.random() < 0.05 else b"")
    mark = bytes([quote])
    chance = draw.random()
    if chance < 0.6:
        return value
    if chance < 0.9:
        inside = draw.choice(
            (b"", b"", bytes([delimiter]), b"\n", b"\r\n", mark, mark + mark, bytes([delimiter]) + mark)
        )
        return mark + (value + inside).replace(mark, mark + mark) + mark
    if chance < 0.93:
        return value + mark
    if chance < 0.96:
        return mark + value + mark + draw.choice((b"x", b" ", mark))
    return mark + value if chance < 0.962 else value


def _reason(fields: list[bytes] | None, events: Counter[tuple[str, int, str]]) -> str:
    """The reason to reject a row, or "" for an event, which is counted."""
    if fields is None:
        return "unclosed_quote"
    if len(fields) != len(HEADER):
        return "field_count"
    _, client, day, clock, rayon, _, _ = fields
    if not client.strip(b" "):
        return "missing_customer"
    if not day.strip(b" ") or not clock.strip(b" ") or day == b"NULL":
        return "missing_time"
    time = naive_time((day + b" " + clock).decode("utf-8", "replace"), TIME)
    if time is None:
        return "bad_time"
    if not rayon.strip(b" "):
        return "missing_action"
    try:
        events[client.decode(), time, rayon.decode()] += 1
    except UnicodeDecodeError:
        return "bad_encoding"
    return ""
