"""The roles of one run: those the user gave, checked, and the others found, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luckyfast.errors import SchemaError
from luckyfast.ingestion.layout import missing_column
from luckyfast.ingestion.lookup import TableSample
from luckyfast.ingestion.plan import Roles, TimeFormat
from luckyfast.ingestion.roles import (
    MIN_SCORE,
    ColumnSample,
    choose_role,
    is_gap_name,
    is_order_name,
    name_score,
    rank_candidates,
    show_samples,
    split_words,
    suggest_flags,
)
from luckyfast.ingestion.times import (
    AmbiguousTimeError,
    check_time_format,
    describe_time_format,
    find_time_format,
    is_time_of_day,
)

__all__ = ["Choices", "choose_roles"]

_NO_VALUE = frozenset(("NULL", "null", "NA", "N/A", "NaN", "nan", "None", "NaT", "\\N"))
_GIVEN = "as you said"
_CLOCK_WORDS = frozenset(("time", "heure", "hour", "hhmm", "hhmmss", "hms", "clock"))
_PART_WORDS = (
    frozenset(("year", "annee", "yyyy")),
    frozenset(("month", "mois", "mm")),
    frozenset(("day", "jour", "dd")),
    _CLOCK_WORDS,
    frozenset(("minute", "minutes")),
)


@dataclass(frozen=True)
class Choices:
    """The columns of each role, the form of the times, the join column of a lookup, and why.

    `looks_up_action`: the action is a column of the lookup table, and not only features are.
    """

    roles: Roles
    time_format: TimeFormat
    on: str | None
    reasons: dict[str, str]
    looks_up_action: bool = False


@dataclass
class _Log:
    """What is known about the log while its roles are being chosen."""

    columns: Sequence[ColumnSample]
    where: str
    nulls: Mapping[str, Sequence[str]]
    taken: list[str]
    reasons: dict[str, str]

    def resolve(self, role: str, given: str | Sequence[str]) -> tuple[str, ...]:
        """The columns that the user named, in the log's own spelling."""
        names = _split_names(given, [column.name for column in self.columns])
        found = tuple(self.find(name).name for name in names)
        self.taken += found
        self.reasons[role] = _GIVEN
        return found

    def find(self, name: str) -> ColumnSample:
        """The column of a name, exactly or regardless of case."""
        exact = [column for column in self.columns if column.name == name]
        alike = exact or [column for column in self.columns if column.name.casefold() == name.casefold()]
        if len(alike) != 1:
            raise missing_column(self.where, name, [column.name for column in self.columns])
        return alike[0]

    def require(self, role: str, what: str, hint: str | None = None) -> tuple[str, ...]:
        """The column that the sample shows to have a role."""
        chosen = choose_role(role, self.columns, taken=self.taken)
        if chosen is None:
            free = [column for column in self.columns if column.name not in self.taken]
            weak = rank_candidates(role, free)
            flags = suggest_flags(role, weak) if weak else f"name it: --{role} COLUMN"
            raise SchemaError(
                f"no column of {self.where} looks like the {role} ({what}); "
                f"it has {', '.join(show_samples(column) for column in free)}",
                hint=hint or flags,
            )
        self.taken.append(chosen.name)
        self.reasons[role] = chosen.reason
        return (chosen.name,)


def choose_roles(
    columns: Sequence[ColumnSample],
    *,
    where: str,
    given: Mapping[str, str | Sequence[str] | None],
    time_format: str | None,
    nulls: Mapping[str, Sequence[str]],
    lookup_table: TableSample | None,
    on: str | None,
    product_hint: str | None,
    looks_up_features: bool = False,
) -> Choices:
    """Choose the columns of all roles.

    Args:
        columns: the sampled columns of the logs.
        where: the file to name in messages.
        given: what the user said of each role; the visit "none" means that there is no such column.
        time_format: the form of the times, where the user gave it.
        nulls: texts that mean "no value", by column or role.
        lookup_table: the table that holds the action, if there is one.
        on: its key column, where the user gave it.
        product_hint: what to add if a file looks like such a table.
        looks_up_features: whether other columns of the table are wanted, so that it need not hold the action.

    Returns:
        The choices.

    Raises:
        SchemaError: a column is missing, nothing fits, or several columns fit equally well.
    """
    log = _Log(columns, where, nulls, [], {})
    # what the user gave is taken before anything is guessed
    fixed = {role: log.resolve(role, value) for role in ("customer", "time") if (value := given.get(role)) is not None}
    visit_given = given.get("visit")
    no_visit = visit_given in ("none", ["none"], ("none",)) and not any(column.name == "none" for column in columns)
    if visit_given is not None and not no_visit:
        fixed["visit"] = log.resolve("visit", visit_given)
    action_given = given.get("action")
    looks_up_action = lookup_table is not None and not (
        looks_up_features and _has_no_action(log, lookup_table, action_given)
    )
    if not looks_up_action and action_given is not None:
        fixed["action"] = log.resolve("action", action_given)
    join = _choose_join(log, lookup_table, on, looks_up_action) if lookup_table is not None else None

    time, form = _choose_time(log, fixed.get("time"), time_format)
    customer = fixed.get("customer") or log.require("customer", "who acts")
    visit = None if no_visit else fixed.get("visit") or _choose_visit(log)
    if no_visit:
        log.reasons["visit"] = f"{_GIVEN}: all rows of one customer with one time are a visit"
    if lookup_table is not None and looks_up_action:
        action = _choose_looked_up(log, lookup_table, join, action_given)
    else:
        action = fixed.get("action") or log.require("action", "the class to predict", product_hint)
    return Choices(Roles(customer, time, action, visit), form, join, log.reasons, looks_up_action)


