"""Naive twin of scan and parse: records of delimited text byte by byte, rows to events one field at a time."""

from __future__ import annotations

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
