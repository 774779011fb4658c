"""What each command prints at its end: tables for people, JSON for machines."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.config import format_duration, format_size
from luckyfast.terminal import console, plain_text, print_table, say

if TYPE_CHECKING:
    from luckyfast.bench.report import BenchReport
    from luckyfast.comparison import Comparison
    from luckyfast.demo import DemoSummary
    from luckyfast.prediction import PredictSummary
    from luckyfast.search.results import Results

__all__ = [
    "print_bench_report",
    "print_comparison",
    "print_demo_summary",
    "print_figures",
    "print_metrics",
    "print_predict_summary",
    "print_targets",
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


def print_metrics(metrics: dict[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print the figures of a model and every baseline, each with half the width of its 95 % interval."""
    if as_json:
        print(json.dumps(metrics, indent=1))
        return
    print_figures(metrics)
    say(f"model: {folder}\nreport: {folder / 'report.html'}")
    say(f"next: luckyfast predict {shlex.quote(str(folder))} --top 5")


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

    calibrated = systems[0]["figures"]["ece"]["value"]
    if calibrated is not None:
        before = systems[0]["before"]
        whose = f" of {systems[0]['name']}" if len(systems) > 1 else ""
        changes = ", ".join(
            f"{heading} {before[key]['value']:.{digits}f} to {systems[0]['figures'][key]['value']:.{digits}f}"
            for key, heading, digits in (("nll", "NLL", 3), ("brier", "Brier", 4), ("ece", "ECE", 4))
            if before[key]["value"] is not None
        )
        print(f"calibration{whose}: {changes}" if changes else f"calibration{whose}: on the validation visits")
        print(
            f"ECE of perfect chances on so many visits: {systems[0]['ece_floor']:.4f}; "
            f"root mean square without that noise: {systems[0]['figures']['ece_debiased']['value']:.4f}; "
            f"over all pairs of visit and action: {systems[0]['figures']['ece_pairs']['value']:.4f}"
        )


def print_targets(path: str, n_visits: int, *, as_json: bool) -> None:
    """Print how many visits are to be predicted."""
    if as_json:
        print(json.dumps({"path": path, "visits": n_visits}))
        return
    print(f"{n_visits:,} visits to predict: {path}")
    say("next: luckyfast evaluate DATASET --predictions FILE; what FILE holds: luckyfast evaluate --help")


def print_comparison(comparison: Comparison, *, as_json: bool) -> None:
    """Print the figures of every system, what files left out, and the leads over the best baseline."""
    if as_json:
        print(json.dumps(comparison.to_dict(), indent=1))
        return
    print_figures(comparison.to_dict())
    for name, coverage in comparison.coverage.items():
        print(f"{name}: {coverage.test:,} of {coverage.test_targets:,} test visits are covered", end="")
        print(f", {coverage.valid:,} of {coverage.valid_targets:,} validation visits to calibrate on")
        for count, what in (
            (coverage.test_targets - coverage.test, "test visits have no prediction and count as misses"),
            (coverage.other_visits, "visits of the file are no targets and were not looked at"),
            (coverage.unknown_actions, "predictions are for actions that the dataset does not have"),
        ):
            if count:
                print(f"{name}: {count:,} {what}")
    rows = [[name, *map(_lead, leads.values())] for name, leads in comparison.leads.items()]
    if rows:
        over = next(iter(comparison.leads.values()))
        print()
        header = ["points over the best baseline", *(f"{metric} ({lead['over']})" for metric, lead in over.items())]
        print_table("Leads, with 95 % intervals from paired samples of customers", header, rows)


def _lead(figure: dict[str, Any]) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high is None:
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _cell(figure: dict[str, float | None], scale: int, digits: int) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "-"
    text = f"{scale * value:.{digits}f}"
    return text if low is None or high is None else f"{text} ±{scale * (high - low) / 2:.{digits}f}"


def print_predict_summary(summary: PredictSummary, *, as_json: bool) -> None:
    """Print what was written, and who was left out."""
    if as_json:
        print(json.dumps(asdict(summary), indent=1, default=plain_text))
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
    if summary.missing_features:
        print(f"the dataset has no {', '.join(summary.missing_features)}: taken as without a value")


def print_trials(results: Results, folder: str, *, top: int, as_json: bool, out: str | None) -> None:
    """Print the best trials, what became of the others, and which settings mattered."""
    if as_json:
        print(
            json.dumps({"search": results.header, "trials": results.rows, "importance": results.importance}, indent=1)
        )
        return
    trained = [row for row in results.rows if row["valid_loss"] is not None]
    trained.sort(key=lambda row: (-row["customers"], row["valid_loss"]))
    best: dict[int, dict[str, Any]] = {}
    for row in trained:
        # Further passes may have made a trial worse: it is as good as its best training is.
        best.setdefault(row["trial"], row)
    ordered = list(best.values())[:top]
    header = ["trial", "customers", "passes", "loss", "hit@1 % by score", "time", "memory", *results.searched]
    rows = [
        [
            str(row["trial"]),
            f"{row['customers']:.0%}",
            str(row["passes"]),
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
    say(f"written: {out}" if out else f"all of them: luckyfast trials {shlex.quote(folder)} --out trials.csv")


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
    say(f"results: {report.path}")
    return 0 if report.all_right else 1
