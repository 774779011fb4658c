"""What each command prints at its end: tables for people, JSON for machines."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import format_duration, format_size
from luckyfast.moments import format_moment
from luckyfast.terminal import console, print_table

if TYPE_CHECKING:
    from luckyfast.bench.report import BenchReport
    from luckyfast.demo import DemoSummary
    from luckyfast.ingestion.run import IngestSummary
    from luckyfast.prediction import PredictSummary
    from luckyfast.search.results import Results

__all__ = [
    "print_bench_report",
    "print_demo_summary",
    "print_figures",
    "print_ingest_summary",
    "print_metrics",
    "print_predict_summary",
    "print_rejects",
    "print_trials",
]

# figure, heading, scale, digits
_FIGURES = (
    ("hit@1", "hit@1 %", 100, 1),
    ("hit@3", "hit@3 %", 100, 1),
    ("recall@10", "recall@10 %", 100, 1),
    ("ndcg@10", "NDCG@10", 1, 3),
    ("nll", "NLL", 1, 3),
    ("ece", "ECE", 1, 4),
)


def print_ingest_summary(summary: IngestSummary, *, as_json: bool) -> None:
    """Print what became of every row: roles with reasons, counts, rejects with examples, times, actions, cost."""
    if as_json:
        print(json.dumps(asdict(summary), indent=1, default=_plain))
        return
    roles = [[role, " + ".join(columns or ("-",)), reason] for role, (columns, reason) in summary.roles.items()]
    print_table("Roles", ["role", "column", "why"], roles, text=(0, 1, 2))
    print()
    print_rejects(summary)
    counts = summary.counts
    first, last = (format_moment(moment, summary.time_kind) for moment in summary.time_range)
    top = ", ".join(f"{name} ({count:,})" for name, count in summary.top_actions[:3])
    print(f"\n{counts['customers']:,} customers, {counts['visits']:,} visits, {counts['actions']:,} actions")
    print(f"from {first} to {last}")
    print(f"most frequent: {top}")
    if summary.order_leak["suspicious"]:
        share = summary.order_leak["share_sorted"]
        print(f"order of rows: sorted in {share:.0%} of the visits, so it is no order of events; it is never used")
    speed = format_size(summary.bytes_read / max(summary.elapsed_s, 1e-9))
    spilled = f", {summary.n_spilled_runs} runs spilled to disk" if summary.n_spilled_runs else ""
    print(
        f"{format_size(summary.bytes_read)} in {format_duration(summary.elapsed_s)} ({speed}/s), "
        f"peak memory {format_size(summary.peak_rss_bytes)}{spilled}"
    )
    _say(f"dataset: {summary.path}")


def print_rejects(summary: IngestSummary) -> None:
    """Print the conservation of rows: what was read is what was kept and what was set aside, with an example each."""
    counts, read = summary.counts, summary.counts["rows_read"]
    rows = [
        [name, f"{counts[key]:,}", f"{counts[key] / max(read, 1):.2%}", ""]
        for name, key in (
            ("rows read", "rows_read"),
            ("= events", "events"),
            ("+ duplicates removed", "duplicates_removed"),
            ("+ filtered", "filtered"),
            ("+ rejected", "rejected"),
        )
        if counts[key] or key in ("rows_read", "events", "rejected") or (key == "filtered" and summary.filtered_by_rule)
    ]
    rows[-1:-1] = [
        [f"    {rule}", f"{count:,}", f"{count / max(read, 1):.2%}", ""]
        for rule, count in summary.filtered_by_rule.items()
    ]
    for reason, count in sorted(summary.rejects_by_reason.items(), key=lambda item: -item[1]):
        examples = summary.reject_examples.get(reason, [])
        example = f"{Path(examples[0][0]).name}:{examples[0][1]}: {_excerpt(examples[0][2])}" if examples else ""
        rows.append([f"    {reason}", f"{count:,}", f"{count / max(read, 1):.2%}", example])
    print_table("Rows", ["", "rows", "share", "example"], rows, text=(0, 3))


def print_metrics(metrics: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print the figures of a model and every baseline, each with half the width of its 95 % interval."""
    if as_json:
        print(json.dumps(metrics, indent=1))
        return
    print_figures(metrics)
    _say(f"model: {folder}\nreport: {folder / 'report.html'}")
    _say(f"next: luckyfast predict {shlex.quote(str(folder))} --top 5")


def print_figures(metrics: dict[str, Any]) -> None:
    """Print one row per system, the model first."""
    systems = metrics["systems"]
    rows = [
        [system["name"], *(_cell(system["figures"][key], scale, digits) for key, _, scale, digits in _FIGURES)]
        for system in systems
    ]
    header = ["system", *(heading for _, heading, _, _ in _FIGURES)]
    title = f"{systems[0]['n_visits']:,} test visits; ± is half of the 95 % interval over customers"
    print_table(title, header, rows, emphasis=0)
    short = systems[0]["short"]
    if short["n_visits"]:
        share = 100 * short["figures"]["hit@1"]["value"]
        print(f"apart, customers with too short a history: {short['n_visits']:,} visits, hit@1 {share:.1f} %")


def _cell(figure: dict[str, float | None], scale: int, digits: int) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "-"
    text = f"{scale * value:.{digits}f}"
    return text if low is None or high is None else f"{text} ±{scale * (high - low) / 2:.{digits}f}"


