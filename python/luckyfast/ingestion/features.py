"""Side columns that are kept beside the events: which, of what kind, and what means "no value" in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from luckyfast.errors import SchemaError
from luckyfast.ingestion.layout import missing_column
from luckyfast.ingestion.lookup import TableSample
from luckyfast.ingestion.nulls import NULL_WORDS, prove_nulls
from luckyfast.ingestion.plan import Feature, FeatureKind, Roles
from luckyfast.ingestion.roles import ColumnSample, split_words

__all__ = ["choose_features", "format_feature", "looked_up_features", "split_features"]

_NUMBER = re.compile(r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d{1,4})?")
_ZEROS_FIRST = re.compile(r"0\d+")
_INTEGER = re.compile(r"[-+]?\d+(?:[.,]0+)?")
_CODES = """
    id code key uid sku ean upc zip postal postcode cp insee type kind class classe group groupe segment cluster region
    zone area district departement department status statut state category categorie level tier sex sexe gender store
    shop magasin channel canal country pays city ville campaign brand marque
"""
_CODE_WORDS = frozenset(_CODES.split())


def split_features(asked: str | Sequence[str] | None, known: Sequence[str]) -> list[tuple[str, FeatureKind | None]]:
    """Read `COLUMN` or `COLUMN:KIND` as column and kind.

    Args:
        asked: such texts, or one in which they are joined by commas.
        known: the columns that there are; a text that is one is not cut.

    Raises:
        SchemaError: there is no such kind.

    Example:
        >>> split_features("price,store_id:category", ["price", "store_id"])
        [('price', None), ('store_id', 'category')]
    """
    if asked is None:
        return []
    texts = asked.split(",") if isinstance(asked, str) else list(asked)
    found: list[tuple[str, FeatureKind | None]] = []
    for text in (text.strip() for text in texts):
        name, colon, kind = text.rpartition(":")
        if not text or text in known or not colon:
            found += [(text, None)] if text else []
            continue
        own: FeatureKind | None = next((one for one in get_args(FeatureKind) if one == kind), None)
        if own is None:
            raise SchemaError(
                f"--feature {text}: there is no kind {kind!r}",
                hint=f"a column is a {' or a '.join(get_args(FeatureKind))}: --feature {name}:category",
            )
        found.append((name.strip(), own))
    return found


def format_feature(feature: Feature) -> str:
    """A feature as `split_features` reads it.

    Example:
        >>> format_feature(Feature("price", "number"))
        'price:number'
    """
    return f"{feature.name}:{feature.kind}"


def looked_up_features(
    asked: Sequence[tuple[str, FeatureKind | None]], columns: Sequence[ColumnSample], table: TableSample | None
) -> list[str]:
    """Those of the columns that are not in the log but in the lookup table."""
    own = {column.name.casefold() for column in columns}
    return [name for name, _ in asked if table is not None and name.casefold() not in own and name in table.names]


def choose_features(
    asked: Sequence[tuple[str, FeatureKind | None]],
    columns: Sequence[ColumnSample],
    *,
    where: str,
    roles: Roles,
    nulls: Mapping[str, Sequence[str]],
    table: TableSample | None,
    on: str | None,
) -> tuple[tuple[Feature, ...], dict[str, str]]:
    """Decide what the columns are that the user wants to keep.

    Args:
        asked: from `split_features`.
        columns: the sampled columns of the logs.
        where: the file to name in messages.
        roles: what the columns are taken for.
        nulls: texts that mean "no value", by column.
        table: the lookup table, if there is one.
        on: its key column.

    Returns:
        The features, and by name why each is of its kind.

    Raises:
        SchemaError: a column is missing, has a role already, or is named twice.
    """
    of_table = set(looked_up_features(asked, columns, table))
    in_log = {role: getattr(roles, role) or () for role in ("customer", "time", "action", "visit")}
    in_table: tuple[str, ...] = ()
    if table is not None and on is not None and set(roles.action) <= set(table.names):
        in_table, in_log["action"] = (*roles.action, on), ()
    features: list[Feature] = []
    reasons: dict[str, str] = {}
    for asked_name, kind in asked:
        looked_up = asked_name in of_table
        name, values = _find(asked_name, columns, where, table if looked_up else None, in_other=table)
        taken = {role for role, names in in_log.items() if name in names and not looked_up}
        if taken or (looked_up and name in in_table):
            role = min(taken, default="action")
            raise SchemaError(f"--feature {name}: that column is the {role} already", hint="leave it out")
        if name in reasons:
            raise SchemaError(f"--feature names {name} twice", hint="name it once")
        literals = tuple(nulls[name]) if name in nulls else ()
        own, why = (kind, "as you said") if kind is not None else _tell_kind(name, values, literals)
        if name not in nulls:
            literals = tuple(sorted(NULL_WORDS) if own == "number" else prove_nulls("feature", name, values)[0])
        features.append(Feature(name, own, tuple(text.encode() for text in literals if text), looked_up))
        assert table is not None or not looked_up
        reasons[name] = f"{why}; looked up in {table.path.name} by {on}" if looked_up and table is not None else why
    return tuple(features), reasons


def _find(
    name: str, columns: Sequence[ColumnSample], where: str, table: TableSample | None, in_other: TableSample | None
) -> tuple[str, list[str]]:
    """The name of a column in its own spelling, and its sampled values."""
    if table is not None:
        place = table.names.index(name)
        return name, [row[place] for row in table.rows]
    exact = [column for column in columns if column.name == name]
    alike = exact or [column for column in columns if column.name.casefold() == name.casefold()]
    if len(alike) != 1:
        names = [column.name for column in columns]
        raise missing_column(where, name, [*names, *(in_other.names if in_other is not None else ())])
    return alike[0].name, list(alike[0].values)


def _tell_kind(name: str, values: Sequence[str], nulls: Sequence[str]) -> tuple[FeatureKind, str]:
    """Whether a column holds numbers or categories, and why."""
    counts = Counter(value.strip() for value in values if value.strip() and value not in nulls)
    for word in NULL_WORDS:
        counts.pop(word, None)
    n = counts.total()
    if n == 0:
        return "category", "its sample is empty"
    n_numbers = sum(times for value, times in counts.items() if _NUMBER.fullmatch(value))
    if n_numbers < 0.95 * n:
        return "category", f"{len(counts):,} different texts in {n:,} sampled values"
    if any(_ZEROS_FIRST.fullmatch(value) for value in counts):
        return "category", "its numbers begin with zeros, as codes do"
    codes = sorted(_CODE_WORDS.intersection(split_words(name)))
    if codes and all(_INTEGER.fullmatch(value) for value in counts):
        return "category", f'"{codes[0]}" in its name: whole numbers that are codes; --feature {name}:number if not'
    return "number", f"{n_numbers / n:.0%} of the sampled values are numbers"
