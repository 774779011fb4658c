"""Which one form the times of a log have, decided over all rows of a sample and never row by row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import TimeFormat

__all__ = ["AmbiguousTimeError", "check_time_format", "describe_time_format", "find_time_format", "is_time_of_day"]

MIN_SHARE = 0.8
"""At least this share of the sampled times must have the form; the rest will be rejected one by one."""

_CLOCK = r"(?: (\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?)?"
_ISO = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?(?:Z|[+-]\d{2}:\d{2})?)?", re.ASCII
)
_YMD = re.compile(rf"(\d{{4}})(\d{{2}})(\d{{2}}){_CLOCK}", re.ASCII)
_SLASHED = re.compile(rf"(\d{{1,2}})([/.\-])(\d{{1,2}})\2(\d{{4}}){_CLOCK}", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?", re.ASCII)
# seconds of 1980 to 2100; the other units are multiples
_EPOCH_RANGE_S = (315_532_800, 4_102_444_800)
_EPOCH_UNITS_US = {"epoch-s": 1_000_000, "epoch-ms": 1000, "epoch-us": 1, "epoch-ns": 0}
_FORMATS = ("iso", "ymd", "dmy", "mdy", "order", *_EPOCH_UNITS_US)


class AmbiguousTimeError(SchemaError):
    """Days and months cannot be told apart in the whole sample."""


def find_time_format(values: Sequence[str]) -> TimeFormat | None:
    """Find the form that the times of a sample have.

    Args:
        values: the non-empty times of all sampled rows, several columns already joined by a space.

    Returns:
        The form of at least 80 % of the values, or None. Order numbers are never guessed.

    Raises:
        AmbiguousTimeError: D/M/Y and M/D/Y both fit all rows, or each is proved by some rows.

    Example:
        >>> find_time_format(["31/01/2017 10:00", "01/02/2017 11:30"])
        TimeFormat(kind='dmy', unit_us=1, date_separator=47, has_clock=True)
    """
    if not values:
        return None
    enough = MIN_SHARE * len(values)
    iso = _match_dates(_ISO, values)
    if len(iso) >= enough:
        return TimeFormat("iso", has_clock=any(match[4] for match in iso))
    ymd = _match_dates(_YMD, values)
    if len(ymd) >= enough:
        return TimeFormat("ymd", has_clock=any(match[4] for match in ymd))
    slashed = _match(_SLASHED, values)
    if len(slashed) >= enough:
        return _decide_day_month(slashed)
    return _find_epoch(values, enough)


def check_time_format(name: str, values: Sequence[str]) -> TimeFormat:
    """Read `--time-format` and check it against a sample.

    Args:
        name: iso, ymd, dmy, mdy, order, epoch-s, epoch-ms, epoch-us, epoch-ns; `epoch` alone finds the unit.
        values: the non-empty times of all sampled rows.

    Returns:
        The form, with the separator and the presence of a clock taken from the sample.

    Raises:
        SchemaError: no such form, or fewer than 80 % of the values have it.

    Example:
        >>> check_time_format("mdy", ["1/2/2017", "1/3/2017"])
        TimeFormat(kind='mdy', unit_us=1, date_separator=47, has_clock=False)
    """
    name = name.lower()
    if name not in (*_FORMATS, "epoch"):
        raise SchemaError(f"no such time format: {name}", hint=f"--time-format is one of {', '.join(_FORMATS)}")
    enough = MIN_SHARE * len(values)
    if name in ("dmy", "mdy"):
        slashed = _match(_SLASHED, values)
        fitting = [match for match in slashed if _is_slashed_date(match, name)]
        form = _slashed_format("dmy" if name == "dmy" else "mdy", fitting) if fitting else None
        n_fitting = len(fitting)
    elif name == "epoch" or name == "iso" or name == "ymd":
        form = _find_epoch(values, enough) if name == "epoch" else find_time_format(values)
        form = form if form and form.kind == name else None
        n_fitting = len(values) if form else 0
    else:
        n_fitting = sum(_INTEGER.fullmatch(value) is not None for value in values)
        form = TimeFormat("order") if name == "order" else TimeFormat("epoch", _EPOCH_UNITS_US[name], has_clock=True)
    if form is None or n_fitting < enough or not values:
        shown = ", ".join(repr(value) for value in values[:3])
        raise SchemaError(
            f"the times do not have the format {name}: {shown}",
            hint="leave --time-format out to have it found, or name another time column with --time",
        )
    return form


def is_time_of_day(value: str) -> bool:
    """Whether a value is a time of day without a date, such as 10:37 or 10:37:21."""
    match = _TIME_OF_DAY.fullmatch(value)
    return match is not None and _is_clock(match[1], match[2], match[3])


def describe_time_format(form: TimeFormat) -> str:
    """Say a form in words."""
    separator = chr(form.date_separator) if form.date_separator else "/"
    text = {
        "iso": "YYYY-MM-DD",
        "ymd": "YYYYMMDD",
        "dmy": separator.join(("day", "month", "year")),
        "mdy": separator.join(("month", "day", "year")),
        "order": "numbers that only order the visits",
        "epoch": {1_000_000: "seconds", 1000: "milliseconds", 1: "microseconds", 0: "nanoseconds"}.get(form.unit_us, "")
        + " since 1970",
    }[form.kind]
    return f"{text} with a time of day" if form.has_clock and form.kind != "epoch" else text


def _match(pattern: re.Pattern[str], values: Sequence[str]) -> list[re.Match[str]]:
    """The matches of the values; none if hardly any of a few spread values match, so that most columns cost little."""
    few = values[:: len(values) // 100 + 1]
    if sum(pattern.fullmatch(value) is not None for value in few) < 0.5 * len(few):
        return []
    return [match for value in values if (match := pattern.fullmatch(value))]


def _match_dates(pattern: re.Pattern[str], values: Sequence[str]) -> list[re.Match[str]]:
    return [match for match in _match(pattern, values) if _is_date(match[1], match[2], match[3])]


def _decide_day_month(slashed: Sequence[re.Match[str]]) -> TimeFormat | None:
    as_dmy = [match for match in slashed if _is_slashed_date(match, "dmy")]
    as_mdy = [match for match in slashed if _is_slashed_date(match, "mdy")]
    n_both = len(set(as_dmy) & set(as_mdy))
    if len(as_dmy) + len(as_mdy) - n_both < MIN_SHARE * len(slashed):
        return None
    shown = ", ".join(repr(match[0]) for match in slashed[:3])
    # one wrong row among many is dirt; many rows of both kinds are two formats in one log
    n_only_dmy, n_only_mdy = len(as_dmy) - n_both, len(as_mdy) - n_both
    if n_only_dmy > 20 * n_only_mdy:
        return _slashed_format("dmy", as_dmy)
    if n_only_mdy > 20 * n_only_dmy:
        return _slashed_format("mdy", as_mdy)
    what = "never passes 12 in either place" if n_only_dmy == n_only_mdy == 0 else "passes 12 in both places"
    raise AmbiguousTimeError(
        f"day and month cannot be told apart: in the sample ({shown}) the number {what}",
        hint="add --time-format dmy (day first) or --time-format mdy (month first)",
    )


def _slashed_format(kind: str, matches: Sequence[re.Match[str]]) -> TimeFormat:
    separator = Counter(match[2] for match in matches).most_common(1)[0][0]
    has_clock = any(match[5] for match in matches)
    return TimeFormat("dmy" if kind == "dmy" else "mdy", date_separator=ord(separator), has_clock=has_clock)


def _is_slashed_date(match: re.Match[str], kind: str) -> bool:
    day, month = (match[1], match[3]) if kind == "dmy" else (match[3], match[1])
    return _is_date(match[4], month, day)


def _find_epoch(values: Sequence[str], enough: float) -> TimeFormat | None:
    numbers = [int(match[0]) for match in _match(_INTEGER, values)]
    for per_second, unit_us in ((1, 1_000_000), (10**3, 1000), (10**6, 1), (10**9, 0)):
        low, high = (bound * per_second for bound in _EPOCH_RANGE_S)
        if sum(low <= number < high for number in numbers) >= enough:
            return TimeFormat("epoch", unit_us, has_clock=True)
    return None


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        return 1900 <= date(int(year), int(month), int(day)).year <= 2200
    except ValueError:
        return False


def _is_clock(hour: str, minute: str, second: str | None) -> bool:
    return int(hour) < 24 and int(minute) < 60 and int(second or 0) < 60
