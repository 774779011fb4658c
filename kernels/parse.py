"""Rows to events: only the needed fields are looked at, each row is accepted or rejected with a reason.

PERF: receipts come in runs, so customer, time and visit are first compared with those of the last accepted row, raw
bytes against raw bytes; only what changed is unquoted, hashed, looked up or parsed. Bytes are read eight at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = [
    "Features",
    "Layout",
    "Names",
    "Rejects",
    "Store",
    "count_lines",
    "hash_names",
    "intern_names",
    "parse_rows",
    "read_numbers",
    "rehash_names",
    "take_rows",
]

# Reasons, in the order in which they are looked for; see `luckyfast.ingestion.rejects`.
UNCLOSED_QUOTE, FIELD_COUNT, MISSING_CUSTOMER, MISSING_TIME, BAD_TIME = 0, 1, 2, 3, 4
MISSING_ACTION, UNMATCHED_LOOKUP, BAD_ENCODING = 5, 6, 7

# Why `parse_rows` stopped.
DONE, STORE_FULL, CUSTOMERS_FULL, ACTIONS_FULL, REJECTS_FULL, SCRATCH_FULL, SAMPLE_FULL = 0, 1, 2, 3, 4, 5, 6
CATEGORIES_FULL = 7

# Places in Layout.numbers.
DELIMITER, QUOTE, N_FIELDS, TIME_KIND, UNIT_US, DATE_SEPARATOR, HAS_LOOKUP = 0, 1, 2, 3, 4, 5, 6
YEAR_DIGITS, CLOCK_DIGITS, SINCE, UNTIL, N_WHERE, N_NUMBERS = 7, 8, 9, 10, 11, 12
ISO, EPOCH, YMD, DMY, MDY, ORDER, NAMED, GAPS = 0, 1, 2, 3, 4, 5, 6, 7

# Places in Store.state.
N_FRAGMENTS, N_ACTIONS, N_EVENTS, MIN_TIME, MAX_TIME, STATUS = 0, 1, 2, 3, 4, 5
N_SAMPLED, SAMPLE_BITS, N_STATE = 6, 7, 8

# Columns of Layout.conditions, and the values of two of them.
RULE, COLUMN, OPERATOR, IS_NUMBER, VALUE, SIZE, N_CONDITION = 0, 1, 2, 3, 4, 5, 6
LESS, LESS_EQUAL, EQUAL, UNEQUAL, GREATER_EQUAL, GREATER = 0, 1, 2, 3, 4, 5

# A number and the days since the one before it are number << GAP_BITS | MOST_DAYS - days: less than a day of µs.
GAP_BITS, MOST_DAYS, MOST_NUMBER = 13, (1 << 13) - 1, (1 << 23) - 1

# Values of Features.values that are none, and the size of the others if they are numbers: millionths, of 18 digits.
NO_VALUE, UNREADABLE = np.int64(-(1 << 63)), np.int64(-(1 << 63) + 1)
DECIMALS, LARGEST = 6, np.uint64(10**18 - 1)
N_ROLES = 4

# Added to the index of a column whose value may be missing.
OPTIONAL = 1 << 40

UNCLOSED = 0x80000000
US = 1_000_000
DAY = 86_400 * US

# What a word of a time may mean: a month (1 to 12), nothing, the ending of an ordinal, or a zone's hours beside ZONE.
FILLER, ORDINAL, UNKNOWN_WORD, ZONE = 20, 21, 30, 100


def _time_words() -> dict[str, int]:
    """The words of times in English and French, small, without accents, cut after eight letters."""
    months = (
        "jan janv january janvier",
        "feb fev fevr february fevrier",
        "mar march mars",
        "apr avr april avril",
        "may mai",
        "jun juin june",
        "jul juil juillet july",
        "aug aou aout august",
        "sep sept september septembre",
        "oct october octobre",
        "nov november novembre",
        "dec december decembre",
    )
    days = "mon tue tues wed thu thur thurs fri sat sun monday tuesday wednesday thursday friday saturday sunday"
    days += " lun mer jeu ven sam dim lundi mardi mercredi jeudi vendredi samedi dimanche"
    words = {word[:8]: month for month, names in enumerate(months, start=1) for word in names.split()}
    words |= {word[:8]: FILLER for word in (*days.split(), "le", "a", "at", "on", "of", "de", "the")}
    words |= dict.fromkeys(("st", "nd", "rd", "th", "er", "e"), ORDINAL)
    # RFC 2822, section 4.3, and the zones of its readers in Europe
    hours = {"z": 0, "utc": 0, "gmt": 0, "ut": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6}
    hours |= {"pst": -8, "pdt": -7, "wet": 0, "west": 1, "cet": 1, "cest": 2, "eet": 2, "eest": 3}
    return words | {name: ZONE + offset for name, offset in hours.items()}


WORD_KEYS = np.array([int.from_bytes(word.encode(), "little") for word in _time_words()], np.uint64)
WORD_VALUES = np.array(list(_time_words().values()), np.int64)
MAR = np.uint64(int.from_bytes(b"mar", "little"))


class Names(NamedTuple):
    """Distinct byte strings with dense ids, compared by their bytes.

    `table` (uint64, a power of two long) holds `tag << 32 | id + 1`; name `i` is `arena[stops[i]:stops[i + 1]]`, and
    the last 8 bytes of `arena` are never used; `state` is [number of names].
    """

    table: Any
    stops: Any
    arena: Any
    state: Any


class Layout(NamedTuple):
    """Where the roles lie in a file's rows, and what means null.

    `columns[starts[r]:starts[r + 1]]` are the columns of role `r` (customer, time, action, visit); null literal `i` is
    `null_bytes[null_stops[i]:null_stops[i + 1]]`, those of role `r` are `null_starts[r]:null_starts[r + 1]`. Column
    `-1 - k` has the same value in all rows, `constants[constant_stops[k]:constant_stops[k + 1]]`. Where a column of
    several may lack its value, OPTIONAL is added.
    `conditions` is int64[n, N_CONDITION], or None without any rule: a row that does not meet one is filtered under its
    RULE. A number is VALUE x 10 ** SIZE; a text is SIZE bytes of `condition_bytes` from VALUE on.
    Feature k has the column `feature_columns[k]` and the null literals of role N_ROLES + k.
    """

    numbers: Any
    columns: Any
    starts: Any
    null_bytes: Any
    null_stops: Any
    null_starts: Any
    null_sizes: Any  # int64 per role, bit n: some literal has n bytes (62: or more)
    constants: Any
    constant_stops: Any
    conditions: Any
    condition_bytes: Any
    feature_columns: Any


class Features(NamedTuple):
    """Columns whose values are kept beside each event.

    `is_number` is int64 per feature, `looked_up` its place among the columns of `key_values`, or -1. `values` (int64)
    has one entry per feature for each of `Store.actions`: millionths, or a local id of `categories` (a `Names`, one for
    all features), or NO_VALUE or UNREADABLE. Key i of the lookup table `keys` (a `Names`) has the values
    `key_values[i]` (int64[n, n_looked_up]).
    """

    is_number: Any
    looked_up: Any
    values: Any
    categories: Any
    keys: Any
    key_values: Any


class Store(NamedTuple):
    """Accepted rows as fragments: consecutive rows of one customer, one visit key and one day.

    Of the visits whose key begins with SAMPLE_BITS zero bits, each row's visit key and hash are kept in
    `sample_keys` and `sample_rows`, from which the share of rows that come twice is told.
    """

    customer: Any  # uint32, local id
    n_actions: Any  # uint32
    time: Any  # int64, the smallest of its rows
    key: Any  # uint64
    actions: Any  # uint32, local ids of all fragments in order
    rows: Any  # uint64, hashes of the raw rows beside `actions`; no places where they are not wanted
    action_counts: Any  # int64 per local action id
    hashes: Any  # uint64 per local customer id
    sample_keys: Any  # uint64
    sample_rows: Any  # uint64
    state: Any  # int64[N_STATE]


class Rejects(NamedTuple):
    """Rejected rows: number and place in the block (int64), reason (uint8); `state` is [rejects, empty lines].

    `filtered` (int64) counts the rows that each rule of the run has left out.
    """

    row: Any
    start: Any
    stop: Any
    reason: Any
    state: Any
    filtered: Any


# PERF: helpers take the addresses of arrays, not arrays: Numba counts references around each call that is given an
# array, which cost half of the parser's time. Addresses are only taken of arguments of the kernel, which outlive it.
@intrinsic
def address(typing_context: Any, array: Any) -> Any:
    """Where an array's data lie."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), generate