def _choose_time(
    log: _Log, given: tuple[str, ...] | None, time_format: str | None
) -> tuple[tuple[str, ...], TimeFormat]:
    names = given
    if names is None:
        names = _add_gaps(log, _find_time(log), time_format)
    if time_format is None and len(names) == 2 and is_order_name(names[0]) and is_gap_name(names[1]):
        time_format = "gaps"
    if time_format == "gaps" and len(names) != 2:
        raise SchemaError(
            "the time format gaps needs two columns: a number in order, and the days since the one before",
            hint="name both, for example --time order_number,days_since_prior_order",
        )
    values = _joined(log, names, n_required=1 if time_format == "gaps" else len(names))
    shown = " + ".join(show_samples(log.find(name)) for name in names)
    if not values:
        raise SchemaError(f"the time column {shown} has no values in the sample", hint="name another with --time")
    if time_format is not None:
        form = check_time_format(time_format, values)
    else:
        try:
            found = find_time_format(values)
        except AmbiguousTimeError as error:
            raise AmbiguousTimeError(f"{' + '.join(names)}: {error.message}", hint=error.hint) from error
        if found is None and len(names) == 1 and is_order_name(names[0]) and _are_integers(values):
            found = TimeFormat("order")
        if found is None:
            numbers = "; --time-format order if its numbers only order the visits" if _are_integers(values) else ""
            raise SchemaError(
                f"the values of the time column {shown} are not times in a form that is read",
                hint=f"name another column with --time{numbers}",
            )
        form = found
    if given is None and not form.has_clock and form.kind != "order":
        names, form = _add_time_of_day(log, names, form)
    log.reasons["time"] += f"; read as {describe_time_format(form)}"
    return names, form


def _find_time(log: _Log) -> tuple[str, ...]:
    ranked = rank_candidates("time", [column for column in log.columns if column.name not in log.taken])
    if ranked and ranked[0].score >= 4.0:
        return log.require("time", "when")
    for column in log.columns:
        if (
            column.name not in log.taken
            and is_order_name(column.name)
            and _are_integers([v for v in column.values if v])
        ):
            log.taken.append(column.name)
            log.reasons["time"] = "no column holds times, and this one orders the visits"
            return (column.name,)
    if parts := _find_parts(log):
        return parts
    return log.require(
        "time", "when", "name it: --time COLUMN; if numbers only order the visits, add --time-format order"
    )


def _add_gaps(log: _Log, names: tuple[str, ...], time_format: str | None) -> tuple[str, ...]:
    """Join a number that orders the visits with the one column of days between them, if there is exactly one."""
    if not is_order_name(names[0]) or time_format not in (None, "gaps"):
        return names
    gaps = [
        column.name
        for column in log.columns
        if column.name not in log.taken
        and is_gap_name(column.name)
        and _are_integers([value for value in column.values if value and value not in _NO_VALUE])
    ]
    if len(gaps) != 1:
        return names
    log.taken.append(gaps[0])
    log.reasons["time"] += f"; {gaps[0]} holds the days in between"
    return (*names, gaps[0])


def _find_parts(log: _Log) -> tuple[str, ...] | None:
    """Columns that hold year, month and day, and perhaps the time of day, each in one column."""
    found: list[str] = []
    for words in _PART_WORDS:
        fitting = [
            column.name
            for column in log.columns
            if column.name not in log.taken
            and words.intersection(split_words(column.name))
            and _are_integers([value for value in column.values if value])
        ]
        if len(fitting) == 1 and fitting[0] not in found:
            found.append(fitting[0])
        elif len(found) < 3:
            return None
        else:
            break
    for n in range(len(found), 2, -1):
        try:
            form = find_time_format(_joined(log, found[:n]))
        except AmbiguousTimeError:
            continue
        if form is not None and form.kind == "ymd":
            log.taken += found[:n]
            log.reasons["time"] = "its columns are the parts of a time"
            return tuple(found[:n])
    return None


