"""Naive twin of the time kernels: one text at a time, by the rules of `TimeFormat`, slowly and obviously right."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from luckyfast.ingestion.plan import TimeFormat

EPOCH = datetime(1970, 1, 1)
LARGEST = 2**63 - 1
CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d+))?)?"
ISO_CLOCK = r"(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d+))?)?"
OFFSET = r"(?P<offset>Z|[+-]\d{2}:\d{2})?"


def naive_time(text: str, form: TimeFormat) -> int | None:
    """Microseconds since the epoch (an order number for the order kind), or None where the text has another form."""
    if form.kind in ("order", "epoch"):
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) > LARGEST:
            return None
        time = int(text) * form.unit_us if form.unit_us else int(text) // 1000
        return time if abs(time) <= LARGEST else None
    if form.kind == "iso":
        pattern = rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})(?:[T ]{ISO_CLOCK}{OFFSET})?"
    elif form.kind == "ymd":
        pattern = rf"(?P<year>\d{{4}})(?P<month>\d{{2}})(?P<day>\d{{2}})(?: {CLOCK})?"
    else:
        first, second = ("day", "month") if form.kind == "dmy" else ("month", "day")
        separator = re.escape(chr(form.date_separator or 0))
        date = rf"(?P<{first}>\d{{1,2}}){separator}(?P<{second}>\d{{1,2}}){separator}(?P<year>\d{{4}})"
        pattern = rf"{date}(?: {CLOCK})?"
    match = re.fullmatch(pattern, text, re.ASCII)
    if match is None:
        return None
    part = {name: value or "0" for name, value in match.groupdict().items()}
    try:
        moment = datetime(
            int(part["year"]),
            int(part["month"]),
            int(part["day"]),
            int(part["hour"]),
            int(part["minute"]),
            int(part["second"]),
            int(part["fraction"][:6].ljust(6, "0")),
        )
    except ValueError:
        return None
    offset = match.groupdict().get("offset")
    if offset and offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            return None
        shift = timedelta(hours=hours, minutes=minutes)
        moment = moment - shift if offset[0] == "+" else moment + shift
    return (moment - EPOCH) // timedelta(microseconds=1)
