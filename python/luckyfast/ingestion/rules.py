"""Cleaning that the user asks for, as rules: read from text, given to the kernel, counted one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from luckyfast.errors import SchemaError
from luckyfast.ingestion.plan import Condition, Operator, Rules
from luckyfast.moments import format_moment, parse_moment

__all__ = ["describe_filters", "kernel_conditions", "make_rules", "parse_where"]

_MOST_DIGITS = 18
_OPERATORS: dict[str, Operator] = {
    "<=": "<=",
    ">=": ">=",
    "!=": "!=",
    "<>": "!=",
    "==": "=",
    "=": "=",
    "<": "<",
    ">": ">",
}
_ORDER: tuple[Operator, ...] = ("<", "<=", "=", "!=", ">=", ">")
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)|(?P<operator><=|>=|!=|<>|==|=|<|>)|(?P<word>[^\s<>=!'"`]+))"""
)


def parse_where(text: str) -> tuple[Condition, ...]:
    """Read comparisons of a column with a number or a text, joined by `and`.

    A name or a text that holds blanks, operators or the word `and` stands in quotes. What follows the operator is a
    number if it looks like one and has no quotes. Texts are compared by their UTF-8 bytes.

    Args:
        text: such as ``quantity > 0 and store != 'online shop'``; the operators are < <= = != >= >.

    Returns:
        The conditions in order.

    Raises:
        SchemaError: the text has another form.

    Example:
        >>> parse_where("quantity >= 0.5")
        (Condition(column='quantity', operator='>=', value=5, exponent=-1),)
        >>> [(rule.column, rule.value) for rule in parse_where("'net sales' != '' and store = north")]
        [('net sales', b''), ('store', b'north')]
    """
    tokens: list[tuple[str, str]] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise _not_a_rule(text)
        tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
        at = match.end()
    conditions: list[Condition] = []
    part: list[tuple[str, str]] = []
    for token in [*tokens, ("word", "and")]:
        if token[0] == "word" and token[1].lower() == "and":
            conditions.append(_condition(part, text))
            part = []
        else:
            part.append(token)
    return tuple(conditions)


def _condition(tokens: Sequence[tuple[str, str]], text: str) -> Condition:
    places = [i for i, (kind, _) in enumerate(tokens) if kind == "operator"]
    if len(places) != 1 or places[0] == 0 or places[0] == len(tokens) - 1:
        raise _not_a_rule(text)
    left, right = tokens[: places[0]], tokens[places[0] + 1 :]
    operator = _OPERATORS[tokens[places[0]][1]]
    value = _plain(right)
    if len(right) == 1 and right[0][0] == "word":
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            sign, digits, exponent = number.as_tuple()
            mantissa = int("".join(map(str, digits)))
            while mantissa and mantissa % 10 == 0:
                mantissa, exponent = mantissa // 10, int(exponent) + 1
            if mantissa >= 10**_MOST_DIGITS or abs(int(exponent)) > 9999:
                raise SchemaError(
                    f"--where compares numbers of up to {_MOST_DIGITS} digits, not {value}",
                    hint=f"compare it as text: put it in quotes, '{value}'",
                )
            return Condition(_plain(left), operator, -mantissa if sign else mantissa, int(exponent) if mantissa else 0)
    return Condition(_plain(left), operator, value.encode())


def _plain(tokens: Sequence[tuple[str, str]]) -> str:
    """The words as one text, without the quotes of a quoted one."""
    return " ".join(word[1:-1].replace(word[0] * 2, word[0]) if kind == "quoted" else word for kind, word in tokens)


def _not_a_rule(text: str) -> SchemaError:
    return SchemaError(
        f"--where {text!r} is no comparison of a column with a number or a text",
        hint="write it like --where 'quantity > 0' or --where \"store != 'online' and price < 100\"",
    )


def make_rules(
    *,
    where: str | Sequence[str] | None = None,
    since: str | int | None = None,
    until: str | int | None = None,
    drop_duplicates: bool = False,
    min_visits: int = 1,
    top_actions: int | None = None,
    time_kind: str = "clock",
) -> Rules:
    """Check what the user asked for.

    Args:
        where: as for `parse_where`; of several, each is counted by itself.
        since: the first moment that is kept.
        until: the first moment that is no longer kept.
        drop_duplicates: keep one of equal raw rows in a visit.
        min_visits: leave out customers with fewer visits.
        top_actions: how many actions keep their names.
        time_kind: "clock" or "order".

    Returns:
        The rules.

    Raises:
        SchemaError: a rule that cannot be read or that no row could meet.
        InputError: `since` or `until` is no moment.
    """
    texts = [where] if isinstance(where, str) else list(where or ())
    first = None if since is None else parse_moment(since, time_kind)
    stop = None if until is None else parse_moment(until, time_kind)
    if first is not None and stop is not None and first >= stop:
        raise SchemaError(f"--since {since} is not before --until {until}", hint="rows of --until itself are left out")
    for name, number in (("min-visits", min_visits), ("top-actions", top_actions)):
        if number is not None and number < 1:
            raise SchemaError(f"--{name} is at least 1, not {number}", hint="leave it out to keep everything")
    return Rules(
        tuple((text, parse_where(text)) for text in texts), first, stop, drop_duplicates, min_visits, top_actions
    )


def describe_filters(rules: Rules, time_kind: str) -> list[str]:
    """Names of the rules by which the parser leaves rows out, in the kernel's order: each `where`, since, until."""
    since, until = (
        f"{name} {format_moment(moment, time_kind)}" if moment is not None else name
        for name, moment in (("since", rules.since), ("until", rules.until))
    )
    return [*(f"where {text}" for text, _ in rules.where), since, until]


def kernel_conditions(rules: Rules, columns: Sequence[int]) -> tuple[Any, Any]:
    """The conditions as the parser's kernel takes them; `columns` has the place of each one's column.

    None stands for a run in which no rule looks at single rows.
    """
    rows: list[list[int]] = []
    texts = b""
    for i, (_, conditions) in enumerate(rules.where):
        for condition in conditions:
            number = isinstance(condition.value, int)
            place = [condition.value, condition.exponent] if number else [len(texts), len(condition.value)]  # type: ignore[arg-type]
            if isinstance(condition.value, bytes):
                texts += condition.value
            rows.append([i, columns[len(rows)], _ORDER.index(condition.operator), int(number), *place])  # type: ignore[list-item]
    looks_at_rows = bool(rows) or rules.since is not None or rules.until is not None or rules.drop_duplicates
    table = np.array(rows, np.int64).reshape(len(rows), 6) if looks_at_rows else None
    return table, np.frombuffer(texts + bytes(8), np.uint8).copy()
