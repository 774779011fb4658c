"""Read the moments that people write: ISO 8601 text, datetimes, or order numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from numbers import Integral

from luckyfast.errors import InputError

__all__ = ["DAY_US", "Moment", "format_moment", "parse_moment"]

Moment = datetime | str | int
DAY_US = 86_400_000_000
"""Microseconds of a day."""
_EPOCH = datetime(1970, 1, 1)
_MOST = 2**62
"""Differences of two moments are 64 bits wide."""


def parse_moment(moment: Moment, time_kind: str) -> int:
    """Turn a moment into the time unit of a dataset.

    Args:
        moment: a datetime or ISO 8601 text (with an offset it is turned into UTC; without one it is taken as the log
            has it), or a whole number in the dataset's unit (µs since the epoch, or an order number).
        time_kind: ``clock`` or ``order``.

    Returns:
        µs since the epoch, or an order number.

    Raises:
        InputError: it is no moment of that kind.

    Example:
        >>> parse_moment("1970-01-02", "clock"), parse_moment("1970-01-02T01:00+01:00", "clock")
        (86400000000, 86400000000)
    """
    if isinstance(moment, int | Integral):
        return _checked(int(moment))
    if time_kind == "order":
        try:
            number = int(str(moment))
        except ValueError as error:
            raise InputError(
                f"not an order number: {moment!r}", hint="this log has no clock: give a whole number"
            ) from error
        return _checked(number)
    try:
        read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        plain = read.astimezone(UTC).replace(tzinfo=None) if read.tzinfo else read
        return (plain - _EPOCH) // timedelta(microseconds=1)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"not a moment: {moment!r}", hint="write it like 2017-12-01 or 2017-12-01T18:30") from error


def _checked(number: int) -> int:
    if abs(number) > _MOST:
        raise InputError(f"not a moment: {number}", hint=f"it must lie within {_MOST} of 0")
    return number


def format_moment(moment: int, time_kind: str, *, timespec: str = "seconds") -> str:
    """Write a moment as people read it.

    Example:
        >>> format_moment(86400000000, "clock"), format_moment(7, "order")
        ('1970-01-02T00:00:00', '7')
    """
    if time_kind == "order":
        return str(moment)
    try:
        return (_EPOCH + timedelta(microseconds=moment)).isoformat(timespec=timespec)
    except OverflowError:
        return f"{moment} µs"
