"""Naive twin of the time kernels: one text at a time, by the rules of `TimeFormat`, slowly and obviously right."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta

from luckyfast.ingestion.plan import TimeFormat

EPOCH = datetime(1970, 1, 1)
LARGEST = 2**63 - 1
CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?(?P<half> ?[AaPp][Mm])?"
SPACED = r"(?P<hour>\d{1,2})(?: (?P<minute>\d{1,2})(?: (?P<second>\d{1,2}))?)?(?P<half> ?[AaPp][Mm])?"
MONTHS = (
    "jan janv january janvier/feb fev fevr february fevrier/mar march mars/apr avr april avril/may mai/jun juin june/"
    "jul juil juillet july/aug aou aout august/sep sept september septembre/oct october octobre/"
    "nov november novembre/dec december decembre"
)
MONTH_OF = {word: month for month, words in enumerate(MONTHS.split("/"), 1) for word in words.split()}
FILLERS = (
    "mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday sunday lun mer jeu "
    "ven sam dim lundi mardi mercredi jeudi vendredi samedi dimanche le a at on of de the"
)
DAYS = FILLERS.split()
ZONES = {"z": 0, "utc": 0, "gmt": 0, "ut": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6}
ZONES |= {"pst": -8, "pdt": -7, "wet": 0, "west": 1, "cet": 1, "cest": 2, "eet": 2, "eest": 3}


def naive_time(text: str, form: TimeFormat) -> int | None:
    """Microseconds since the epoch (an order number for the order kind), or None where the text has another form."""
    text = text.strip(" ")
    if form.kind in ("order", "epoch"):
        return naive_number(text, form)
    if form.kind == "gaps":
        return naive_gap(text)
    if form.kind == "named":
        return naive_named(text)
    for pattern in date_patterns(form):
        match = re.match(pattern, text, re.ASCII)
        if match is not None:
            part = {name: value or "0" for name, value in match.groupdict().items()}
            year = int(part["year"])
            if form.kind != "iso" and form.year_digits == 2:
                year += 1900 if year >= 69 else 2000
            return moment_us(year, int(part["month"]), int(part["day"]), text[match.end() :], form)
    return None


def naive_gap(text: str) -> int | None:
    """The number of a visit with the days since the one before, as one number that is less than a day of µs."""
    number, _, days = text.partition(" ")
    parsed = [naive_number(part.strip(" "), TimeFormat("order")) for part in (number, days or "0")]
    if None in parsed or not 0 <= parsed[0] < 2**23 or not 0 <= parsed[1] < 2**13:  # type: ignore[operator]
        return None
    return parsed[0] * 2**13 + 2**13 - 1 - parsed[1]  # type: ignore[operator]


def naive_number(text: str, form: TimeFormat) -> int | None:
    match = re.fullmatch(r"(-?[0-9]{1,19})(?:[.,]([0-9]+))?", text)
    if match is None or abs(int(match[1])) > LARGEST:
        return None
    whole, fraction = int(match[1]), int((match[2] or "")[:6].ljust(6, "0"))
    if form.kind == "order":
        return whole if fraction == 0 else None
    if form.unit_us == 0:
        return whole // 1000
    part = fraction * form.unit_us // 10**6
    time = whole * form.unit_us + (-part if text[0] == "-" else part)
    return time if abs(time) <= LARGEST else None


def date_patterns(form: TimeFormat) -> list[str]:
    year = rf"(?P<year>\d{{{form.year_digits}}})"
    if form.kind == "iso":
        return [r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?=[T ]|$)"]
    if form.date_separator is not None:
        mark = re.escape(chr(form.date_separator))
        piece = {"y": rf"{year}(?!\d)", "m": r"(?P<month>\d{1,2})", "d": r"(?P<day>\d{1,2})"}
        return [mark.join(piece[part] for part in form.kind)]
    # digits alone; as integers they may have lost a zero
    end = rf"(?=[T ]|$|\d{{{form.clock_digits}}}(?!\d))" if form.clock_digits else r"(?=[T ]|$)"
    piece = {"y": year, "m": r"(?P<month>\d\d)", "d": r"(?P<day>\d\d)"}
    shapes = ["".join(piece[part] for part in form.kind) + end]
    short = r"(?=[T ]|$)"
    if form.kind == "ymd" and form.year_digits == 2:
        shapes.append(rf"(?P<year>\d)(?P<month>\d\d)(?P<day>\d\d){short}")
    elif form.kind != "ymd":
        first, second = ("day", "month") if form.kind == "dmy" else ("month", "day")
        shapes.append(rf"(?P<{first}>\d)(?P<{second}>\d\d){year}{short}")
    return shapes


def moment_us(year: int, month: int, day: int, rest: str, form: TimeFormat) -> int | None:
    """The moment of a date and what follows it."""
    clock = timedelta()
    if rest:
        if rest[0] in "T ":
            digits = rf"\d{{1,{form.clock_digits}}}(?!\d)"
            rest = rest[1:]
        elif form.kind in ("ymd", "dmy", "mdy") and form.date_separator is None and form.clock_digits:
            digits = rf"\d{{{form.clock_digits}}}(?!\d)"
        else:
            return None
        shape = SPACED if form.clock_digits == 2 else f"(?P<digits>{digits})(?P<half> ?[AaPp][Mm])?"
        match = re.match(shape if form.clock_digits else CLOCK, rest, re.ASCII)
        if match is None:
            return None
        part = {name: value or "0" for name, value in match.groupdict().items()}
        if "digits" in part:
            padded = part["digits"].rjust(form.clock_digits, "0")
            part |= {"hour": padded[:2], "minute": padded[2:4], "second": padded[4:] or "0"}
        found = clock_of(part)
        shift = zone_of(rest[match.end() :])
        if found is None or shift is None:
            return None
        clock = found - shift
    try:
        return (datetime(year, month, day) - EPOCH + clock) // timedelta(microseconds=1)
    except ValueError:
        return None


def clock_of(part: dict[str, str]) -> timedelta | None:
    hour, minute, second = int(part["hour"]), int(part["minute"]), int(part.get("second", "0"))
    if hour > 23 or minute > 59 or second > 59:
        return None
    half = part.get("half", "0").strip().lower()
    if half in ("am", "pm"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    micros = int(part.get("fraction", "0")[:6].ljust(6, "0"))
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=micros)


def zone_of(text: str) -> timedelta | None:
    """What follows a time of day, as an offset; None where it is no zone."""
    shift = timedelta()
    while text := text.lstrip(" "):
        if sign := re.match(r"([+-])(\d\d)(?::(\d\d)|(\d\d))?(?=[ \[]|$)", text, re.ASCII):
            hours, minutes = int(sign[2]), int(sign[3] or sign[4] or 0)
            if hours > 23 or minutes > 59 or shift:
                return None
            shift = timedelta(hours=hours, minutes=minutes) * (1 if sign[1] == "+" else -1)
            text = text[sign.end() :]
        elif (text[0], text[-1]) in (("(", ")"), ("[", "]")):
            return shift
        elif (word := re.match(r"[A-Za-z]+", text)) and word[0].lower() in ZONES and not shift:
            shift = timedelta(hours=ZONES[word[0].lower()])
            text = text[word.end() :]
        else:
            return None
    return shift


def fold(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def naive_named(text: str) -> int | None:
    """A date with a month in letters: tokens in any order."""
    day = month = year = clock = None
    sure = False
    shift = timedelta()
    while text:
        if clock is None and re.match(r"\d{1,2}:", text):
            match = re.match(r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?![:])", text)
            if match is None:
                return None
            names = ("hour", "minute", "second", "fraction")
            part = dict(zip(names, (group or "0" for group in match.groups()), strict=True))
            rest = text[match.end() :]
            if year is not None:
                half = re.match(r" ?([AaPp][Mm])", rest)
                part["half"] = half[1] if half else "0"
                tail = zone_of(rest[half.end() :] if half else rest)
                if tail is None:
                    return None
                shift, rest = tail, ""
            clock = clock_of(part)
            if clock is None:
                return None
            text = rest
        elif clock is None and re.match(r"\d{1,2}h", text):
            match = re.match(r"(\d{1,2})h(\d\d)?(?!\d)", text)
            if match is None:
                return None
            rest = text[match.end() :]
            clock = clock_of({"hour": match[1], "minute": match[2] or "0"})
            if clock is None:
                return None
            if year is not None:
                half = re.match(r" ?([AaPp][Mm])", rest)
                clock = clock_of({"hour": match[1], "minute": match[2] or "0", "half": half[1] if half else "0"})
                tail = zone_of(rest[half.end() :] if half else rest)
                if tail is None or clock is None:
                    return None
                shift, rest = tail, ""
            text = rest
        elif year is not None and clock is None and re.match(r"\d\d\.", text):
            match = re.match(r"(\d\d)\.(\d\d)\.(\d\d)(?:\.(\d+))?", text)
            if match is None:
                return None
            part = dict(zip(("hour", "minute", "second", "fraction"), (g or "0" for g in match.groups()), strict=True))
            half = re.match(r" ?([AaPp][Mm])", text[match.end() :])
            clock = clock_of(part)
            if clock is None:
                return None
            clock = clock_of(part | {"half": half[1] if half else "0"})
            tail = zone_of(text[match.end() + (half.end() if half else 0) :])
            if clock is None or tail is None:
                return None
            shift, text = tail, ""
        elif match := re.match(r"\d+", text):
            number, text = match[0], text[match.end() :]
            if len(number) == 4 and year is None:
                year = int(number)
            elif len(number) <= 2 and day is None:
                day = int(number)
                if ordinal := re.match(r"(?:st|nd|rd|th|er|e)(?![A-Za-z])", text, re.IGNORECASE):
                    text = text[ordinal.end() :]
            elif len(number) == 2 and year is None:
                year = int(number) + (1900 if int(number) >= 69 else 2000)
            else:
                return None
        elif clock is not None and (match := re.match(r"([+-])(\d\d)(\d\d)(?!\d)", text)):
            if int(match[2]) > 23 or int(match[3]) > 59:
                return None
            shift += timedelta(hours=int(match[2]), minutes=int(match[3])) * (1 if match[1] == "+" else -1)
            text = text[match.end() :]
        elif text[0] in " ,-./" or (text[0] == ":" and year is not None):
            text = text[1:]
        elif match := re.match(r"[^\W\d_]+", text):
            word, text = fold(match[0]), text[match.end() :]
            if word in MONTH_OF:
                if sure:
                    return None
                month, sure = MONTH_OF[word], word != "mar"
            elif word in ZONES and clock is not None:
                shift += timedelta(hours=ZONES[word])
            elif word not in DAYS:
                return None
        else:
            return None
    if day is None or month is None or year is None:
        return None
    try:
        return (datetime(year, month, day) - EPOCH + (clock or timedelta()) - shift) // timedelta(microseconds=1)
    except ValueError:
        return None
