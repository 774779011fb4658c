"""Naive twin of scan and parse: records of delimited text byte by byte, rows to events one field at a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

NEWLINE = 10


def read_record(data: bytes, start: int, delimiter: int, quote: int | None) -> tuple[list[bytes] | None, int]:
    """Fields of the record at `start` and where the next begins; None: its first line opens a quote by mistake."""
    first_line_stop = data.index(b"\n", start) + 1
    fields: list[bytes] = []
    at = start
    while True:
        field = bytearray()
        if quote is not None and data[at : at + 1] == bytes([quote]):
            at += 1
            crossed = False
            while True:
                if at >= len(data):
                    return None, first_line_stop
                if data[at] == quote:
                    if data[at + 1 : at + 2] != bytes([quote]):
                        break
                    at += 1
                crossed |= data[at] == NEWLINE
                field.append(data[at])
                at += 1
            at += 1
            if at >= len(data) or (crossed and data[at] not in (delimiter, NEWLINE, 13)):
                return None, first_line_stop
        while data[at] not in (delimiter, NEWLINE):
            field.append(data[at])
            at += 1
        if data[at] == NEWLINE:
            # the carriage return belongs to the line end
            fields.append(bytes(field).removesuffix(b"\r") if data[at - 1] == 13 else bytes(field))
            return fields, at + 1
        fields.append(bytes(field))
        at += 1


def read_rows(data: bytes, delimiter: int, quote: int | None) -> list[tuple[int, bytes, list[bytes] | None]]:
    """(offset, raw bytes, fields) of every row; empty lines are no rows."""
    if data and not data.endswith(b"\n"):
        data += b"\n"
    rows = []
    at = 0
    while at < len(data):
        fields, stop = read_record(data, at, delimiter, quote)
        raw = data[at : stop - 1]
        if raw not in (b"", b"\r"):
            rows.append((at, raw, fields))
        at = stop
    return rows


ISO = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?",
)
CLOCK = rb"(?: (\d\d?):(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?"


def parse_time(text: bytes, kind: str, unit_us: int = 1, separator: int = 47) -> int | None:
    """Microseconds since the epoch, or None."""
    if kind in ("order", "epoch"):
        if not re.fullmatch(rb"-?[0-9]{1,19}", text):
            return None
        value = int(text)
        if kind == "epoch":
            if abs(value) > 2**63 - 1:
                return None
            value = value // 1000 if unit_us == 0 else value * unit_us
        return value if abs(value) <= 2**63 - 1 else None
    if kind == "iso":
        match = ISO.fullmatch(text)
        if not match:
            return None
        year, month, day, hour, minute, second, fraction, zone = match.groups()
    else:
        mark = re.escape(bytes([separator]))
        shape = rb"(\d{4})(\d\d)(\d\d)" if kind == "ymd" else rb"(\d\d?)" + mark + rb"(\d\d?)" + mark + rb"(\d{4})"
        match = re.fullmatch(shape + CLOCK, text)
        if not match:
            return None
        a, b, c, hour, minute, second, fraction = match.groups()
        year, month, day = {"ymd": (a, b, c), "dmy": (c, b, a), "mdy": (c, a, b)}[kind]
        zone = None
    try:
        time = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    us = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    us += int(((fraction or b"") + b"000000")[:6])
    if zone and zone != b"Z":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 23 or minutes > 59:
            return None
        us -= (1 if zone[:1] == b"+" else -1) * (hours * 60 + minutes) * 60_000_000
    return us