def _loader(n_bits: int, result: Any) -> Any:
    """Unaligned little-endian loads from a base address and an offset in bytes."""

    @intrinsic
    def load(typing_context: Any, base: Any, offset: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(n_bits)
            place = builder.add(arguments[0], arguments[1])
            value = builder.load(builder.inttoptr(place, word.as_pointer()), align=1)
            return value if n_bits == 64 else builder.zext(value, ir.IntType(64))

        return result(types.int64, types.int64), generate

    return load


@intrinsic
def put(typing_context: Any, base: Any, offset: Any, byte: Any) -> Any:
    """Store one byte."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(builder.add(arguments[0], arguments[1]), ir.IntType(8).as_pointer())
        builder.store(builder.trunc(arguments[2], ir.IntType(8)), place)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64), generate


byte_at = _loader(8, types.int64)
load_i64 = _loader(64, types.int64)
load_u32 = _loader(32, types.uint64)
load_u64 = _loader(64, types.uint64)


# PERF: most fields have up to 32 bytes. Four overlapping loads cover 8 to 32 of them and one masked load fewer than 8,
# without a loop whose number of steps no branch predictor can guess. 8 readable bytes must follow whatever is compared.
@njit(cache=True, nogil=True)
def low_bytes(data, at, size):  # type: ignore[no-untyped-def]
    """The first bytes, fewer than 8, as one integer."""
    return load_u64(data, at) & ((np.uint64(1) << np.uint64(8 * size)) - np.uint64(1))


@njit(cache=True, nogil=True)
def is_equal_long(a, i, b, j, size):  # type: ignore[no-untyped-def]
    """Whether two stretches of more than 8 bytes are equal."""
    at = 0
    while at + 8 < size:
        if load_u64(a, i + at) != load_u64(b, j + at):
            return False
        at += 8
    return load_u64(a, i + size - 8) == load_u64(b, j + size - 8)


@njit(cache=True, nogil=True)
def is_equal(a, i, b, j, size):  # type: ignore[no-untyped-def]
    """Whether two stretches of bytes are equal."""
    if size < 8:
        return low_bytes(a, i, size) == low_bytes(b, j, size)
    if size > 32:
        return is_equal_long(a, i, b, j, size)
    second, third = min(np.int64(8), size - 8), max(np.int64(0), size - 16)
    return (
        (load_u64(a, i) ^ load_u64(b, j))
        | (load_u64(a, i + second) ^ load_u64(b, j + second))
        | (load_u64(a, i + third) ^ load_u64(b, j + third))
        | (load_u64(a, i + size - 8) ^ load_u64(b, j + size - 8))
    ) == np.uint64(0)


@njit(cache=True, nogil=True)
def hash_long(data, start, size):  # type: ignore[no-untyped-def]
    """What `table_hash` mixes of more than 32 bytes."""
    x = np.uint64(0)
    at = 0
    while at + 8 < size:
        x = (x ^ load_u64(data, start + at)) * np.uint64(0x9FB21C651E98DF25)
        x ^= x >> np.uint64(32)
        at += 8
    return x ^ load_u64(data, start + size - 8)


@njit(cache=True, nogil=True)
def table_hash(data, start, size):  # type: ignore[no-untyped-def]
    """A hash for tables in memory only, which compare bytes: fast before fair."""
    if size < 8:
        x = low_bytes(data, start, size)
    elif size > 32:
        x = hash_long(data, start, size)
    else:
        second, third = min(np.int64(8), size - 8), max(np.int64(0), size - 16)
        x = load_u64(data, start) + load_u64(data, start + second) * np.uint64(0x9FB21C651E98DF25)
        x ^= load_u64(data, start + third) * np.uint64(0xC2B2AE3D27D4EB4F)
        x += load_u64(data, start + size - 8) * np.uint64(0x165667B19E3779F9)
    x = (x ^ np.uint64(size)) * np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(32))


@njit(cache=True, nogil=True)
def finalise(x):  # type: ignore[no-untyped-def]
    """splitmix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def name_hash(data, start, size):  # type: ignore[no-untyped-def]
    """FNV-1a and splitmix64's finaliser: the order of customers and the visit keys of a dataset are defined by it."""
    x = np.uint64(0xCBF29CE484222325)
    for at in range(size):
        x = (x ^ np.uint64(byte_at(data, start + at))) * np.uint64(0x100000001B3)
    return finalise(x)


@njit(cache=True, nogil=True)
def hash_names(data, starts, hashes):  # type: ignore[no-untyped-def]
    """`name_hash` of each name `data[starts[i]:starts[i + 1]]`."""
    at = address(data)
    for i in range(len(hashes)):
        hashes[i] = name_hash(at, starts[i], starts[i + 1] - starts[i])


@njit(cache=True, nogil=True)
def time_hash(time):  # type: ignore[no-untyped-def]
    """`name_hash` of a time as eight little-endian bytes."""
    x = np.uint64(0xCBF29CE484222325)
    word = np.uint64(time)
    for shift in range(8):
        x = (x ^ ((word >> np.uint64(8 * shift)) & np.uint64(0xFF))) * np.uint64(0x100000001B3)
    return finalise(x)


@njit(cache=True, nogil=True)
def open_names(names):  # type: ignore[no-untyped-def]
    """The addresses and sizes of a `Names`: table, its mask, stops, their number, arena, its bytes, state."""
    return (
        address(names.table),
        len(names.table) - 1,
        address(names.stops),
        len(names.stops),
        address(names.arena),
        len(names.arena) - 8,
        address(names.state),
    )


@njit(cache=True, nogil=True)
def find_name(data, start, size, hash_, names):  # type: ignore[no-untyped-def]
    """The id of a name, or -1; `names` from `open_names`."""
    table, mask, stops, _, arena, _, _ = names
    slot = np.int64(hash_ & np.uint64(mask))
    tag = hash_ >> np.uint64(32)
    while True:
        entry = load_u64(table, 8 * slot)
        if entry == np.uint64(0):
            return -1
        if entry >> np.uint64(32) == tag:
            found = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            at = load_i64(stops, 8 * found)
            if load_i64(stops, 8 * found + 8) - at == size and is_equal(data, start, arena, at, size):
                return found
        slot = (slot + 1) & mask


@njit(cache=True, nogil=True)
def has_room(names, size):  # type: ignore[no-untyped-def]
    """Whether one more name of this size fits; the table stays at most half full."""
    _, mask, stops, n_stops, _, n_bytes, state = names
    n = load_i64(state, 0)
    return (n + 1) * 2 <= mask + 1 and n + 2 <= n_stops and load_i64(stops, 8 * n) + size <= n_bytes


@njit(cache=True, nogil=True)
def add_name(data, start, size, hash_, names):  # type: ignore[no-untyped-def]
    """Give a name that `find_name` did not find the next id; `names` is a `Names`."""
    n = names.state[0]
    at = names.stops[n]
    for k in range(size):
        names.arena[at + k] = byte_at(data, start + k)
    names.stops[n + 1] = at + size
    mask = np.uint64(len(names.table) - 1)
    slot = hash_ & mask
    while names.table[slot] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    names.table[slot] = (hash_ >> np.uint64(32)) << np.uint64(32) | np.uint64(n + 1)
    names.state[0] = n + 1
    return n


@njit(cache=True, nogil=True)
def rehash_names(names):  # type: ignore[no-untyped-def]
    """Fill an empty table from the names there are."""
    mask = np.uint64(len(names.table) - 1)
    for i in range(names.state[0]):
        hash_ = table_hash(address(names.arena), names.stops[i], names.stops[i + 1] - names.stops[i])
        slot = hash_ & mask
        while names.table[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        names.table[slot] = (hash_ >> np.uint64(32)) << np.uint64(32) | np.uint64(i + 1)


@njit(cache=True, nogil=True)
def intern_names(data, starts, names, ids):  # type: ignore[no-untyped-def]
    """Ids of many names, those of `data[starts[i]:starts[i + 1]]`; `names` must have room for all."""
    opened = open_names(names)
    at = address(data)
    for i in range(len(ids)):
        start, size = starts[i], starts[i + 1] - starts[i]
        hash_ = table_hash(at, start, size)
        found = find_name(at, start, size, hash_, opened)
        ids[i] = add_name(at, start, size, hash_, names) if found < 0 else found


@njit(cache=True, nogil=True)
def is_utf8(data, start, size):  # type: ignore[no-untyped-def]
    """The table of well-formed byte sequences in the Unicode standard (section 3.9, table 3-7)."""
    at = start
    stop = start + size
    while at < stop:
        if at + 8 <= stop and load_u64(data, at) & np.uint64(0x8080808080808080) == np.uint64(0):
            at += 8
            continue
        lead = byte_at(data, at)
        if lead < 0x80:
            at += 1
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= lead <= 0xDF:
            length = 2
        elif 0xE0 <= lead <= 0xEF:
            length = 3
            low = 0xA0 if lead == 0xE0 else low
            high = 0x9F if lead == 0xED else high
        elif 0xF0 <= lead <= 0xF4:
            length = 4
            low = 0x90 if lead == 0xF0 else low
            high = 0x8F if lead == 0xF4 else high
        else:
            return False
        if at + length > stop or byte_at(data, at + 1) < low or byte_at(data, at + 1) > high:
            return False
        for k in range(at + 2, at + length):
            if byte_at(data, k) & 0xC0 != 0x80:
                return False
        at += length
    return True


@njit(cache=True, nogil=True)
def two_digits(data, at):  # type: ignore[no-untyped-def]
    """The number in two bytes, or a large number if they are not both digits."""
    a = byte_at(data, at) - 48
    b = byte_at(data, at + 1) - 48
    if a < 0 or a > 9 or b < 0 or b > 9:
        return 10_000
    return a * 10 + b


@njit(cache=True, nogil=True)
def count_digits(data, at, stop, most):  # type: ignore[no-untyped-def]
    """How many digits follow, at most so many."""
    n = 0
    while n < most and at + n < stop and 48 <= byte_at(data, at + n) <= 57:
        n += 1
    return n


@njit(cache=True, nogil=True)
def date_to_us(year, month, day):  # type: ignore[no-untyped-def]
    """Microseconds since 1970-01-01 of a date, or -1 for a date that does not exist (with False).

    H. Hinnant, "chrono-compatible low-level date algorithms".
    """
    if year < 1 or year > 9999 or month < 1 or month > 12 or day < 1 or day > 31:
        return False, 0
    if day > 28:
        leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
        longest = 31
        if month == 2:
            longest = 29 if leap else 28
        elif month == 4 or month == 6 or month == 9 or month == 11:
            longest = 30
        if day > longest:
            return False, 0
    y = year - (1 if month <= 2 else 0)
    era = y // 400
    year_of_era = y - era * 400
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return True, (era * 146097 + day_of_era - 719468) * 86400 * US


@njit(cache=True, nogil=True)
def read_number(data, at, n):  # type: ignore[no-untyped-def]
    """The number in so many digits."""
    value = 0
    for k in range(n):
        value = value * 10 + byte_at(data, at + k) - 48
    return value


@njit(cache=True, nogil=True)
def read_fraction(data, at, stop):  # type: ignore[no-untyped-def]
    """Digits behind a decimal mark as millionths, finer ones cut off: where they end (-1: none) and their value."""
    n = value = 0
    while at < stop and 48 <= byte_at(data, at) <= 57:
        if n < 6:
            value = value * 10 + byte_at(data, at) - 48
        n += 1
        at += 1
    if n == 0:
        return -1, 0
    while n < 6:
        value *= 10
        n += 1
    return at, value


@njit(cache=True, nogil=True)
def parse_clock(data, at, stop, least_hour_digits):  # type: ignore[no-untyped-def]
    """HH:MM[:SS[.f]] from `at`: where it ends (-1: it is none) and the microseconds, finer digits cut off."""
    if at + 5 <= stop and byte_at(data, at + 2) == 58:
        hour = two_digits(data, at)
        at += 2
    elif least_hour_digits == 1 and at + 4 <= stop and byte_at(data, at + 1) == 58 and 48 <= byte_at(data, at) <= 57:
        hour = byte_at(data, at) - 48
        at += 1
    else:
        return -1, 0
    if at + 3 > stop:
        return -1, 0
    minute = two_digits(data, at + 1)
    at += 3
    second = 0
    fraction = 0
    if at < stop and byte_at(data, at) == 58:
        if at + 3 > stop:
            return -1, 0
        second = two_digits(data, at + 1)
        at += 3
        if at < stop and (byte_at(data, at) == 46 or byte_at(data, at) == 44):
            end, fraction = read_fraction(data, at + 1, stop)
            at = max(at, end)
    if hour > 23 or minute > 59 or second > 59:
        return -1, 0
    return at, (hour * 3600 + minute * 60 + second) * US + fraction


@njit(cache=True, nogil=True)
def parse_digit_clock(data, at, stop, clock_digits, is_joined):  # type: ignore[no-untyped-def]
    """A time of day without colons: HHMM or HHMMSS as one integer, which may have lost zeros, or H[ M[ S]].

    `is_joined`: it follows its date without a gap, so that no digit may lack.
    """
    n = count_digits(data, at, stop, 7)
    if n == 0 or n > clock_digits or (is_joined and n != clock_digits):
        return -1, 0
    value = read_number(data, at, n)
    at += n
    hour, minute, second = value, 0, 0
    if clock_digits == 4:
        hour, minute = value // 100, value % 100
    elif clock_digits == 6:
        hour, minute, second = value // 10_000, value // 100 % 100, value % 100
    else:
        for k in range(2):
            if at + 1 < stop and byte_at(data, at) == 32 and 48 <= byte_at(data, at + 1) <= 57:
                n = count_digits(data, at + 1, stop, 3)
                part = read_number(data, at + 1, n)
                minute, second = (part, second) if k == 0 else (minute, part)
                at += 1 + n
    if hour > 23 or minute > 59 or second > 59:
        return -1, 0
    return at, (hour * 3600 + minute * 60 + second) * US


@njit(cache=True, nogil=True)
def read_word(data, at, stop):  # type: ignore[no-untyped-def]
    """A word's first eight letters, small and without accents, as one integer, and where the word ends."""
    key = np.uint64(0)
    n = 0
    while at < stop:
        byte = byte_at(data, at)
        size = 1
        if 65 <= byte <= 90:
            byte += 32
        elif byte == 0xC3 and at + 1 < stop:
            # U+00C0 to U+00FF: a, e and u with their accents, capital or small
            low = byte_at(data, at + 1) & 0x9F
            byte = 97 if 0x80 <= low <= 0x85 else 101 if 0x88 <= low <= 0x8B else 117 if 0x99 <= low <= 0x9C else 63
            size = 2
        if byte < 97 or byte > 122:
            if byte == 63:
                n = 99
            break
        if n < 8:
            key |= np.uint64(byte) << np.uint64(8 * n)
        n += 1
        at += size
    return key if n < 10 else np.uint64(0), at


@njit(cache=True, nogil=True)
def find_word(key):  # type: ignore[no-untyped-def]
    """What a word of a time means: see `_time_words`."""
    for i in range(len(WORD_KEYS)):
        if WORD_KEYS[i] == key:
            return WORD_VALUES[i]
    return UNKNOWN_WORD


@njit(cache=True, nogil=True)
def parse_zone(data, at, stop):  # type: ignore[no-untyped-def]
    """What may follow a time of day: Z, UTC or another zone's name, an offset, a (comment) or [Area/City].

    Returns:
        Whether nothing else follows, and the offset from UTC in microseconds.
    """
    offset = 0
    while at < stop:
        byte = byte_at(data, at)
        if byte == 32:
            at += 1
        elif byte == 43 or byte == 45:
            n = count_digits(data, at + 1, stop, 4)
            if n == 4:
                hour, minute, size = two_digits(data, at + 1), two_digits(data, at + 3), 5
            elif n == 2 and at + 6 <= stop and byte_at(data, at + 3) == 58:
                hour, minute, size = two_digits(data, at + 1), two_digits(data, at + 4), 6
            elif n == 2:
                hour, minute, size = two_digits(data, at + 1), 0, 3
            else:
                return False, 0
            if hour > 23 or minute > 59 or offset != 0:
                return False, 0
            offset = (hour * 60 + minute) * (60 * US if byte == 43 else -60 * US)
            at += size
            if at < stop and byte_at(data, at) != 32 and byte_at(data, at) != 91:
                return False, 0
        elif byte == 40 or byte == 91:
            if byte_at(data, stop - 1) != (41 if byte == 40 else 93):
                return False, 0
            at = stop
        else:
            key, end = read_word(data, at, stop)
            meaning = find_word(key)
            if end == at or meaning < ZONE - 24 or offset != 0:
                return False, 0
            offset = (meaning - ZONE) * 3600 * US
            at = end
    return True, offset


@njit(cache=True, nogil=True)
def parse_tail(data, at, stop, clock):  # type: ignore[no-untyped-def]
    """What follows a time of day, AM or PM and a zone: whether all of it fits, and the microseconds, now of UTC."""
    if at == stop:
        return True, clock
    first = at + 1 if byte_at(data, at) == 32 else at
    if first + 2 <= stop and byte_at(data, first + 1) | 0x20 == 109:
        half = byte_at(data, first) | 0x20
        if half == 97 or half == 112:
            hour = clock // (3600 * US)
            if hour < 1 or hour > 12:
                return False, 0
            clock += (12 * 3600 * US if half == 112 else 0) - (12 * 3600 * US if hour == 12 else 0)
            at = first + 2
    good, offset = parse_zone(data, at, stop)
    return good, clock - offset


@njit(cache=True, nogil=True)
def parse_iso(data, at, stop, clock_digits):  # type: ignore[no-untyped-def]
    """YYYY-MM-DD[T ]HH:MM[:SS[.f]][zone], or the date alone."""
    if stop - at < 10 or byte_at(data, at + 4) != 45 or byte_at(data, at + 7) != 45:
        return False, 0
    year = two_digits(data, at) * 100 + two_digits(data, at + 2)
    good, time = date_to_us(year, two_digits(data, at + 5), two_digits(data, at + 8))
    if not good or stop - at == 10:
        return good, time
    if byte_at(data, at + 10) != 32 and byte_at(data, at + 10) != 84:
        return False, 0
    if clock_digits > 0:
        at, clock = parse_digit_clock(data, at + 11, stop, clock_digits, False)
    else:
        at, clock = parse_clock(data, at + 11, stop, 1)
    if at < 0:
        return False, 0
    good, clock = parse_tail(data, at, stop, clock)
    return good, time + clock


@njit(cache=True, nogil=True)
def parse_compact(data, at, stop, kind, year_digits, clock_digits):  # type: ignore[no-untyped-def]
    """A date in digits alone: where it ends (-1: it is none), and year, month, day."""
    total = year_digits + 4
    n = count_digits(data, at, stop, 15)
    if n > total:
        # YYYYMMDDHHMMSS
        if clock_digits == 0 or n != total + clock_digits:
            return -1, 0, 0, 0
        n = total
    # integers lose their first zero: 50131 is 2005-01-31 and 1022017 is 01/02/2017
    if n < (total if kind == YMD and year_digits == 4 else total - 1):
        return -1, 0, 0, 0
    value = read_number(data, at, n)
    if kind == YMD:
        return at + n, value // 10_000, value // 100 % 100, value % 100
    base = 10_000 if year_digits == 4 else 100
    year, second, first = value % base, value // base % 100, value // base // 100
    return (at + n, year, second, first) if kind == DMY else (at + n, year, first, second)


@njit(cache=True, nogil=True)
def parse_separated(data, at, stop, kind, separator, year_digits):  # type: ignore[no-untyped-def]
    """Day, month and year with a separator: where they end (-1: they are none), and year, month, day."""
    a, b, c = 0, 0, 0
    for k in range(3):
        is_year = k == (0 if kind == YMD else 2)
        n = count_digits(data, at, stop, 4)
        if n == 0 or (n != year_digits if is_year else n > 2):
            return -1, 0, 0, 0
        a, b, c = b, c, read_number(data, at, n)
        at += n
        if k < 2:
            if at >= stop or byte_at(data, at) != separator:
                return -1, 0, 0, 0
            at += 1
    if kind == YMD:
        return at, a, b, c
    return (at, c, b, a) if kind == DMY else (at, c, a, b)


@njit(cache=True, nogil=True)
def parse_date(data, at, stop, form):  # type: ignore[no-untyped-def]
    """Year, month and day in one of three orders, with a separator or in digits alone, and perhaps a time of day."""
    kind, _, separator, year_digits, clock_digits = form
    if separator == 0:
        at, year, month, day = parse_compact(data, at, stop, kind, year_digits, clock_digits)
    else:
        at, year, month, day = parse_separated(data, at, stop, kind, separator, year_digits)
    if at < 0:
        return False, 0
    if year_digits == 2:
        year += 1900 if year >= 69 else 2000
    good, time = date_to_us(year, month, day)
    if not good or at == stop:
        return good, time
    byte = byte_at(data, at)
    has_gap = byte == 32 or byte == 84
    if has_gap:
        at += 1
    elif separator != 0 or byte < 48 or byte > 57:
        return False, 0
    if clock_digits > 0:
        at, clock = parse_digit_clock(data, at, stop, clock_digits, not has_gap)
    else:
        at, clock = parse_clock(data, at, stop, 1)
    if at < 0:
        return False, 0
    good, clock = parse_tail(data, at, stop, clock)
    return good, time + clock


@njit(cache=True, nogil=True)
def parse_dotted_clock(data, at, stop):  # type: ignore[no-untyped-def]
    """HH.MM.SS[.f] from `at`: where it ends (-1: it is none) and the microseconds."""
    if at + 8 > stop or byte_at(data, at + 2) != 46 or byte_at(data, at + 5) != 46:
        return -1, 0
    hour, minute, second = two_digits(data, at), two_digits(data, at + 3), two_digits(data, at + 6)
    if hour > 23 or minute > 59 or second > 59:
        return -1, 0
    fraction = 0
    at += 8
    if at < stop and byte_at(data, at) == 46:
        end, fraction = read_fraction(data, at + 1, stop)
        at = max(at, end)
    return at, (hour * 3600 + minute * 60 + second) * US + fraction


@njit(cache=True, nogil=True)
def parse_named(data, at, stop):  # type: ignore[no-untyped-def]
    """A date with its month in letters, English or French, in any usual order, and perhaps a time of day.

    `Tue, 05 Mar 2024 10:00:00 +0100` (RFC 2822), `5 mars 2024`, `March 5th, 2024 3:45 PM`, `05-Mar-24`,
    `05/Mar/2024:10:00:00 +0100`, `mardi 5 mars 2024 à 14h30`.
    """
    day, month, year, clock = -1, -1, -1, np.int64(0)
    has_clock = is_sure = False
    while at < stop:
        byte = byte_at(data, at)
        if 48 <= byte <= 57:
            n = count_digits(data, at, stop, 5)
            after = byte_at(data, at + n) if at + n < stop else 0
            if n <= 2 and (after == 58 or after == 104) and not has_clock:
                has_clock = True
                if after == 58:
                    at, clock = parse_clock(data, at, stop, 1)
                    if at < 0:
                        return False, 0
                else:
                    hour, minute = read_number(data, at, n), 0
                    at += n + 1
                    n = count_digits(data, at, stop, 3)
                    if n == 2:
                        minute = two_digits(data, at)
                        at += 2
                    if n == 1 or n == 3 or hour > 23 or minute > 59:
                        return False, 0
                    clock = np.int64((hour * 3600 + minute * 60) * US)
                if year >= 0:
                    # nothing but AM, PM and a zone can follow
                    good, clock = parse_tail(data, at, stop, clock)
                    if not good:
                        return False, 0
                    at = stop
                continue
            if n == 2 and after == 46 and year >= 0 and not has_clock:
                # Oracle writes 08.26.00.000000 AM
                at, clock = parse_dotted_clock(data, at, stop)
                if at < 0:
                    return False, 0
                has_clock = True
                good, clock = parse_tail(data, at, stop, clock)
                if not good:
                    return False, 0
                at = stop
                continue
            value = read_number(data, at, n)
            at += n
            if n == 4 and year < 0:
                year = value
            elif n <= 2 and day < 0:
                day = value
                key, end = read_word(data, at, stop)
                if find_word(key) == ORDINAL:
                    at = end
            elif n == 2 and year < 0:
                year = value + (1900 if value >= 69 else 2000)
            else:
                return False, 0
        elif has_clock and (byte == 43 or byte == 45) and count_digits(data, at + 1, stop, 5) == 4:
            good, offset = parse_zone(data, at, at + 5)
            if not good:
                return False, 0
            clock -= offset
            at += 5
        elif byte == 32 or byte == 44 or byte == 45 or byte == 46 or byte == 47 or (byte == 58 and year >= 0):
            at += 1
        else:
            key, end = read_word(data, at, stop)
            meaning = find_word(key)
            if end == at or meaning == UNKNOWN_WORD:
                return False, 0
            if 1 <= meaning <= 12:
                if is_sure:
                    return False, 0
                month = meaning
                # "mar." is mars, March or mardi
                is_sure = key != MAR
            elif meaning >= ZONE - 24 and has_clock:
                clock -= (meaning - ZONE) * 3600 * US
            elif meaning != FILLER:
                return False, 0
            at = end
    if year < 0 or month < 0 or day < 0:
        return False, 0
    good, time = date_to_us(year, month, day)
    return good, time + clock


@njit(cache=True, nogil=True)
def parse_integer(data, at, stop):  # type: ignore[no-untyped-def]
    """An integer of up to 64 bits with sign."""
    negative = at < stop and byte_at(data, at) == 45
    if negative:
        at += 1
    n = stop - at
    if n == 0 or n > 19 or count_digits(data, at, stop, 19) != n:
        return False, 0
    value = np.uint64(0)
    for k in range(at, stop):
        value = value * np.uint64(10) + np.uint64(byte_at(data, k) - 48)
    if value > np.uint64(0x7FFFFFFFFFFFFFFF):
        return False, 0
    return True, -np.int64(value) if negative else np.int64(value)


@njit(cache=True, nogil=True)
def parse_decimal(data, at, stop, unit):  # type: ignore[no-untyped-def]
    """A number of units, perhaps with a decimal point or comma, as microseconds (unit 0: of 1000 to one).

    An order number (unit -1) may carry a fraction of zeros, which tables with gaps give to integers.
    """
    mark = at
    while mark < stop and byte_at(data, mark) != 46 and byte_at(data, mark) != 44:
        mark += 1
    good, value = parse_integer(data, at, mark)
    if not good:
        return False, 0
    fraction = 0
    if mark < stop:
        end, fraction = read_fraction(data, mark + 1, stop)
        if end != stop or (unit < 0 and fraction != 0):
            return False, 0
    if unit < 0 or unit == 1:
        return True, value
    if unit == 0:
        return True, value // 1000
    largest = np.int64(0x7FFFFFFFFFFFFFFF)
    part = fraction * unit // US
    if abs(value) > (largest - part) // unit:
        return False, 0
    return True, value * unit + (-part if byte_at(data, at) == 45 else part)


@njit(cache=True, nogil=True)
def parse_gap(data, at, stop):  # type: ignore[no-untyped-def]
    """A number in order and, behind a blank, the whole days since the one before it; without them none went by."""
    blank = at
    while blank < stop and byte_at(data, blank) != 32:
        blank += 1
    good, number = parse_decimal(data, at, blank, -1)
    days = 0
    while blank < stop and byte_at(data, blank) == 32:
        blank += 1
    if good and blank < stop:
        good, days = parse_decimal(data, blank, stop, -1)
    if not good or number < 0 or number > MOST_NUMBER or days < 0 or days > MOST_DAYS:
        return False, 0
    return True, number << GAP_BITS | MOST_DAYS - days


@njit(cache=True, nogil=True)
def parse_time(data, start, size, form):  # type: ignore[no-untyped-def]
    """Whether a field has the form (kind, unit, separator, digits of the year and of the clock), and its time.

    Returns:
        Whether it has, and microseconds since the epoch (or the order number).
    """
    kind, unit, _, _, clock_digits = form
    stop = start + size
    while start < stop and byte_at(data, start) == 32:
        start += 1
    while start < stop and byte_at(data, stop - 1) == 32:
        stop -= 1
    if kind == ISO:
        return parse_iso(data, start, stop, clock_digits)
    if kind == EPOCH:
        return parse_decimal(data, start, stop, unit)
    if kind == ORDER:
        return parse_decimal(data, start, stop, -1)
    if kind == NAMED:
        return parse_named(data, start, stop)
    if kind == GAPS:
        return parse_gap(data, start, stop)
    return parse_date(data, start, stop, form)


@njit(cache=True, nogil=True)
def unquote(data, start, size, quote, is_plain, top):  # type: ignore[no-untyped-def]
    """A field without its quotes: start, size, and the new top of the scratch bytes if it had to be rewritten."""
    if size == 0 or byte_at(data, start) != quote:
        return start, size, top
    if is_plain and size >= 2 and byte_at(data, start + size - 1) == quote:
        return start + 1, size - 2, top
    out = top
    inside = True
    at = start + 1
    while at < start + size:
        byte = byte_at(data, at)
        if inside and byte == quote:
            if at + 1 < start + size and byte_at(data, at + 1) == quote:
                put(data, out, byte)
                out += 1
                at += 1
            else:
                inside = False
        else:
            put(data, out, byte)
            out += 1
        at += 1
    return top, out - top, out


@njit(cache=True, nogil=True)
def is_null(data, start, size, role, nulls):  # type: ignore[no-untyped-def]
    """Whether a value is empty, blank or one of the role's null literals; `nulls`: addresses of their arrays."""
    if size == 0:
        return True
    if byte_at(data, start) == 32:
        at = start
        while at < start + size and byte_at(data, at) == 32:
            at += 1
        if at == start + size:
            return True
    literals, stops, starts, sizes = nulls
    if load_i64(sizes, 8 * role) >> min(size, np.int64(62)) & 1 == 0:
        return False
    for i in range(load_i64(starts, 8 * role), load_i64(starts, 8 * role + 8)):
        at = load_i64(stops, 8 * i)
        if load_i64(stops, 8 * i + 8) - at == size and is_equal(data, start, literals, at, size):
            return True
    return False


@njit(cache=True, nogil=True)
def field(data, separators, first, row_start, column, where):  # type: ignore[no-untyped-def]
    """Start and size of a raw field; the last one loses the carriage return of its line end."""
    n_fields, _, _, constants, constant_stops = where
    if column < 0:
        # what lies elsewhere is at an offset from the data too
        at = load_i64(constant_stops, -8 - 8 * column)
        return constants - data + at, load_i64(constant_stops, -8 * column) - at
    start = row_start if column == 0 else np.int64(load_u32(separators, 4 * (first + column - 1))) + 1
    stop = np.int64(load_u32(separators, 4 * (first + column)))
    if column == n_fields - 1 and stop > start and byte_at(data, stop - 1) == 13:
        stop -= 1
    return start, stop - start


@njit(cache=True, nogil=True)
def join_fields(data, separators, first, row_start, role, columns, n_columns, where, nulls, top):  # type: ignore[no-untyped-def]
    """The columns of a role as one value in the scratch bytes: start, size (0: a part is missing), new top.

    A missing part of a column that is OPTIONAL is an empty one. PERF: a flag beside the column would be one more value
    in the loop over the rows, which cost a twentieth of all.

    `columns` is the address of the first one's index, `where` is (number of fields, quote, quotes are plain, addresses
    of constants and of their stops).
    """
    _, quote, is_plain, _, _ = where
    start = top
    for i in range(n_columns):
        column = load_i64(columns, 8 * i)
        may_lack = column >= OPTIONAL >> 1
        if may_lack:
            column -= OPTIONAL
        at, size = field(data, separators, first, row_start, column, where)
        if i > 0:
            put(data, top, np.int64(32 if role == 1 else 31))
            top += 1
        at, size, rewritten = unquote(data, at, size, quote, is_plain, top)
        if is_null(data, at, size, role, nulls):
            if may_lack:
                continue
            return start, 0, start
        if rewritten == top:
            for k in range(size):
                put(data, top + k, byte_at(data, at + k))
        top += size
    return start, top - start, top


@njit(cache=True, nogil=True)
def parse_number(data, start, size):  # type: ignore[no-untyped-def]
    """A decimal number, with a point or a comma and perhaps an exponent: whether it is one, mantissa, exponent of 10.

    Digits after the 19th are dropped.
    """
    at, stop = start, start + size
    while at < stop and byte_at(data, at) == 32:
        at += 1
    while stop > at and byte_at(data, stop - 1) == 32:
        stop -= 1
    negative = at < stop and byte_at(data, at) == 45
    if at < stop and (byte_at(data, at) == 45 or byte_at(data, at) == 43):
        at += 1
    mantissa = np.uint64(0)
    exponent = 0
    n_digits = 0
    has_mark = False
    while at < stop:
        byte = byte_at(data, at)
        if 48 <= byte <= 57:
            n_digits += 1
            if mantissa < np.uint64(1_000_000_000_000_000_000):
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - 48)
                exponent -= has_mark
            else:
                exponent += not has_mark
        elif (byte == 46 or byte == 44) and not has_mark:
            has_mark = True
        else:
            break
        at += 1
    if n_digits == 0:
        return False, False, mantissa, exponent
    if at < stop and (byte_at(data, at) == 101 or byte_at(data, at) == 69):
        at += 1
        sinks = at < stop and byte_at(data, at) == 45
        if at < stop and (byte_at(data, at) == 45 or byte_at(data, at) == 43):
            at += 1
        n = count_digits(data, at, stop, 5)
        if n == 0 or n == 5:
            return False, False, mantissa, exponent
        power = 0
        for k in range(at, at + n):
            power = power * 10 + byte_at(data, k) - 48
        exponent += -power if sinks else power
        at += n
    return at == stop, negative, mantissa, exponent


@njit(cache=True, nogil=True)
def parse_fixed(data, start, size):  # type: ignore[no-untyped-def]
    """A decimal number in millionths, rounded half away from zero and cut off at 18 digits; or UNREADABLE."""
    good, negative, mantissa, exponent = parse_number(data, start, size)
    if not good:
        return UNREADABLE
    ten = np.uint64(10)
    exponent += DECIMALS
    if exponent < -20:
        mantissa = np.uint64(0)
    while exponent > 0 and np.uint64(0) < mantissa <= LARGEST:
        mantissa *= ten
        exponent -= 1
    while exponent < 0 and mantissa > np.uint64(0):
        # what was cut off before cannot change how the last digit is rounded
        mantissa = (mantissa + np.uint64(5 if exponent == -1 else 0)) // ten
        exponent += 1
    value = np.int64(min(mantissa, LARGEST))
    return -value if negative else value


@njit(cache=True, nogil=True)
def read_numbers(data, starts, values):  # type: ignore[no-untyped-def]
    """`parse_fixed` of each of `data[starts[i]:starts[i + 1]]`; 8 readable bytes must follow."""
    at = address(data)
    for i in range(len(values)):
        values[i] = parse_fixed(at, starts[i], starts[i + 1] - starts[i])


@njit(cache=True, nogil=True)
def compare_numbers(a_negative, a, a_exponent, b_negative, b, b_exponent):  # type: ignore[no-untyped-def]
    """-1, 0 or 1 as one decimal number is less than, equal to or greater than another; exact."""
    if a == np.uint64(0) or b == np.uint64(0) or a_negative != b_negative:
        a_sign = 0 if a == np.uint64(0) else (-1 if a_negative else 1)
        b_sign = 0 if b == np.uint64(0) else (-1 if b_negative else 1)
        return (a_sign > b_sign) - (a_sign < b_sign)
    # a mantissa has at most 19 digits: one that needs more to reach the other's exponent is the larger number
    while a_exponent > b_exponent and a < np.uint64(1_000_000_000_000_000_000):
        a *= np.uint64(10)
        a_exponent -= 1
    while b_exponent > a_exponent and b < np.uint64(1_000_000_000_000_000_000):
        b *= np.uint64(10)
        b_exponent -= 1
    if a_exponent != b_exponent:
        order = 1 if a_exponent > b_exponent else -1
    else:
        order = (a > b) - (a < b)
    return -order if a_negative else order


@njit(cache=True, nogil=True)
def compare_bytes(a, i, n, b, j, m):  # type: ignore[no-untyped-def]
    """-1, 0 or 1 as n bytes come before, are, or come after m others."""
    for k in range(min(n, m)):
        x, y = byte_at(a, i + k), byte_at(b, j + k)
        if x != y:
            return 1 if x > y else -1
    return (n > m) - (n < m)


@njit(cache=True, nogil=True)
def unmet_rule(data, separators, first, row_start, conditions, n_conditions, texts, where, top):  # type: ignore[no-untyped-def]
    """The rule of the first condition that a row does not meet, or -1; what is no number meets none with a number.

    `conditions` and `texts` are the addresses of Layout's, `where` is as for `join_fields`.
    """
    _, quote, is_plain, _, _ = where
    for i in range(n_conditions):
        condition = conditions + 8 * N_CONDITION * i
        at, size = field(data, separators, first, row_start, load_i64(condition, 8 * COLUMN), where)
        at, size, _ = unquote(data, at, size, quote, is_plain, top)
        value, value_size = load_i64(condition, 8 * VALUE), load_i64(condition, 8 * SIZE)
        if load_i64(condition, 8 * IS_NUMBER) != 0:
            good, negative, mantissa, exponent = parse_number(data, at, size)
            if not good:
                return load_i64(condition, 8 * RULE)
            order = compare_numbers(negative, mantissa, exponent, value < 0, np.uint64(abs(value)), value_size)
        else:
            order = compare_bytes(data, at, size, texts, value, value_size)
        operator = load_i64(condition, 8 * OPERATOR)
        if order < 0:
            met = operator == LESS or operator == LESS_EQUAL or operator == UNEQUAL
        elif order > 0:
            met = operator == GREATER or operator == GREATER_EQUAL or operator == UNEQUAL
        else:
            met = operator == EQUAL or operator == LESS_EQUAL or operator == GREATER_EQUAL
        if not met:
            return load_i64(condition, 8 * RULE)
    return -1


@njit(cache=True, nogil=True)
def row_hash(data, start, stop):  # type: ignore[no-untyped-def]
    """A hash of a raw row without its line end, for telling rows that come twice."""
    if stop > start and byte_at(data, stop - 1) == 13:
        stop -= 1
    size = stop - start
    x = np.uint64(size) * np.uint64(0x9E3779B97F4A7C15)
    y = np.uint64(0xC2B2AE3D27D4EB4F)
    at = start
    while at + 8 <= stop:
        x = (x ^ load_u64(data, at)) * np.uint64(0x9FB21C651E98DF25)
        x ^= x >> np.uint64(29)
        y += x
        at += 8
    x ^= low_bytes(data, at, stop - at)
    return finalise(finalise(x) + y)


@njit(cache=True, nogil=True)
def count_lines(data, at, starts, lines):  # type: ignore[no-untyped-def]
    """How many line ends lie between `at` and each of the ascending `starts`."""
    n = 0
    for i in range(len(starts)):
        while at < starts[i]:
            n += data[at] == 10
            at += 1
        lines[i] = n


@njit(cache=True, nogil=True)
def take_rows(data, starts, stops, out):  # type: ignore[no-untyped-def]
    """The bytes of some rows, one after another."""
    at = 0
    for i in range(len(starts)):
        for k in range(starts[i], stops[i]):
            out[at] = data[k]
            at += 1


@njit(cache=True, nogil=True)
def parse_rows(  # type: ignore[no-untyped-def]
    data,
    scratch,
    separators,
    row_stops,
    row_start,
    rows,
    is_plain,
    layout,
    customers,
    actions,
    lookup,
    lookup_actions,
    store,
    rejects,
    conditions,
    features,
):
    """Parse rows[0]:rows[1] of an indexed block; returns the row where it stopped (and Store.state[STATUS] why).

    Args:
        data: uint8, the block, and from `scratch` on room for values that must be rewritten.
        scratch: where that room begins.
        separators: uint32, positions of delimiters and line ends.
        row_stops: uint32 per row, the number of separators up to its line end, with the UNCLOSED bit.
        row_start: position of row rows[0].
        rows: (first, stop).
        is_plain: quoted fields need no more than their two quotes taken off.
        layout: a `Layout`.
        customers: `Names`, local ids, extended.
        actions: `Names`, local ids, extended.
        lookup: `Names`, the keys of the dimension table (empty without a lookup).
        lookup_actions: int64 per key: the local action id, or -1 where the table has none.
        store: a `Store`, extended.
        rejects: `Rejects`, extended.
        conditions: int64[n, N_CONDITION]; None where the run has no rules at all. PERF: for None another kernel is
            compiled, whose loop holds nothing of them.
        features: `Features`, extended; None where no columns are kept beside the events, as for `conditions`.
    """
    numbers, columns, starts = layout.numbers, layout.columns, layout.starts
    n_fields, quote = numbers[N_FIELDS], numbers[QUOTE]
    where = (n_fields, quote, np.int64(is_plain), address(layout.constants), address(layout.constant_stops))
    form = (
        numbers[TIME_KIND],
        numbers[UNIT_US],
        numbers[DATE_SEPARATOR],
        numbers[YEAR_DIGITS],
        numbers[CLOCK_DIGITS],
    )
    nulls = (
        address(layout.null_bytes),
        address(layout.null_stops),
        address(layout.null_starts),
        address(layout.null_sizes),
    )
    column_of = address(columns)
    bytes_, index, stops_ = address(data), address(separators), address(row_stops)
    known_customers, known_actions, known_keys = open_names(customers), open_names(actions), open_names(lookup)
    reject_row, reject_start, reject_stop, reject_reason, reject_state, filtered = rejects
    owner, size_of, time_of, key_of, action_of, rows_of, action_counts, hashes, sample_keys, sample_rows, state = store
    texts = address(layout.condition_bytes)
    if features is not None:
        n_features = len(features.is_number)
        feature_columns, values_of = address(layout.feature_columns), features.values
        is_number, looked_up = address(features.is_number), address(features.looked_up)
        known_categories, feature_keys = open_names(features.categories), open_names(features.keys)
    since, until, n_where = numbers[SINCE], numbers[UNTIL], numbers[N_WHERE]
    has_lookup = numbers[HAS_LOOKUP] != 0
    customer_column, time_column, action_column = columns[starts[0]], columns[starts[1]], columns[starts[2]]
    joins_customer, joins_time, joins_action = (
        starts[1] - starts[0] > 1,
        starts[2] - starts[1] > 1,
        starts[3] - starts[2] > 1,
    )
    n_visit_columns = starts[4] - starts[3]
    visit_column = columns[starts[3]] if n_visit_columns > 0 else 0
    n_fragments, n_actions = state[N_FRAGMENTS], state[N_ACTIONS]
    n_rejects = reject_state[0]
    last_sampled = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(state[SAMPLE_BITS])
    min_time, max_time = state[MIN_TIME], state[MAX_TIME]
    n_events = state[N_EVENTS]
    row = np.int64(rows[0])
    first = 0 if row == 0 else np.int64(row_stops[row - 1] & np.uint32(0x7FFFFFFF))
    next_start = row_start
    status = DONE

    # the last accepted row
    last_customer_at, last_customer_size, last_customer = 0, -1, -1
    last_time_at, last_time_size, last_time = 0, -1, 0
    last_visit_at, last_visit_size = 0, -1
    last_key = np.uint64(0)
    day, last_day = np.int64(0), np.int64(0)
    has_fragment = False

    while row < rows[1]:
        row_start = next_start
        flagged = np.int64(load_u32(stops_, 4 * row))
        stop = flagged & 0x7FFFFFFF
        line_end = np.int64(load_u32(index, 4 * (stop - 1)))
        next_start = line_end + 1
        reason = -1
        if flagged != first + n_fields:
            if flagged >= UNCLOSED:
                reason = UNCLOSED_QUOTE
            elif line_end == row_start or (line_end == row_start + 1 and byte_at(bytes_, row_start) == 13):
                # an empty line is no row
                first = stop
                row += 1
                reject_state[1] += 1
                continue
            else:
                reason = FIELD_COUNT
        else:
            if n_fragments == len(key_of) or n_actions == len(action_of):
                status = STORE_FULL
                break
            top = scratch
            if 4 * (line_end - row_start) + 64 > len(data) - scratch:
                status = SCRATCH_FULL
                break

            if conditions is not None:
                rule = unmet_rule(
                    bytes_, index, first, row_start, address(conditions), len(conditions), texts, where, top
                )
                if rule >= 0:
                    filtered[rule] += 1
                    first = stop
                    row += 1
                    continue

            # customer
            if joins_customer:
                at, size, top = join_fields(
                    bytes_,
                    index,
                    first,
                    row_start,
                    0,
                    column_of + 8 * starts[0],
                    starts[1] - starts[0],
                    where,
                    nulls,
                    top,
                )
            else:
                at, size = field(bytes_, index, first, row_start, customer_column, where)
            raw_customer, raw_customer_size = at, size
            customer = last_customer
            customer_hash = np.uint64(0)
            same_customer = size == last_customer_size and is_equal(bytes_, at, bytes_, last_customer_at, size)
            if not same_customer:
                if not joins_customer:
                    at, size, top = unquote(bytes_, at, size, quote, is_plain, top)
                if is_null(bytes_, at, size, 0, nulls):
                    reason = MISSING_CUSTOMER
                else:
                    customer_hash = table_hash(bytes_, at, size)
                    customer = find_name(bytes_, at, size, customer_hash, known_customers)
            customer_at, customer_size = at, size

            # time
            raw_time, raw_time_size, time, same_time = 0, 0, last_time, True
            if reason < 0:
                if joins_time:
                    at, size, top = join_fields(
                        bytes_,
                        index,
                        first,
                        row_start,
                        1,
                        column_of + 8 * starts[1],
                        starts[2] - starts[1],
                        where,
                        nulls,
                        top,
                    )
                else:
                    at, size = field(bytes_, index, first, row_start, time_column, where)
                raw_time, raw_time_size = at, size
                same_time = size == last_time_size and is_equal(bytes_, at, bytes_, last_time_at, size)
                if not same_time:
                    if not joins_time:
                        at, size, top = unquote(bytes_, at, size, quote, is_plain, top)
                    if is_null(bytes_, at, size, 1, nulls):
                        reason = MISSING_TIME
                    else:
                        good, time = parse_time(bytes_, at, size, form)
                        if not good:
                            reason = BAD_TIME
                        elif conditions is not None:
                            if time < since or time > until:
                                filtered[n_where + (time > until)] += 1
                                first = stop
                                row += 1
                                continue

            # action
            action = np.int64(-1)
            action_hash = np.uint64(0)
            if reason < 0:
                if joins_action:
                    at, size, top = join_fields(
                        bytes_,
                        index,
                        first,
                        row_start,
                        2,
                        column_of + 8 * starts[2],
                        starts[3] - starts[2],
                        where,
                        nulls,
                        top,
                    )
                else:
                    at, size = field(bytes_, index, first, row_start, action_column, where)
                    at, size, top = unquote(bytes_, at, size, quote, is_plain, top)
                if is_null(bytes_, at, size, 2, nulls):
                    reason = MISSING_ACTION
                else:
                    action_hash = table_hash(bytes_, at, size)
                    if has_lookup:
                        entry = find_name(bytes_, at, size, action_hash, known_keys)
                        if entry < 0:
                            reason = UNMATCHED_LOOKUP
                        else:
                            action = lookup_actions[entry]
                            if action < 0:
                                reason = MISSING_ACTION
                    else:
                        action = find_name(bytes_, at, size, action_hash, known_actions)
                        if action < 0 and not is_utf8(bytes_, at, size):
                            reason = BAD_ENCODING
            if reason < 0 and customer < 0 and not is_utf8(bytes_, customer_at, customer_size):
                reason = BAD_ENCODING

        if reason >= 0:
            if n_rejects == len(reject_start):
                status = REJECTS_FULL
                break
            reject_row[n_rejects] = row
            reject_start[n_rejects] = row_start
            reject_stop[n_rejects] = line_end
            reject_reason[n_rejects] = reason
            n_rejects += 1
            first = stop
            row += 1
            continue

        # nothing of a rejected row is kept, so names are added only now
        if customer < 0:
            if not has_room(known_customers, customer_size) or customers.state[0] >= len(hashes):
                status = CUSTOMERS_FULL
                break
        if action < 0:
            if not has_room(known_actions, size) or actions.state[0] >= len(action_counts):
                status = ACTIONS_FULL
                break
            action = add_name(bytes_, at, size, action_hash, actions)
        if customer < 0:
            customer = add_name(bytes_, customer_at, customer_size, customer_hash, customers)
            hashes[customer] = name_hash(bytes_, customer_at, customer_size)

        # visit
        key = last_key
        if n_visit_columns == 0:
            if not same_time:
                key = time_hash(time)
        else:
            if n_visit_columns > 1:
                at, size, top = join_fields(
                    bytes_, index, first, row_start, 3, column_of + 8 * starts[3], n_visit_columns, where, nulls, top
                )
            else:
                at, size = field(bytes_, index, first, row_start, visit_column, where)
            if size != last_visit_size or not is_equal(bytes_, at, bytes_, last_visit_at, size):
                raw_visit, raw_visit_size = at, size
                if n_visit_columns == 1:
                    at, size, top = unquote(bytes_, at, size, quote, is_plain, top)
                if is_null(bytes_, at, size, 3, nulls):
                    # without a visit id a row stands for itself and its time
                    key = time_hash(time)
                    last_visit_size = -1
                else:
                    key = name_hash(bytes_, at, size)
                    # a joined value lies in the scratch bytes, which the next row writes over
                    last_visit_at, last_visit_size = raw_visit, raw_visit_size if n_visit_columns == 1 else -1

        if features is not None:
            has_room_for_all = True
            for k in range(n_features):
                column = load_i64(feature_columns, 8 * k)
                at, size = field(bytes_, index, first, row_start, column, where)
                at, size, _ = unquote(bytes_, at, size, quote, is_plain, top)
                place = load_i64(looked_up, 8 * k)
                value = NO_VALUE
                if place >= 0:
                    entry = find_name(bytes_, at, size, table_hash(bytes_, at, size), feature_keys)
                    if entry >= 0:
                        value = features.key_values[entry, place]
                elif not is_null(bytes_, at, size, N_ROLES + k, nulls):
                    if load_i64(is_number, 8 * k) != 0:
                        value = parse_fixed(bytes_, at, size)
                    else:
                        hash_ = table_hash(bytes_, at, size)
                        value = np.int64(find_name(bytes_, at, size, hash_, known_categories))
                        if value < 0:
                            if not is_utf8(bytes_, at, size):
                                value = UNREADABLE
                            elif has_room(known_categories, size):
                                value = np.int64(add_name(bytes_, at, size, hash_, features.categories))
                            else:
                                has_room_for_all = False
                                break
                values_of[n_actions * n_features + k] = value
            if not has_room_for_all:
                status = CATEGORIES_FULL
                break

        if key <= last_sampled:
            at = state[N_SAMPLED]
            if at == len(sample_keys):
                status = SAMPLE_FULL
                break
            sample_keys[at], sample_rows[at] = key, row_hash(bytes_, row_start, line_end)
            state[N_SAMPLED] = at + 1
        if conditions is not None:
            if len(rows_of) > 0:
                # rows of files whose names tell their times may be equal and of different days
                rows_of[n_actions] = row_hash(bytes_, row_start, line_end) ^ time_hash(time)
        if not same_time:
            day = time // np.int64(DAY)
        if has_fragment and customer == last_customer and key == last_key and day == last_day:
            size_of[n_fragments - 1] += np.uint32(1)
            if time < time_of[n_fragments - 1]:
                time_of[n_fragments - 1] = time
        else:
            owner[n_fragments] = customer
            size_of[n_fragments] = 1
            time_of[n_fragments] = time
            key_of[n_fragments] = key
            n_fragments += 1
            has_fragment = True
        action_of[n_actions] = action
        n_actions += 1
        action_counts[action] += 1
        n_events += 1
        min_time = min(min_time, time)
        max_time = max(max_time, time)
        if not same_customer:
            last_customer_at, last_customer_size = raw_customer, -1 if joins_customer else raw_customer_size
        if not same_time:
            last_time_at, last_time_size = raw_time, -1 if joins_time else raw_time_size
        last_customer, last_time, last_key, last_day = customer, time, key, day
        first = stop
        row += 1

    state[N_FRAGMENTS], state[N_ACTIONS], state[N_EVENTS] = n_fragments, n_actions, n_events
    state[MIN_TIME], state[MAX_TIME], state[STATUS] = min_time, max_time, status
    reject_state[0] = n_rejects
    return row
