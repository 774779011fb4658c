"""What each command prints at its end: tables for people, JSON for machines."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import format_duration
from luckyfast.terminal import console, print_table

if TYPE_CHECKING:
    from luckyfast.bench.report import BenchReport
    from luckyfast.demo import DemoSummary
    from luckyfast.prediction import PredictSummary

__all__ = [
    "print_bench_report",
    "print_demo_summary",
    "print_figures",
    "print_metrics",
    "print_predict_summary",
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


def _plain(value: Any) -> str:
    """Bytes of a raw row and paths, as text for JSON."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
