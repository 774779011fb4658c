"""What ingest has decided to do, before the first row is parsed: plain frozen records and nothing else.

`make_plan` fills them from samples of the sources; `run_plan` carries them out and decides nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

Compression = Literal["none", "gzip", "zstd", "bz2", "zip"]
Form = Literal["delimited", "json", "parquet", "arrow"]
TimeKind = Literal["iso", "epoch", "ymd", "dmy", "mdy", "named", "order", "gaps"]
Operator = Literal["<", "<=", "=", "!=", ">=", ">"]
FeatureKind = Literal["number", "category"]

PART_SEPARATOR = b"\x1f"
"""Joins the parts of a customer, action or visit that is spread over several columns."""


@dataclass(frozen=True)
class Source:
    """One raw log: where it lies, how it is compressed, its size on disk in bytes, what its bytes are.

    `member` names the entry of a zip archive. Text that is not `encoding` "utf-8" with `line_end` "lf" is read as if it
    were.
    """

    path: Path
    compression: Compression
    size_bytes: int
    member: str | None = None
    form: Form = "delimited"
    encoding: str = "utf-8"
    line_end: str = "lf"

    @property
    def label(self) -> str:
        """What to call it, for people and in the dataset."""
        name = str(self.path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return name if self.member is None else f"{name}/{self.member}"

    @property
    def is_plain(self) -> bool:
        """Whether its bytes on disk are those that are parsed, so that any place of it can be read."""
        return (
            self.compression == "none" and self.encoding == "utf-8" and self.line_end == "lf" and not self.is_columnar
        )

    @property
    def is_columnar(self) -> bool:
        """Whether it is no text but holds columns with types."""
        return self.form in ("parquet", "arrow")


@dataclass(frozen=True)
class Dialect:
    """How the bytes of one delimited file are cut into fields.

    `delimiter` and `quote` are byte values (`quote` None: a `"` is data). `header` names every column, from the
    file's first row or from `--columns`. `header_stop` is the byte offset in the decompressed stream where the data
    rows begin, after the byte order mark and the header row if there are such.
    """

    delimiter: int
    quote: int | None
    has_header: bool
    header: tuple[str, ...]
    header_stop: int


@dataclass(frozen=True)
class TimeFormat:
    """The one form that every time of the run has.

    - `iso`: `YYYY-MM-DD`, then optionally `T` or a space and a time of day.
    - `epoch`: a number of units since 1970-01-01 UTC, each `unit_us` microseconds long (nanoseconds: `unit_us` 0,
      that is, divide by 1000); decimals behind a point or comma are read.
    - `ymd`, `dmy`, `mdy`: year, month and day in this order, cut by `date_separator` (a byte), or None for digits
      alone; the year has `year_digits` digits (of two, 69 to 99 are 1969 to 1999). Then optionally a time of day.
    - `named`: the month in letters, English or French, as in RFC 2822 or `5 mars 2024 14:30`.
    - `order`: an integer that only orders the visits.
    - `gaps`: such an integer from 0 to 2**23 - 1, and in a second column the whole days (0 to 8191, or nothing) since
      the customer's visit before; see `luckyfast.ingestion.gaps`.

    A time of day (`has_clock`) is `H:MM[:SS[.f]]`, perhaps with AM or PM, or with `clock_digits` an integer without
    colons: 4 for HHMM, 6 for HHMMSS, 2 for an hour and perhaps minute and second behind spaces. A zone may follow:
    `Z`, an offset, or a name such as UTC; times without one count as UTC.
    """

    kind: TimeKind
    unit_us: int = 1
    date_separator: int | None = None
    has_clock: bool = False
    year_digits: int = 4
    clock_digits: int = 0


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a text, or with the number `value` x 10 ** `exponent`."""

    column: str
    operator: Operator
    value: bytes | int
    exponent: int = 0


