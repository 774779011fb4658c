"""From the user's arguments to an `IngestPlan`: samples are read, everything is decided, nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luckyfast.config import available_cores, available_memory, parse_size
from luckyfast.errors import InputError, OutputExistsError, SchemaError
from luckyfast.ingestion.choosing import Choices, choose_roles
from luckyfast.ingestion.dialect import parse_delimiter, parse_quote
from luckyfast.ingestion.encodings import parse_encoding
from luckyfast.ingestion.features import choose_features, looked_up_features, split_features
from luckyfast.ingestion.filenames import FILENAME, read_filenames
from luckyfast.ingestion.format import read_manifest
from luckyfast.ingestion.layout import (
    RawTable,
    column_index,
    describe_differences,
    describe_encodings,
    main_tables,
    missing_column,
    pool_columns,
    read_tables,
)
from luckyfast.ingestion.lookup import read_lookup, sample_table
from luckyfast.ingestion.nulls import find_nulls, parse_nulls
from luckyfast.ingestion.plan import Feature, FilePlan, IngestPlan, Lookup, Rules
from luckyfast.ingestion.roles import ColumnSample, name_score
from luckyfast.ingestion.rules import make_rules
from luckyfast.ingestion.schema import read_schema
from luckyfast.ingestion.sources import find_sources

__all__ = ["make_plan"]

_RULES = ("where", "since", "until", "drop_duplicates", "min_visits", "top_actions")
_ARGUMENTS = (
    "lookup",
    "on",
    "delimiter",
    "quote",
    "encoding",
    "columns",
    "filename_pattern",
    "null",
    "feature",
    *_RULES,
)


def make_plan(
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    customer: str | Sequence[str] | None = None,
    time: str | Sequence[str] | None = None,
    action: str | Sequence[str] | None = None,
    visit: str | Sequence[str] | None = None,
    lookup: str | Path | None = None,
    on: str | None = None,
    feature: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
    columns: str | Sequence[str] | None = None,
    filename_pattern: str | None = None,
    null: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    time_format: str | None = None,
    memory: str | int | None = None,
    workers: int | None = None,
    temp: str | Path | None = None,
    max_reject: float = 0.05,
    schema: str | Path | None = None,
    where: str | Sequence[str] | None = None,
    since: str | int | None = None,
    until: str | int | None = None,
    drop_duplicates: bool | None = None,
    min_visits: int | None = None,
    top_actions: int | None = None,
    append: bool = False,
    resume: bool = False,
) -> IngestPlan:
    """Decide how raw logs will be read, from samples of them.

    The arguments are those of `luckyfast.ingest`, which see; an argument given here wins over the same in `schema`.

    Returns:
        The plan; `plan.reasons` says why each role's columns were taken.

    Raises:
        InputError: a file is missing, unreadable, or no delimited text, or there are no data rows.
        SchemaError: roles, times or arguments that do not fit or cannot be told apart.
        OutputExistsError: `out` exists.
        BudgetError: `memory` is no size.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "client;date;rayon;ticket\\n7;2024-05-01;FROMAGE;1\\n7;2024-05-02;PAIN;2\\n"
        >>> _ = (folder / "log.csv").write_text(rows)
        >>> make_plan(folder / "log.csv", folder / "out").roles
        Roles(customer=('client',), time=('date',), action=('rayon',), visit=('ticket',))
    """
    given: dict[str, Any] = {
        "customer": customer,
        "time": time,
        "action": action,
        "visit": visit,
        "lookup": lookup,
        "on": on,
        "feature": feature,
        "delimiter": delimiter,
        "quote": quote,
        "encoding": encoding,
        "columns": columns,
        "filename_pattern": filename_pattern,
        "null": null,
        "time_format": time_format,
        "where": where,
        "since": since,
        "until": until,
        "drop_duplicates": drop_duplicates,
        "min_visits": min_visits,
        "top_actions": top_actions,
    }
    out_path = Path(out)
    if append and out_path.is_symlink():
        out_path = out_path.resolve()  # it is the dataset that is replaced, and not the link to it
    _check_places(out_path, temp, append=append, resume=resume)
    if append:
        if asked := [name for name in ("schema", *_RULES) if {**given, "schema": schema}[name] is not None]:
            flag = asked[0].replace("_", "-")
            raise SchemaError(
                f"--{flag} cannot go with --append: rows are added as those of {out_path} were read",
                hint=f"leave --{flag} out",
            )
        schema = out_path / "schema.toml"
    if schema is not None:
        known_form = read_schema(schema)
        given = known_form | {name: value for name, value in given.items() if value is not None}
        given = dict.fromkeys(_ARGUMENTS) | given
    if not 0.0 <= max_reject <= 1.0:
        raise SchemaError(f"--max-reject is a share between 0 and 1, not {max_reject}", hint="0.05 is 5 %")
    if workers is not None and workers < 1:
        raise SchemaError(f"--workers is at least 1, not {workers}", hint="leave it out to use all cores")
    memory_bytes = available_memory() // 2 if memory is None else parse_size(memory)
    if given["on"] is not None and given["lookup"] is None:
        raise SchemaError("--on needs a lookup table", hint="add --lookup FILE")

    table_path = Path(given["lookup"]).expanduser() if given["lookup"] is not None else None
    lookup_table = sample_table(table_path) if table_path is not None else None
    raw_paths = [raw] if isinstance(raw, str | Path) else list(raw)
    sources = find_sources(raw_paths, exclude=[table_path] if table_path is not None else [])
    tables = read_tables(
        sources,
        delimiter=parse_delimiter(given["delimiter"]) if given["delimiter"] is not None else None,
        quote=parse_quote(given["quote"]) if given["quote"] is not None else "detect",
        encoding=parse_encoding(given["encoding"]) if given["encoding"] is not None else None,
        unless_utf8=append and encoding is None,
        columns=_names(given["columns"]),
    )
    tables = _add_filenames(tables, given)
    main = main_tables(tables)
    samples = pool_columns(main)
    if not samples[0].values:
        names = ", ".join(table.source.label for table in main[:3])
        raise InputError(
            f"no row of {names} has as many fields as its header ({len(samples)})",
            hint="check --delimiter and --quote, or mend the header",
        )
    known = [name for table in tables for name in table.dialect.header]
    user_nulls = parse_nulls(given["null"], known=[*known, *(lookup_table.names if lookup_table else ())])
    product_hint = None if lookup_table else _product_table_hint(tables, main)
    columns_known = [*(sample.name for sample in samples), *(lookup_table.names if lookup_table else ())]
    wanted = split_features(given["feature"], columns_known)
    looked_up = looked_up_features(wanted, samples, lookup_table)
    choices = choose_roles(
        samples,
        where=main[0].source.label,
        given={role: given.get(role) for role in ("customer", "time", "action", "visit")},
        time_format=given.get("time_format"),
        nulls=user_nulls,
        lookup_table=lookup_table,
        on=given["on"],
        product_hint=product_hint,
        looks_up_features=bool(looked_up),
    )
    features, feature_reasons = choose_features(
        wanted,
        samples,
        where=main[0].source.label,
        roles=choices.roles,
        nulls=user_nulls,
        table=lookup_table,
        on=choices.on,
    )
    choices.reasons.update({f"feature {name}": reason for name, reason in feature_reasons.items()})
    notes = {"files": describe_differences(tables), "encoding": describe_encodings(tables)}
    choices.reasons.update({about: note for about, note in notes.items() if note})
    nulls, said = find_nulls(choices, samples, user_nulls)
    choices.reasons.update({role: f"{choices.reasons.get(role, '')}; {note}" for role, note in said.items()})
    if choices.time_format.kind == "gaps" and (given["since"] is not None or given["until"] is not None):
        number = choices.roles.time[0]
        raise SchemaError(
            "--since and --until need times, and this log only has the days between visits",
            hint=f"name visits by number, for example --where '{number} >= 2'",
        )
    rules = make_rules(
        where=given["where"],
        since=given["since"],
        until=given["until"],
        drop_duplicates=bool(given["drop_duplicates"]),
        min_visits=1 if given["min_visits"] is None else given["min_visits"],
        top_actions=given["top_actions"],
        time_kind="order" if choices.time_format.kind == "order" else "clock",
    )
    files = tuple(_plan_file(table, choices, rules, features, main[0], product_hint) for table in tables)
    joined = None
    if lookup_table is not None and choices.on is not None:
        literals = [text.encode() for name in (*choices.roles.action, "action") for text in user_nulls.get(name, ())]
        joined = read_lookup(
            lookup_table,
            on=choices.on,
            action=choices.roles.action if choices.looks_up_action else (),
            nulls=literals,
            features=[own for own in features if own.looked_up],
        )
        _check_keys(joined, next(sample for sample in samples if sample.name == choices.on))
    return IngestPlan(
        files=files,
        roles=choices.roles,
        time_format=choices.time_format,
        nulls=nulls,
        lookup=joined,
        max_reject=max_reject,
        memory_bytes=memory_bytes,
        n_workers=workers or available_cores(),
        temp=Path(temp) if temp is not None else None,
        out=out_path,
        reasons=choices.reasons,
        filename_pattern=given["filename_pattern"],
        rules=rules,
        features=features,
        append=append,
        resume=resume,
    )


def _check_places(out: Path, temp: str | Path | None, *, append: bool, resume: bool) -> None:
    if append:
        read_manifest(out)
    elif not resume and (out.exists() or out.is_symlink()):
        raise OutputExistsError(f"the output {out} exists already", hint="choose another folder, or remove this one")
    parent = next((place for place in out.parents if place.exists()), None)
    if parent is not None and not parent.is_dir():
        raise InputError(f"cannot create {out}: {parent} is no folder", hint="choose another output folder")
    if temp is not None and not Path(temp).is_dir():
        raise InputError(f"no such folder for temporary files: {temp}", hint="create it, or leave --temp out")


def _names(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


def _plan_file(
    table: RawTable,
    choices: Choices,
    rules: Rules,
    features: Sequence[Feature],
    main: RawTable,
    product_hint: str | None,
) -> FilePlan:
    header = list(table.dialect.header)

    def places(names: Sequence[str]) -> tuple[int, ...]:
        found = []
        for name in names:
            if name == FILENAME and table.filename is not None:
                found.append(-1)
                continue
            index = column_index(table, name)
            if index is None and table.source.form == "json":
                # no sample shows all the keys of a file: a path that others have may come later
                index = len(header)
                header.append(name)
            if index is None:
                hint = product_hint
                if hint is None and set(table.dialect.header).isdisjoint(main.dialect.header):
                    hint = "its columns are not those of the other files: leave it out, or give it as --lookup"
                raise missing_column(table.source.label, name, table.dialect.header, hint=hint)
            found.append(index)
        return tuple(found)

    roles = choices.roles
    file = FilePlan(
        source=table.source,
        dialect=table.dialect,
        customer=places(roles.customer),
        time=places(roles.time),
        action=places((choices.on,) if choices.on is not None and choices.looks_up_action else roles.action),
        visit=None if roles.visit is None else places(roles.visit),
        constants=() if table.filename is None else (table.filename.encode(),),
        # whether rows are equal is seen in all of their columns
        whole=rules.drop_duplicates and table.source.is_columnar,
        where=places([condition.column for _, conditions in rules.where for condition in conditions]),
        features=places([choices.on or "" if own.looked_up else own.name for own in features]),
    )
    return replace(file, dialect=replace(table.dialect, header=tuple(header)))


def _add_filenames(tables: list[RawTable], given: Mapping[str, Any]) -> list[RawTable]:
    """Let the file's name be a column, where the user gave it a role."""
    pattern = given["filename_pattern"]
    roles = [given.get(role) for role in ("customer", "time", "action", "visit")]
    asked = any(FILENAME in (role.split(",") if isinstance(role, str) else role) for role in roles if role)
    if pattern is not None and not asked:
        raise SchemaError("--filename-pattern has no use without a role", hint="add --customer filename, for example")
    if not asked or (pattern is None and any(FILENAME in table.dialect.header for table in tables)):
        return tables
    values = read_filenames([table.source for table in tables], pattern)
    return [replace(table, filename=value) for table, value in zip(tables, values, strict=True)]


