"""schema.toml: what a run has inferred, in a form that can be read, mended and given back."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luckyfast.errors import SchemaError
from luckyfast.ingestion.features import format_feature, split_features
from luckyfast.ingestion.plan import IngestPlan, TimeFormat
from luckyfast.moments import format_moment

__all__ = ["format_schema", "read_schema", "time_format_name"]

_EPOCH_NAMES = {1_000_000: "epoch-s", 1000: "epoch-ms", 1: "epoch-us", 0: "epoch-ns"}
_ROLES = ("customer", "time", "action", "visit")
# section -> key -> (argument of `ingest`, type)
_KEYS: Mapping[str, Mapping[str, tuple[str, type]]] = {
    "roles": {role: (role, list) for role in _ROLES} | {"feature": ("feature", list)},
    "time": {"format": ("time_format", str)},
    "files": {
        "delimiter": ("delimiter", str),
        "quote": ("quote", str),
        "encoding": ("encoding", str),
        "columns": ("columns", list),
        "filename_pattern": ("filename_pattern", str),
    },
    "lookup": {"path": ("lookup", str), "on": ("on", str)},
    "rules": {
        "where": ("where", list),
        "since": ("since", str),
        "until": ("until", str),
        "drop_duplicates": ("drop_duplicates", bool),
        "min_visits": ("min_visits", int),
        "top_actions": ("top_actions", int),
    },
}
_KINDS = {list: "a list of strings", str: "a string", bool: "true or false", int: "a whole number"}


def format_schema(plan: IngestPlan) -> str:
    """Write what a plan has decided as TOML.

    Encoding, delimiter and quote are left out where the files differ, so that they are found again file by file.

    Args:
        plan: the plan of the run.

    Returns:
        The text of schema.toml.
    """
    roles = {role: list(getattr(plan.roles, role) or ["none"]) for role in _ROLES}
    if plan.features:
        roles["feature"] = [format_feature(feature) for feature in plan.features]
    dialects = [file.dialect for file in plan.files if file.source.form == "delimited"]
    files: dict[str, Any] = {}
    # what needs no decoding is found again, so that files of another encoding can be added later
    if {file.source.encoding for file in plan.files} == {plan.files[0].source.encoding} - {"utf-8"}:
        files["encoding"] = plan.files[0].source.encoding
    if len({dialect.delimiter for dialect in dialects}) == 1:
        files["delimiter"] = chr(dialects[0].delimiter)
    if len({dialect.quote for dialect in dialects}) == 1:
        quote = dialects[0].quote
        files["quote"] = "none" if quote is None else chr(quote)
    if dialects and not any(dialect.has_header for dialect in dialects):
        files["columns"] = list(dialects[0].header)
    if plan.filename_pattern is not None:
        files["filename_pattern"] = plan.filename_pattern
    sections: dict[str, dict[str, Any]] = {
        "roles": roles,
        "time": {"format": time_format_name(plan.time_format)},
        "files": files,
        "nulls": {role: [literal.decode() for literal in plan.nulls[role]] for role in _ROLES if role in plan.nulls}
        | {_toml_string(own.name): [literal.decode() for literal in own.nulls] for own in plan.features},
        "lookup": {"path": plan.lookup.path.as_posix(), "on": plan.lookup.on} if plan.lookup else {},
        "rules": _rules(plan),
    }
    lines = ["# What luckyfast ingest took the raw files to be. Mend it and give it back with --schema."]
    for section, values in sections.items():
        if values:
            lines += ["", f"[{section}]", *(f"{key} = {_toml_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _rules(plan: IngestPlan) -> dict[str, Any]:
    rules, kind = plan.rules, "order" if plan.time_format.kind == "order" else "clock"
    written: dict[str, Any] = {"where": [text for text, _ in rules.where]} if rules.where else {}
    written |= {
        name: format_moment(moment, kind, timespec="auto")
        for name, moment in (("since", rules.since), ("until", rules.until))
        if moment is not None
    }
    written |= {"drop_duplicates": True} if rules.drop_duplicates else {}
    written |= {"min_visits": rules.min_visits} if rules.min_visits > 1 else {}
    return written | ({"top_actions": rules.top_actions} if rules.top_actions is not None else {})


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read a schema.toml as arguments of `ingest`.

    Args:
        path: the file.

    Returns:
        Values by argument name: the roles, `time_format`, `delimiter`, `quote`, `encoding`, `columns`, `lookup`,
        `on`, the rules, and `null` as a mapping from role to literals; only what the file has.

    Raises:
        SchemaError: no such file, no TOML, an unknown key, or a value of the wrong type.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "schema.toml"
        >>> _ = path.write_text('[roles]\\ncustomer = ["client"]\\n[time]\\nformat = "dmy"\\n')
        >>> read_schema(path)
        {'customer': ['client'], 'time_format': 'dmy'}
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemaError(f"cannot read the schema {path}: {error.strerror}", hint="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(
            f"the schema {path} is no TOML: {error}", hint="mend it, or let ingest write it anew"
        ) from error
    arguments: dict[str, Any] = {}
    for section, values in content.items():
        known = _KEYS.get(section) if section != "nulls" else dict.fromkeys(_null_keys(content), ("null", list))
        if known is None or not isinstance(values, dict):
            raise SchemaError(
                f"the schema {path} has an unknown part {section!r}", hint=f"known: {', '.join(_KEYS)}, nulls"
            )
        for key, value in values.items():
            if key not in known:
                raise SchemaError(
                    f"the schema {path} has an unknown key {section}.{key}", hint=f"known: {', '.join(known)}"
                )
            argument, kind = known[key]
            if not isinstance(value, kind) or (
                isinstance(value, list) and not all(isinstance(item, str) for item in value)
            ):
                raise SchemaError(
                    f"{section}.{key} in the schema {path} must be {_KINDS[kind]}", hint=f"found {value!r}"
                )
            if section == "nulls":
                arguments.setdefault("null", {})[key] = value
            else:
                arguments[argument] = value
    return arguments


def _null_keys(content: Mapping[str, Any]) -> list[str]:
    """What literals can be given for: roles, and the columns of features."""
    roles = content.get("roles")
    asked = roles.get("feature") if isinstance(roles, dict) else None
    texts = [text for text in asked if isinstance(text, str)] if isinstance(asked, list) else []
    return [*_ROLES, *(name for name, _ in split_features(texts, ()))]


def time_format_name(form: TimeFormat) -> str:
    """The name of a form on the command line.

    Example:
        >>> time_format_name(TimeFormat("epoch", 1000)), time_format_name(TimeFormat("dmy"))
        ('epoch-ms', 'dmy')
    """
    return _EPOCH_NAMES[form.unit_us] if form.kind == "epoch" else form.kind


def _toml_value(value: str | int | Sequence[str]) -> str:
    if isinstance(value, int):
        return str(value).lower()
    if isinstance(value, str):
        return _toml_string(value)
    return "[" + ", ".join(_toml_string(item) for item in value) + "]"


def _toml_string(text: str) -> str:
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"'}.get(char, char if ord(char) >= 32 and ord(char) != 127 else f"\\u{ord(char):04x}")
        for char in text
    )
    return f'"{escaped}"'
