"""Which texts mean "no value" in which column: never guessed where the text may be a real value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from luckyfast.errors import SchemaError
from luckyfast.ingestion.choosing import Choices
from luckyfast.ingestion.roles import ColumnSample

__all__ = ["find_nulls", "parse_nulls"]

NULL_WORDS = frozenset(
    ("NULL", "null", "Null", "NA", "N/A", "n/a", "NaN", "nan", "None", "none", "NaT", "\\N", "?", "-")
)
_UNMISTAKABLE = frozenset(("\\N",))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
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
        pairs = [(name, literal) for name, literals in null.items() for literal in literals]
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
) -> dict[str, tuple[bytes, ...]]:
    """The literals that mean "no value" for each role: those given, and those that the sample proves.

    A word such as NULL or NA proves nothing by itself: it counts in a column of times, or where at least 95 % of the
    other values are numbers.

    Args:
        choices: the columns of each role.
        samples: the sampled columns.
        given: literals by column or role, from the user.

    Returns:
        Literals by role, each without the empty text, which is always "no value".
    """
    by_name = {sample.name: sample for sample in samples}
    in_files = {
        "customer": choices.roles.customer,
        "time": choices.roles.time,
        "action": choices.roles.action if choices.on is None else (choices.on,),
        "visit": choices.roles.visit or (),
    }
    nulls: dict[str, tuple[bytes, ...]] = {}
    for role, names in in_files.items():
        # with a lookup, literals of the role "action" speak of the table's values and not of the keys
        own = () if role == "action" and choices.on is not None else given.get(role, ())
        literals = dict.fromkeys([*own, *(text for name in names for text in given.get(name, ()))])
        for name in names:
            literals |= dict.fromkeys(_proved(role, by_name[name].values))
        nulls[role] = tuple(text.encode() for text in literals if text)
    return nulls


def _proved(role: str, values: Sequence[str]) -> list[str]:
    filled = [value for value in values if value]
    words = sorted(NULL_WORDS.intersection(filled))
    others = [value for value in filled if value not in NULL_WORDS]
    n_numbers = sum(_NUMBER.fullmatch(value) is not None for value in others)
    if role == "time" or (others and n_numbers >= 0.95 * len(others)):
        return words
    return [word for word in words if word in _UNMISTAKABLE]