@dataclass(frozen=True)
class Rules:
    """Which of the readable rows are left out or merged, because the user asked for it.

    `where` holds each rule as the user wrote it with its conditions, all of which a row must meet. Rows before `since`
    or at or after `until` are left out; of equal raw rows in a visit one stays with `drop_duplicates`; customers with
    fewer than `min_visits` visits are left out; all but the `top_actions` most frequent actions become `<other>`.
    """

    where: tuple[tuple[str, tuple[Condition, ...]], ...] = ()
    since: int | None = None
    until: int | None = None
    drop_duplicates: bool = False
    min_visits: int = 1
    top_actions: int | None = None


@dataclass(frozen=True)
class Feature:
    """A column that is kept beside the events: its kind, and the literals that mean "no value" in it.

    `looked_up`: it is a column of the lookup table.
    """

    name: str
    kind: FeatureKind
    nulls: tuple[bytes, ...] = ()
    looked_up: bool = False


@dataclass(frozen=True)
class FilePlan:
    """One source, its dialect, and the column indices of each role, condition and feature in this very file.

    Index `-1 - k` stands for `constants[k]`, a value that all rows of the file share, such as one from its name.
    """

    source: Source
    dialect: Dialect
    customer: tuple[int, ...]
    time: tuple[int, ...]
    action: tuple[int, ...]
    visit: tuple[int, ...] | None
    where: tuple[int, ...] = ()
    constants: tuple[bytes, ...] = ()
    whole: bool = False
    features: tuple[int, ...] = ()

    @property
    def needed(self) -> tuple[int, ...]:
        """The columns of the file that any role, condition or feature has, ascending; all columns with `whole`."""
        if self.whole:
            return tuple(range(len(self.dialect.header)))
        columns = (*self.customer, *self.time, *self.action, *(self.visit or ()), *self.where, *self.features)
        return tuple(sorted({column for column in columns if column >= 0}))


@dataclass(frozen=True)
class Roles:
    """The column names behind each role; several names are joined in this order.

    With a lookup, `action` names columns of the lookup table. `visit` None means that all rows of one customer with
    one time are a visit.
    """

    customer: tuple[str, ...]
    time: tuple[str, ...]
    action: tuple[str, ...]
    visit: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Lookup:
    """A dimension table: key `i` is `key_bytes[key_start[i]:key_start[i + 1]]` (uint8, int64), its action `values[i]`.

    An empty value means that the table has the key but no action for it; without any `values` the action is no column
    of the table. `features` has the same for each looked-up feature. `on` is the column of the raw files.
    """

    path: Path
    on: str
    n_rows: int
    key_bytes: NDArray[np.uint8]
    key_start: NDArray[np.int64]
    values: tuple[str, ...]
    features: tuple[tuple[str, ...], ...] = ()

    @property
    def gives_action(self) -> bool:
        """Whether the action is a column of the table."""
        return bool(self.values)


@dataclass(frozen=True, eq=False)
class IngestPlan:
    """Everything `run_plan` needs.

    `nulls` maps a role ("customer", "time", "action", "visit") to the literals that mean "no value" there besides the
    empty field. With a lookup that gives the action, each `FilePlan.action` is the index of the column `lookup.on`.
    `max_reject` is a share of the rows read. `reasons` says in words why the columns of each role were taken, under
    "feature NAME" why a feature is of its kind, and under "files" how the files differ from each other. With `append`
    the files are added to the dataset `out`; with `resume` an interrupted run goes on.
    """

    files: tuple[FilePlan, ...]
    roles: Roles
    time_format: TimeFormat
    nulls: Mapping[str, tuple[bytes, ...]]
    lookup: Lookup | None
    max_reject: float
    memory_bytes: int
    n_workers: int
    temp: Path | None
    out: Path
    reasons: Mapping[str, str]
    filename_pattern: str | None = None
    rules: Rules = Rules()
    features: tuple[Feature, ...] = ()
    append: bool = False
    resume: bool = False
