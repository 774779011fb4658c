"""What the commands around raw logs print: ingest, inspect and rejects."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import format_duration, format_size
from luckyfast.moments import DAY_US, format_moment
from luckyfast.terminal import plain_text, print_facts, print_table, say

if TYPE_CHECKING:
    from luckyfast.ingestion.mending import ExportedRejects, RejectList
    from luckyfast.ingestion.run import IngestSummary
    from luckyfast.inspection import DatasetInspection, RawColumn, RawInspection

__all__ = [
    "print_dataset_inspection",
    "print_exported_rejects",
    "print_ingest_summary",
    "print_raw_columns",
    "print_raw_inspection",
    "print_reject_list",
]

_N_ACTIONS = 5


def print_ingest_summary(summary: IngestSummary, *, as_json: bool) -> None:
    """Print what became of every row: roles with reasons, counts, rejects with examples, times, actions, cost."""
    if as_json:
        print(json.dumps(asdict(summary), indent=1, default=plain_text))
        return
    _print_roles(summary)
    print()
    _print_rows(summary)
    print()
    spilled = f", {summary.n_spilled_runs} runs spilled to disk" if summary.n_spilled_runs else ""
    speed = format_size(summary.bytes_read / max(summary.elapsed_s, 1e-9))
    facts = [
        *_describe_contents(summary.counts, _time_form(summary), summary.time_range, summary.top_actions),
        *_describe_long_visits(summary.visits_over_days, summary.counts["visits"]),
        *_describe_findings(summary.duplicates, summary.order_leak, summary.other_actions, summary.differences),
        *_describe_features(summary.features, summary.counts["events"]),
        *([("encoding", summary.encodings)] if summary.encodings else []),
        ("read", f"{format_size(summary.bytes_read)} in {format_duration(summary.elapsed_s)}, {speed}/s"),
        ("peak memory", format_size(summary.peak_rss_bytes) + spilled),
    ]
    print_facts(facts)
    say(f"dataset: {summary.path}")
    if summary.counts["rejected"]:
        say(f"rejected rows: luckyfast rejects {shlex.quote(str(summary.path))}")


def print_raw_inspection(found: RawInspection, *, as_json: bool) -> None:
    """Print what ingest would do: files and formats, roles with reasons, what became of the rows of the sample."""
    if as_json:
        print(json.dumps(asdict(found), indent=1, default=plain_text))
        return
    packed = ", ".join(f"{n} {name}" for name, n in found.compressions.items() if name != "none")
    facts = [("files", f"{found.n_files:,} with {format_size(found.n_bytes)}{f' ({packed})' if packed else ''}")]
    for n, dialect in found.dialects[:3]:
        facts.append(("format" if n == found.n_files else f"format of {n:,}", _describe_dialect(dialect)))
    if len(found.dialects) > 3:
        facts.append(("format", f"{len(found.dialects) - 3} more"))
    for role, texts in found.nulls.items():
        more = f" and {len(texts) - 6} more" if len(texts) > 6 else ""
        facts.append(("nulls", f"{role}: {', '.join(map(repr, texts[:6]))}{more}"))
    sample = found.sample
    rows = f"about {found.rows_estimated:,}" if found.rows_estimated is not None else "not known before it is unpacked"
    facts.append(("rows", rows))
    if found.differences:
        facts.append(("files differ", found.differences))
    print_facts(facts)
    print()
    _print_roles(sample)
    print()
    n_files = len(found.sampled_files)
    where = "all files" if n_files == found.n_files else f"{n_files} of {found.n_files:,} files"
    _print_rows(sample, f"Rows of a sample: {format_size(sample.bytes_read)} from the beginning of {where}")
    print()
    print_facts(
        [
            *_describe_contents(sample.counts, _time_form(sample), sample.time_range, sample.top_actions),
            *_describe_long_visits(sample.visits_over_days, sample.counts["visits"]),
            *_describe_findings(sample.duplicates, sample.order_leak, sample.other_actions, ""),
            *_describe_features(sample.features, sample.counts["events"]),
        ]
    )
    say("nothing was written; luckyfast ingest does it")


def print_raw_columns(columns: Sequence[RawColumn]) -> None:
    """Print what each column of a sample holds."""
    rows = [
        [column.name, f"{column.n_different:,}", f"{column.share_empty:.0%}", ", ".join(map(_shorten, column.examples))]
        for column in columns
    ]
    print_table("Columns", ["column", "different", "empty", "most frequent"], rows, text=(0, 3))


def print_dataset_inspection(found: DatasetInspection, *, as_json: bool) -> None:
    """Print what a dataset holds and what it was made of."""
    if as_json:
        print(json.dumps(asdict(found), indent=1, default=plain_text))
        return
    manifest = found.manifest
    counts, time = manifest["counts"], manifest["time"]
    print_table("Rows", ["", "rows", "share"], _account(counts, manifest), text=(0,))
    print()
    shards = _count(len(manifest["shards"]), "shard")
    roles = [f"{role} {' + '.join(columns)}" for role, columns in manifest["roles"].items() if columns]
    findings = _describe_findings(
        manifest.get("duplicates"), manifest["order_leak"], manifest.get("other_actions", {}), ""
    )
    facts = [
        *_describe_contents(
            counts, "days" if time.get("relative") else time["kind"], (time["min"], time["max"]), found.top_actions
        ),
        ("visits each", _describe_quantiles(found.visits_per_customer)),
        ("actions each", f"{_describe_quantiles(found.actions_per_visit)} per visit"),
        *_describe_long_visits(time.get("visits_over_days", 0), counts["visits"]),
        ("roles", ", ".join(roles)),
        *_describe_features(manifest.get("features", []), counts["events"]),
        *findings,
        ("made of", _describe_sources(manifest["sources"])),
        (
            "on disk",
            f"{format_size(found.n_bytes)}, {shards}, format {manifest['format_version']}",
        ),
    ]
    print_facts(facts)


def print_reject_list(found: RejectList, *, as_json: bool) -> None:
    """Print the rejects by reason, each with examples and their places."""
    if as_json:
        print(json.dumps(asdict(found), indent=1, default=plain_text))
        return
    if not found.by_reason:
        print(f"none of {found.rows_read:,} rows was rejected")
        return
    rows = []
    for reason, n in found.by_reason.items():
        places = [f"{Path(source).name}:{line}" for source, line, _, _ in found.examples[reason]]
        texts = [_excerpt(raw) for _, _, _, raw in found.examples[reason]]
        first = [reason, f"{n:,}", f"{n / max(found.rows_read, 1):.2%}"]
        for i, (place, text) in enumerate(zip(places, texts, strict=True)):
            rows.append([*(first if i == 0 else ["", "", ""]), place, text])
        if not places:
            rows.append([*first, "", ""])
    print_table("Rejected rows", ["reason", "rows", "share", "place", "row"], rows, text=(0, 3, 4))
    path = shlex.quote(str(found.path))
    say(f"to mend them: luckyfast rejects {path} --out mended.csv, then luckyfast ingest mended.csv {path} --append")


def print_exported_rejects(files: Sequence[ExportedRejects], dataset: str, *, as_json: bool) -> None:
    """Print which files of rejects were written, and how their rows get into the dataset."""
    if as_json:
        print(json.dumps([asdict(file) for file in files], indent=1, default=plain_text))
        return
    for file in files:
        cut = f"; {file.cut:,} are left out: only their beginning was kept" if file.cut else ""
        print(f"{_count(file.rows, 'row')}: {file.path}{cut}")
    names = " ".join(shlex.quote(str(file.path)) for file in files)
    say(f"mend them, then: luckyfast ingest {names} {shlex.quote(dataset)} --append")


def _print_roles(summary: IngestSummary) -> None:
    roles = [[role, " + ".join(columns or ("-",)), reason] for role, (columns, reason) in summary.roles.items()]
    roles += [[f"feature ({own['kind']})", own["name"], own["reason"]] for own in summary.features]
    print_table("Roles", ["role", "column", "why"], roles, text=(0, 1, 2))


def _print_rows(summary: IngestSummary, title: str = "Rows") -> None:
    """The conservation of rows: what was read is what was kept and what was set aside, with an example of each."""
    parts = {"rejects_by_reason": summary.rejects_by_reason, "filtered_by_rule": summary.filtered_by_rule}
    rows = _account(summary.counts, parts)
    for row in rows:
        examples = summary.reject_examples.get(row[0].strip(), []) if row[0].startswith("  ") else []
        row.append(f"{Path(examples[0][0]).name}:{examples[0][1]}: {_excerpt(examples[0][2])}" if examples else "")
    print_table(title, ["", "rows", "share", "example"], rows, text=(0, 3))


def _account(counts: Mapping[str, int], parts: Mapping[str, Any]) -> list[list[str]]:
    read, rules = counts["rows_read"], parts.get("filtered_by_rule", {})
    reasons = sorted(parts["rejects_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    lines = [
        ("rows read", read),
        ("= events", counts["events"]),
        *([("+ duplicates removed", counts["duplicates_removed"])] if counts["duplicates_removed"] else []),
        *([("+ filtered", counts["filtered"])] if rules or counts["filtered"] else []),
        *((f"    {rule}", n) for rule, n in rules.items()),
        ("+ rejected", counts["rejected"]),
        *((f"    {reason}", n) for reason, n in reasons),
    ]
    return [[name, f"{n:,}", f"{n / max(read, 1):.2%}"] for name, n in lines]


def _time_form(summary: IngestSummary) -> str:
    return "days" if summary.times_are_relative else summary.time_kind


def _describe_contents(
    counts: Mapping[str, int], form: str, time_range: tuple[int, int], top_actions: Sequence[tuple[str, int]]
) -> list[tuple[str, str]]:
    if form == "days":
        span = f"{time_range[1] // DAY_US:,} days from a customer's first visit on, at most"
    else:
        span = " to ".join(format_moment(moment, form) for moment in time_range)
    n = max(counts["events"], 1)
    top = ", ".join(f"{name} {count / n:.1%}" for name, count in top_actions[:_N_ACTIONS])
    return [
        ("customers", f"{counts['customers']:,}"),
        ("visits", f"{counts['visits']:,}"),
        ("actions", f"{counts['actions']:,}: {top}"),
        ("time", span),
    ]


def _describe_long_visits(n: int, n_visits: int) -> list[tuple[str, str]]:
    """Warn of visits that last over days: a visit is of its first row's time, and holds what came later too."""
    if not n:
        return []
    told = f"{n:,} ({n / max(n_visits, 1):.2%}) end on a later day (of UTC) than they begin"
    advice = "if ids come again, add a column to --visit that tells them apart, such as a date, a till or a store"
    return [("long visits", f"{told}; {advice}")]