def _add_time_of_day(log: _Log, names: tuple[str, ...], form: TimeFormat) -> tuple[tuple[str, ...], TimeFormat]:
    """Join a date with the one column that holds times of day, if there is exactly one."""
    clocks = []
    for column in log.columns:
        filled = [value for value in column.values if value]
        if column.name in log.taken or not filled:
            continue
        if sum(map(is_time_of_day, filled)) > 0.8 * len(filled) or (
            _CLOCK_WORDS.intersection(split_words(column.name)) and _are_integers(filled)
        ):
            clocks.append(column.name)
    if len(clocks) != 1:
        return names, form
    joined = (*names, clocks[0])
    with_clock = find_time_format(_joined(log, joined))
    if with_clock is None or with_clock.kind != form.kind or not with_clock.has_clock:
        return names, form
    log.taken.append(clocks[0])
    log.reasons["time"] += f"; {clocks[0]} holds its times of day"
    return joined, with_clock


def _choose_visit(log: _Log) -> tuple[str, ...] | None:
    chosen = choose_role("visit", log.columns, taken=log.taken)
    if chosen is None:
        log.reasons["visit"] = (
            "no column looks like a basket or session: all rows of one customer with one time are a visit"
        )
        return None
    log.taken.append(chosen.name)
    log.reasons["visit"] = chosen.reason
    return (chosen.name,)


def _has_no_action(log: _Log, table: TableSample, given: str | Sequence[str] | None) -> bool:
    """Whether the action is not to be looked up in a table from which other columns are wanted."""
    if given is not None:
        return not set(_split_names(given, table.names)) <= set(table.names)
    return not any(name_score("action", name)[0] >= MIN_SCORE for name in table.names)


def _choose_join(log: _Log, table: TableSample, on: str | None, looks_up_action: bool) -> str:
    """The key column; that of a table of customers, say, may have a role too."""
    if on is not None:
        name = log.find(on).name
        if on not in table.names:
            raise missing_column(f"the lookup table {table.path}", on, table.names)
        if looks_up_action:
            log.taken.append(name)
        return name
    taken = log.taken if looks_up_action else ()
    shared = [column.name for column in log.columns if column.name in table.names and column.name not in taken]
    if len(shared) != 1:
        found = f"share {', '.join(shared)}" if shared else "share no column"
        flags = " or ".join(f"--on {name}" for name in shared) or "--on COLUMN, after giving both the same name"
        raise SchemaError(f"the logs and the lookup table {table.path} {found}", hint=f"add {flags}")
    if looks_up_action:
        log.taken.append(shared[0])
    return shared[0]


def _choose_looked_up(
    log: _Log, table: TableSample, join: str | None, given: str | Sequence[str] | None
) -> tuple[str, ...]:
    if given is not None:
        names = _split_names(given, table.names)
        for name in names:
            if name not in table.names:
                raise missing_column(f"the lookup table {table.path}", name, table.names)
        log.reasons["action"] = f"{_GIVEN}: looked up in {table.path.name} by {join}"
        return names
    columns = [
        ColumnSample(name, tuple(row[i] for row in table.rows)) for i, name in enumerate(table.names) if name != join
    ]
    own = _Log(columns, f"the lookup table {table.path}", log.nulls, [], {})
    names = own.require("action", "the class to predict")
    log.reasons["action"] = f"{own.reasons['action']}; looked up in {table.path.name} by {join}"
    return names


def _joined(log: _Log, names: Sequence[str], n_required: int | None = None) -> list[str]:
    """The values of the time, several columns joined by a space, of the rows where all that are required have one."""
    parts = [log.find(name).values for name in names]
    literals = _NO_VALUE.union(*(log.nulls.get(name, ()) for name in (*names, "time")))
    if len(parts) == 1:
        return [value for value in parts[0] if value and value not in literals]
    rows = zip(*parts, strict=True)
    filled = [[part if part.strip() and part not in literals else "" for part in row] for row in rows]
    return [" ".join(row) for row in filled if all(row[:n_required])]


def _split_names(given: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(given, str):
        return tuple(given)
    return (given,) if given in known else tuple(name.strip() for name in given.split(",") if name.strip())


def _are_integers(values: Sequence[str]) -> bool:
    """Whether most are integers, perhaps with the decimals of zeros that gaps in a table make of them."""
    fitting = [value for value in values if re.fullmatch(r"-?\d+(?:[.,]0+)?", value)]
    return bool(values) and len(fitting) >= 0.8 * len(values)