def _product_table_hint(tables: Sequence[RawTable], main: Sequence[RawTable]) -> str | None:
    """What to add when one of the files is not a log but a table with one row per product."""
    for table in tables:
        if table in main or not table.rows:
            continue
        header = table.dialect.header
        actions = [name for name in header if name_score("action", name)[0] >= 4]
        for i, name in enumerate(header):
            keys = [row[i] for row in table.rows if row[i]]
            if column_index(main[0], name) is not None and keys and len(set(keys)) == len(keys):
                best = max(actions, key=lambda own: name_score("action", own)[0], default="COLUMN")
                return (
                    f"{table.source.path.name} looks like a product table: "
                    f"add --lookup {table.source.path} --on {name} --action {best}"
                )
    return None


def _check_keys(lookup: Lookup, column: ColumnSample) -> None:
    """Stop when not one sampled key is in the table: the wrong column, or keys that are written otherwise."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = [value.encode() for value in dict.fromkeys(column.values) if value]
    table = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), lookup.n_rows, [None, pa.py_buffer(lookup.key_start), pa.py_buffer(lookup.key_bytes)]
    )
    if keys and not pc.any(pc.is_in(pa.array(keys, pa.large_binary()), value_set=table)).as_py():
        first = lookup.key_bytes[: lookup.key_start[1]].tobytes()
        raise SchemaError(
            f"no sampled {lookup.on} of the logs is in {lookup.path}: the logs have {keys[0].decode()!r}, "
            f"the table has {first.decode()!r}",
            hint="check --on and --lookup: both must write the key in the same way",
        )