def _describe_findings(
    duplicates: Mapping[str, Any] | None,
    order_leak: Mapping[str, Any],
    other_actions: Mapping[str, int],
    differences: str,
) -> list[tuple[str, str]]:
    facts = []
    if duplicates and duplicates["rows_sampled"]:
        of = "all rows" if duplicates["complete"] else f"a sample of {duplicates['rows_sampled']:,} rows"
        facts.append(("repeated", f"{duplicates['share']:.2%} of {of} equal another row of their visit"))
    if order_leak["suspicious"]:
        share, by_chance = order_leak["share_sorted"], order_leak["share_by_chance"]
        facts.append(
            (
                "row order",
                f"{order_leak['column']} ascends in {share:.0%} of the visits ({by_chance:.0%} by chance): "
                "the order of rows is the till's, so it is never used",
            )
        )
    if other_actions.get("actions"):
        facts.append(("<other>", f"{other_actions['actions']:,} rarer actions with {other_actions['events']:,} events"))
    if differences:
        facts.append(("files differ", differences))
    return facts


def _describe_features(features: Sequence[Mapping[str, Any]], n_events: int) -> list[tuple[str, str]]:
    """What the side columns hold: rows without a value, those that could not be read, the most frequent categories."""
    facts = []
    for own in features:
        notes = [own["kind"]]
        if own["kind"] == "category":
            pairs = zip(own["n_events"], own["categories"], strict=True)
            top = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:_N_ACTIONS]
            shown = ", ".join(f"{_shorten(name)} {n / max(n_events, 1):.1%}" for n, name in top)
            notes = [f"{_count(len(own['categories']), 'category')}: {shown}".replace("categorys", "categories")]
        if own["without_value"]:
            notes.append(f"{own['without_value'] / max(n_events, 1):.2%} of the rows without a value")
        if own["unreadable"]:
            what = "numbers" if own["kind"] == "number" else "text"
            notes.append(f"{own['unreadable']:,} of them because it is no {what.removesuffix('s')}")
        facts.append((f"feature {own['name']}", "; ".join(notes)))
    return facts


