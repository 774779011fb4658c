"""Which texts mean "no value" in which column: never guessed where the text may be a real value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from luckyfast.errors import SchemaError
from luckyfast.ingestion.choosing import Choices
from luckyfast.ingestion.roles import ColumnSample

__all__ = ["NULL_WORDS", "find_nulls", "parse_nulls", "prove_nulls"]

NULL_WORDS = frozenset(
    ("NULL", "null", "Null", "NA", "N/A", "n/a", "NaN", "nan", "None", "none", "NaT", "\\N", "?", "-")
)
_UNMISTAKABLE = frozenset(("\\N",))
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_ROLES = ("customer", "time", "action", "visit")


def parse_nulls(
    null: str | Sequence[str] | Mapping[str, Sequence[str]] | None, *, known: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Read `--null COLUMN=LITERAL`, where a role's name may stand for its columns.

    Args:
        null: one or several such texts, or a mapping from column or role to literals.
        known: all column names.

    Returns:
        Literals by column or role.

    Raises:
        SchemaError: not of this form, or no such column.

    Example:
        >>> parse_nulls(["age=NA", "age=?"], known=["age", "day"])
        {'age': ('NA', '?')}
    """
    if null is None:
        return {}
    pairs: list[tuple[str, str]] = []
    if isinstance(null, Mapping):
        # no literals at all are an answer too
        pairs = [(name, literal) for name, literals in null.items() for literal in (*literals, "")]
    else:
        for text in [null] if isinstance(null, str) else null:
            name, equals, literal = text.partition("=")
            if not equals or not name:
                raise SchemaError(f"--null is COLUMN=LITERAL, not {text!r}", hint="for example --null customer_id=NA")
            pairs.append((name, literal))
    columns = set(known)
    found: dict[str, tuple[str, ...]] = {}
    for name, literal in pairs:
        if name not in columns and name not in _ROLES:
            raise SchemaError(
                f"--null names a column {name!r} that no file has", hint=f"known: {', '.join(sorted(columns))}"
            )
        found[name] = (*found.get(name, ()), literal)
    return found


def find_nulls(
    choices: Choices, samples: Sequence[ColumnSample], given: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[bytes, ...]], dict[str, str]]:
    """The literals that mean "no value" for each role: those given, or else those that the column proves.

    A word such as NULL or NA proves nothing by itself: it means "no value" in a column of times, and where at least
    95 % of the other values are numbers. Literals given for a column or a role replace what would be found there.

    Args:
        choices: the columns of each role.
        samples: the sampled columns.
        given: literals by column or role, from the user.

    Returns:
        Literals by role, each without the empty text, which is always "no value"; and by role what to say of the
        words that the sample has.
    """
    by_name = {sample.name: sample for sample in samples}
    in_files = {
        "customer": choices.roles.customer,
        "time": choices.roles.time,
        "action": (choices.on,) if choices.on is not None and choices.looks_up_action else choices.roles.action,
        "visit": choices.roles.visit or (),
    }
    nulls: dict[str, tuple[bytes, ...]] = {}
    notes: dict[str, str] = {}
    for role, names in in_files.items():
        # with a lookup, literals of the role "action" speak of the table's values and not of the keys
        own = None if role == "action" and names == (choices.on,) else given.get(role)
        literals: dict[str, None] = dict.fromkeys(own or ())
        for name in names:
            if name in given or own is not None:
                literals |= dict.fromkeys(given.get(name, ()))
                continue
            found, note = prove_nulls(role, name, by_name[name].values)
            literals |= dict.fromkeys(found)
            notes |= {role: note} if note else {}
        nulls[role] = tuple(text.encode() for text in literals if text)
    return nulls, notes


def prove_nulls(role: str, name: str, values: Sequence[str]) -> tuple[list[str], str]:
    """The literals that a column proves to mean "no value", and what to say of the words that it has."""
    filled = {value: n for value, n in Counter(values).items() if value.strip()}
    seen = sorted(NULL_WORDS.intersection(filled))
    shown = ", ".join(seen)
    others = {value: n for value, n in filled.items() if value not in NULL_WORDS}
    n_numbers = sum(n for value, n in others.items() if _NUMBER.fullmatch(value))
    if role == "time":
        return sorted(NULL_WORDS), f"{shown} means no value" if seen else ""
    if others and n_numbers >= 0.95 * sum(others.values()):
        return sorted(NULL_WORDS), f"{shown} means no value, since the others are numbers" if seen else ""
    kept = [word for word in seen if word not in _UNMISTAKABLE]
    note = f"{', '.join(kept)} is kept as a value; --null {name}={kept[0]} if it means none" if kept else ""
    return sorted(_UNMISTAKABLE), note
