"""Which one form the times of a log have, decided over all rows of a sample and never row by row."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Literal

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import TimeFormat

__all__ = ["AmbiguousTimeError", "check_time_format", "describe_time_format", "find_time_format", "is_time_of_day"]

MIN_SHARE = 0.8
"""At least this share of the sampled times must have the form; the rest will be rejected one by one."""

_ZONE = r"(?: ?(?:Z|z|UTC|GMT|[A-Z]{3,4})| ?(?:GMT|UTC)?[+-]\d{2}(?::?\d{2})?)?(?: ?[\[(].+[\])])?"
_CLOCK = rf"\d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?{_ZONE}"
_TAIL = rf"(?P<gap>[T ])?(?P<clock>{_CLOCK}|\d{{1,6}}{_ZONE}|\d{{1,2}}(?: \d{{1,2}}){{1,2}})"
_ISO = re.compile(rf"(\d{{4}})-(\d{{2}})-(\d{{2}})(?:(?=[T ]){_TAIL})?", re.ASCII)
_COMPACT = re.compile(rf"(\d{{5,8}})(?:(?=[T ]){_TAIL})?", re.ASCII)
_LONG = re.compile(rf"(\d{{8}})(?P<clock>\d{{4}}|\d{{6}}){_ZONE}", re.ASCII)
_SEPARATED = re.compile(rf"(\d{{1,4}})([/.\- ])(\d{{1,2}})\2(\d{{1,4}})(?:(?=[T ]){_TAIL})?", re.ASCII)
_NAMED = re.compile(r"(?=.*\d)(?=.*[^\W\d_]{3})[\w\s,./:+()\-]{8,60}")
_MONTH_WORDS = (
    "jan janv january janvier feb fev fevr february fevrier mar march mars apr avr april avril may mai jun juin june "
    "jul juil juillet july aug aou aout august sep sept september septembre oct october octobre nov november novembre "
    "dec december decembre"
)
_MONTHS = frozenset(_MONTH_WORDS.split())
_NUMBER = re.compile(r"(-?\d{1,19})(?:[.,]\d+)?", re.ASCII)
_ORDER = re.compile(r"-?\d{1,19}(?:[.,]0+)?", re.ASCII)
_GAP = re.compile(r"\d{1,7}(?:[.,]0+)?(?: +\d{1,4}(?:[.,]0+)?)?", re.ASCII)
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?", re.ASCII)
# seconds of 1980 to 2100; the other units are multiples
_EPOCH_RANGE_S = (315_532_800, 4_102_444_800)
_EPOCH_UNITS_US = {"epoch-s": 1_000_000, "epoch-ms": 1000, "epoch-us": 1, "epoch-ns": 0}
_FORMATS = ("iso", "ymd", "dmy", "mdy", "named", "order", "gaps", *_EPOCH_UNITS_US)
_Order = Literal["ymd", "dmy", "mdy"]
_ORDERS: tuple[_Order, ...] = ("ymd", "dmy", "mdy")
_SAID = {"ymd": "year first", "dmy": "day first", "mdy": "month first"}


class AmbiguousTimeError(SchemaError):
    """Days, months or years cannot be told apart in the whole sample."""


def find_time_format(values: Sequence[str]) -> TimeFormat | None:
    """Find the form that the times of a sample have.

    Args:
        values: the non-empty times of all sampled rows, several columns already joined by a space.

    Returns:
        The form of at least 80 % of the values, or None. Order numbers are never guessed.

    Raises:
        AmbiguousTimeError: more than one order of day, month and year fits all rows, or each is proved by some rows.

    Example:
        >>> find_time_format(["31/01/2017 10:00", "01/02/2017 11:30"])
        TimeFormat(kind='dmy', unit_us=1, date_separator=47, has_clock=True, year_digits=4, clock_digits=0)
    """
    values = [value.strip() for value in values]
    if not values:
        return None
    enough = MIN_SHARE * len(values)
    iso = [m for m in _match(_ISO, values) if _is_date(m[1], m[2], m[3])]
    if len(iso) >= enough:
        return _with_clock(TimeFormat("iso"), iso)
    for matches, cut in _dated(values, enough):
        if found := _decide_order(matches, cut, enough):
            return found
    if len(named := _named(values)) >= enough:
        return TimeFormat(
            "named", has_clock=sum(bool(re.search(r"\d[:h]\d\d|\d\.\d\d\.\d\d", text)) for text in named) > 0
        )
    return _find_epoch(values, enough)


def check_time_format(name: str, values: Sequence[str]) -> TimeFormat:
    """Read `--time-format` and check it against a sample.

    Args:
        name: iso, ymd, dmy, mdy, named, order, gaps, epoch-s, epoch-ms, epoch-us, epoch-ns; `epoch` alone finds the
            unit.
        values: the non-empty times of all sampled rows; of gaps a number, and behind a blank its days if it has any.

    Returns:
        The form; separator, digits of the year and time of day are taken from the sample.

    Raises:
        SchemaError: no such form, or fewer than 80 % of the values have it.

    Example:
        >>> check_time_format("mdy", ["1/2/2017", "1/3/2017"]).date_separator
        47
    """
    name = name.lower()
    if name not in (*_FORMATS, "epoch"):
        raise SchemaError(f"no such time format: {name}", hint=f"--time-format is one of {', '.join(_FORMATS)}")
    values = [value.strip() for value in values]
    enough = max(MIN_SHARE * len(values), 1)
    form: TimeFormat | None = None
    if name in _ORDERS:
        for matches, cut in _dated(values, enough):
            form = form or _decide_order(matches, cut, enough, orders=[order for order in _ORDERS if order == name])
    elif name in ("iso", "named"):
        form = find_time_format(values)
        form = form if form and form.kind == name else None
    elif name == "epoch":
        form = _find_epoch(values, enough)
    elif name == "order":
        form = TimeFormat("order") if len(_match(_ORDER, values)) >= enough else None
    elif name == "gaps":
        form = TimeFormat("gaps") if len(_match(_GAP, values)) >= enough else None
    elif len(_match(_NUMBER, values)) >= enough:
        form = TimeFormat("epoch", _EPOCH_UNITS_US[name], has_clock=True)
    if form is None:
        shown = ", ".join(repr(value) for value in values[:3])
        raise SchemaError(
            f"the times do not have the format {name}: {shown}",
            hint="leave --time-format out to have it found, or name another time column with --time",
        )
    return form


def is_time_of_day(value: str) -> bool:
    """Whether a value is a time of day without a date, such as 10:37 or 10:37:21."""
    match = _TIME_OF_DAY.fullmatch(value.strip())
    return match is not None and int(match[1]) < 24 and int(match[2]) < 60 and int(match[3] or 0) < 60


def describe_time_format(form: TimeFormat) -> str:
    """Say a form in words.

    Example:
        >>> describe_time_format(TimeFormat("ymd", year_digits=2)), describe_time_format(TimeFormat("epoch", 1000))
        ('YYMMDD', 'milliseconds since 1970')
    """
    if form.kind == "epoch":
        return {1_000_000: "seconds", 1000: "milliseconds", 1: "microseconds", 0: "nanoseconds"}[form.unit_us] + (
            " since 1970"
        )
    if form.kind == "order":
        return "numbers that only order the visits"
    if form.kind == "gaps":
        return "numbers in order and the days between them, added up from 1970-01-01 on"
    if form.kind == "named":
        text = "day, month in letters, year"
    elif form.kind == "iso":
        text = "YYYY-MM-DD"
    elif form.date_separator is None:
        text = "".join({"y": "Y" * form.year_digits, "m": "MM", "d": "DD"}[part] for part in form.kind)
    else:
        text = chr(form.date_separator).join({"y": "year", "m": "month", "d": "day"}[part] for part in form.kind)
    if form.clock_digits:
        return f"{text} with {({2: 'hours', 4: 'HHMM', 6: 'HHMMSS'})[form.clock_digits]}"
    return f"{text} with a time of day" if form.has_clock else text


def _match(pattern: re.Pattern[str], values: Sequence[str]) -> list[re.Match[str]]:
    """The matches of the values; none if hardly any of a few spread values match, so that most columns cost little."""
    few = values[:: len(values) // 100 + 1]
    if sum(pattern.fullmatch(value) is not None for value in few) < 0.5 * len(few):
        return []
    # PERF: the rows of a visit have the same time
    matches = {value: pattern.fullmatch(value) for value in set(values)}
    return [match for value in values if (match := matches[value])]


_Parts = tuple[str, str, str]


def _dated(
    values: Sequence[str], enough: float
) -> Iterable[tuple[list[re.Match[str]], Callable[[re.Match[str], str], list[_Parts]]]]:
    """Values that may be dates in digits, each with how to cut it into year, month and day for an order."""
    if len(long := _match(_LONG, values)) >= enough:
        yield long, _cut_compact
    if len(compact := _match(_COMPACT, values)) >= enough:
        yield compact, _cut_compact
    if len(separated := _match(_SEPARATED, values)) >= enough:
        yield separated, _cut_separated


def _cut_compact(match: re.Match[str], order: str) -> list[_Parts]:
    text = match[1]
    if order == "ymd":
        return [(text[:-4], text[-4:-2], text[-2:])] if len(text) == 8 else [_pad(text, 6, order)]
    if len(text) in (7, 8):
        return [_pad(text, 8, order)]
    return [_pad(text, 6, order)] if len(text) in (5, 6) else []


def _pad(text: str, size: int, order: str) -> _Parts:
    text = text.rjust(size, "0")
    if order == "ymd":
        return text[:-4], text[-4:-2], text[-2:]
    return (text[4:], text[2:4], text[:2]) if order == "dmy" else (text[4:], text[:2], text[2:4])


def _cut_separated(match: re.Match[str], order: str) -> list[_Parts]:
    first, second, third = match[1], match[3], match[4]
    year, others = (first, (second, third)) if order == "ymd" else (third, (first, second))
    if len(year) not in (2, 4) or any(len(other) > 2 for other in others):
        return []
    if order == "mdy":
        return [(year, first, second)]
    return [(year, second, third if order == "ymd" else first)]


def _decide_order(
    matches: Sequence[re.Match[str]],
    cut: Callable[[re.Match[str], str], list[_Parts]],
    enough: float,
    *,
    orders: Sequence[_Order] = _ORDERS,
) -> TimeFormat | None:
    """The order of year, month and day that the whole sample proves."""
    fitting: dict[_Order, dict[int, _Parts]] = {}
    for order in orders:
        fitting[order] = {
            i: parts for i, match in enumerate(matches) for parts in cut(match, order) if _is_date(*parts)
        }
    covered: set[int] = set().union(*fitting.values())
    if len(covered) < enough:
        return None
    ranked = sorted(orders, key=lambda order: -len(fitting[order]))
    best = ranked[0]
    rivals = [order for order in ranked[1:] if not _outdoes(fitting, best, order)]
    if not rivals and len(fitting[best]) >= enough:
        return _describe(best, [matches[i] for i in fitting[best]], list(fitting[best].values()))
    if all(len(fitting[order]) >= enough for order in (best, *rivals)) and (
        found := _by_variety(fitting, [best, *rivals])
    ):
        return _describe(found, [matches[i] for i in fitting[found]], list(fitting[found].values()))
    shown = ", ".join(repr(match[0]) for match in matches[:3])
    both = [best, *rivals]
    if "ymd" in both:
        what = "year, month and day cannot be told apart"
        why = "more than one order gives dates"
    else:
        what = "day and month cannot be told apart"
        n_only = [len(fitting[order].keys() - fitting[other].keys()) for order, other in (both, both[::-1])]
        why = f"the number {'never passes 12 in either place' if n_only == [0, 0] else 'passes 12 in both places'}"
    flags = " or ".join(f"--time-format {order} ({_SAID[order]})" for order in sorted(both))
    raise AmbiguousTimeError(f"{what}: in the sample ({shown}) {why}", hint=f"add {flags}")


def _outdoes(fitting: dict[_Order, dict[int, _Parts]], best: _Order, other: _Order) -> bool:
    """One wrong row among many is dirt; many rows of both kinds are two formats in one log."""
    n_own = len(fitting[best].keys() - fitting[other].keys())
    n_other = len(fitting[other].keys() - fitting[best].keys())
    return n_own > 20 * n_other


def _by_variety(fitting: dict[_Order, dict[int, _Parts]], orders: Sequence[_Order]) -> _Order | None:
    """The one order in which the days vary far more than the years: it tells where a year of two digits stands.

    It does not tell day from month: the first twelve days of a few months look like the first days of every month.
    """
    found = []
    for order in orders:
        n_years = len({year for year, _, _ in fitting[order].values()})
        n_days = len({day for _, _, day in fitting[order].values()})
        if n_days >= 10 and n_days > 2 * n_years:
            found.append(order)
    if len(found) != 1 or (found[0] != "ymd" and {"dmy", "mdy"} <= set(orders)):
        return None
    return found[0]


def _describe(order: _Order, matches: Sequence[re.Match[str]], parts: Sequence[_Parts]) -> TimeFormat:
    separator = Counter(m[2] for m in matches).most_common(1)[0][0] if matches[0].re is _SEPARATED else None
    digits = Counter(len(year) for year, _, _ in parts).most_common(1)[0][0]
    form = TimeFormat(order, date_separator=ord(separator) if separator else None, year_digits=digits)
    return _with_clock(form, matches)


def _with_clock(form: TimeFormat, matches: Sequence[re.Match[str]]) -> TimeFormat:
    """The form with the time of day that its matches have."""
    clocks = [clock for match in matches if (clock := match["clock"])]
    if not clocks:
        return form
    digits = 0
    starts = {clock: re.match(r"\d+(?![:\d])", clock) for clock in set(clocks)}
    bare = [match[0] for clock in clocks if (match := starts[clock])]
    if len(bare) > 0.5 * len(clocks):
        longest = max(map(len, bare))
        spaced = sum(" " in clock.strip() for clock in clocks) > 0.5 * len(clocks)
        digits = 2 if longest <= 2 and (spaced or _all_hours(bare)) else 4 if longest <= 4 else 6
    return TimeFormat(form.kind, form.unit_us, form.date_separator, True, form.year_digits, digits)


def _all_hours(texts: Sequence[str]) -> bool:
    return all(int(text) < 24 for text in texts)


def _named(values: Sequence[str]) -> list[str]:
    texts = [match[0] for match in _match(_NAMED, values)]
    return [text for text in texts if len(re.findall(r"\d+", text)) >= 2 and not _MONTHS.isdisjoint(_words(text))]


def _words(text: str) -> list[str]:
    """Its words in small letters without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.findall(r"[a-z]+", plain)


def _find_epoch(values: Sequence[str], enough: float) -> TimeFormat | None:
    numbers = [int(match[1]) for match in _match(_NUMBER, values)]
    for per_second, unit_us in ((1, 1_000_000), (10**3, 1000), (10**6, 1), (10**9, 0)):
        low, high = (bound * per_second for bound in _EPOCH_RANGE_S)
        if sum(low <= number < high for number in numbers) >= enough:
            return TimeFormat("epoch", unit_us, has_clock=True)
    return None


@lru_cache(4096)
def _is_date(year: str, month: str, day: str) -> bool:
    number = int(year)
    if len(year) == 2:
        number += 1900 if number >= 69 else 2000
    try:
        return 1900 <= date(number, int(month), int(day)).year <= 2200
    except ValueError:
        return False