def _describe_dialect(dialect: Mapping[str, Any]) -> str:
    columns = ", ".join(dialect["header"][:20]) + (", ..." if len(dialect["header"]) > 20 else "")
    if dialect["form"] != "delimited":
        names = {"json": "JSON lines", "parquet": "Parquet", "arrow": "Arrow"}
        return f"{names[dialect['form']]}; columns {columns}"
    names = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe", " ": "blank"}
    delimiter = names.get(dialect["delimiter"], repr(dialect["delimiter"]))
    quotes = "no quotes" if dialect["quote"] is None else f"quotes {dialect['quote']}"
    header = "header" if dialect["has_header"] else "no header, taken as"
    return f"{delimiter}, {quotes}, {dialect['encoding']}; {header} {columns}"


def _describe_quantiles(quantiles: Mapping[str, int]) -> str:
    return f"median {quantiles['50%']:,}, 90 % up to {quantiles['90%']:,}, most {quantiles['100%']:,}"


def _describe_sources(sources: Sequence[Mapping[str, Any]]) -> str:
    n_bytes = sum(source["bytes"] for source in sources)
    names = ", ".join(Path(source["path"]).name for source in sources[:3])
    more = f" and {len(sources) - 3:,} more" if len(sources) > 3 else ""
    return f"{names}{more} ({format_size(n_bytes)})"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _shorten(text: str, width: int = 24) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _excerpt(raw: bytes, width: int = 60) -> str:
    text = raw[: 4 * width].decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= width else text[: width - 1] + "…"