def print_predict_summary(summary: PredictSummary, *, as_json: bool) -> None:
    """Print what was written, and who was left out."""
    if as_json:
        print(json.dumps(asdict(summary), indent=1, default=_plain))
        return
    took = format_duration(summary.elapsed_s)
    print(f"{summary.rows:,} rows for {summary.customers:,} customers at {summary.at}, in {took}: {summary.path}")
    for count, what in (
        (summary.without_history, "customers have no visit before that moment and got no rows"),
        (summary.shortened, "customers have so long a history that only its latest part was read"),
        (summary.unknown_actions, "actions of the dataset are unknown to the model and were left out"),
    ):
        if count:
            print(f"{count:,} {what}")


def print_trials(results: Results, folder: str, *, top: int, as_json: bool, out: str | None) -> None:
    """Print the best trials, what became of the others, and which settings mattered."""
    if as_json:
        print(
            json.dumps({"search": results.header, "trials": results.rows, "importance": results.importance}, indent=1)
        )
        return
    best: dict[int, dict[str, Any]] = {}
    for row in results.rows:
        if row["valid_loss"] is not None and row["rung"] >= best.get(row["trial"], row)["rung"]:
            best[row["trial"]] = row
    ordered = sorted(best.values(), key=lambda row: (-row["customers"], row["valid_loss"]))[:top]
    header = ["trial", "customers", "epochs", "loss", "hit@1 %", "time", "memory", *results.searched]
    rows = [
        [
            str(row["trial"]),
            f"{row['customers']:.0%}",
            str(row["epochs"]),
            f"{row['valid_loss']:.4f}",
            "-" if row["valid_hit1"] is None else f"{100 * row['valid_hit1']:.1f}",
            format_duration(row["seconds"]),
            format_size(row["peak_bytes"] or 0),
            *(f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in results.searched),
        ]
        for row in ordered
    ]
    n_trials = len({row["trial"] for row in results.rows})
    print_table(f"The best of {n_trials} configurations, {len(results.rows)} trainings", header, rows, text=())
    for status in ("memory", "failed"):
        count = sum(row["status"] == status for row in results.rows)
        if count:
            print(f"{count} trainings ended for want of memory" if status == "memory" else f"{count} trainings failed")
    shares = results.importance
    if shares:
        print("\nShare of the differences between trials that each setting explains:")
        print("  " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005))
    if results.stopped:
        print(f"the search ended: {results.stopped}")
    _say(f"written: {out}" if out else f"all of them: luckyfast trials {shlex.quote(folder)} --out trials.csv")


def print_demo_summary(summary: DemoSummary) -> int:
    """Print dirt put in beside dirt reported, the figures, one customer's offers, and what to try next."""
    put, reported = summary.dirt.by_reason, summary.ingest.rejects_by_reason
    rows = [["all rows", f"{summary.dirt.rows:,}", f"{summary.ingest.counts['rows_read']:,}"]]
    rows += [
        [reason, f"{put.get(reason, 0):,}", f"{reported.get(reason, 0):,}"] for reason in sorted({*put, *reported})
    ]
    verdict = "equal" if summary.dirt_matches else "NOT EQUAL"
    print_table(f"Dirt put in and dirt reported: {verdict}", ["", "put in", "reported"], rows)
    print()
    print_figures(summary.model.metrics)
    folder, model = summary.raw.parent, summary.model.path
    print(f"\nAll of it took {format_duration(summary.elapsed_s)} and lies in {folder}/")
    places = (
        (summary.raw, "the raw logs, dirty as a retailer ships them"),
        (summary.dataset, "sorted histories, readable with polars, DuckDB or pyarrow"),
        (summary.dataset / "rejects", "every row that was set aside, with place and reason"),
        (model, "the network: model.onnx, weights, figures"),
        (model / "report.html", "open this one in a browser"),
        (summary.predictions.path, f"five offers for each of {summary.predictions.customers:,} customers"),
    )
    width = max(len(str(path)) for path, _ in places)
    for path, meaning in places:
        print(f"  {str(path).ljust(width)}  {meaning}")
    raw, products = shlex.quote(str(summary.raw)), shlex.quote(str(summary.raw / "products.csv"))
    print("\nTry next (luckyfast is in .venv/bin after make):")
    print(f"  luckyfast ingest {raw} again/ --lookup {products} --on product_id --action product_category")
    print(f"  luckyfast fit {shlex.quote(str(summary.dataset))} --arch mlp --budget 3m")
    print(f"  luckyfast predict {shlex.quote(str(model))} --at 2017-12-01 --top 3 --out december.csv")
    return 0 if summary.dirt_matches else 1


def print_bench_report(report: BenchReport, *, as_json: bool) -> int:
    """Print one table per task; the exit code is 1 if a system failed or gave another result."""
    from luckyfast.bench.report import render_markdown, render_tables

    if as_json:
        print(json.dumps(report.to_dict(), indent=1))
    elif sys.stdout.isatty():
        for table in render_tables(report):
            console(stderr=False).print(table)
    else:
        print(render_markdown(report))
    _say(f"results: {report.path}")
    return 0 if report.all_right else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _excerpt(raw: bytes, width: int = 60) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _plain(value: Any) -> str:
    """Bytes of a raw row and paths, as text for JSON."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
