"""Commands that show what luckyfast does: bench, demo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from luckyfast.commands.shared import add_command, comma_separated, remember

__all__ = ["add_bench", "add_demo"]


def add_bench(commands: Any) -> None:
    """Add ``luckyfast bench``."""
    parser = add_command(
        commands,
        "bench",
        _run_bench,
        "Measure luckyfast beside its peers: time, CPU, peak memory of the process tree, checksum.",
        "examples:\n  luckyfast bench --quick\n  luckyfast bench ingest --runs 5 --systems luckyfast,polars",
    )
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="ingest, scan, parse, jsonlines, gzip, training, quality, search (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="small inputs: under 3 minutes")
    parser.add_argument("--systems", type=comma_separated, metavar="NAMES", help="only these systems")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each system (default: 5 at most, quick: 1 or 2)")
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="size of the ingest log, times 208 MB (1)")
    parser.add_argument("--memory", metavar="SIZE", help="limit for the systems that take one")
    parser.add_argument("--out", metavar="DIR", default=".bench", help="folder for results and inputs (.bench)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _run_bench(options: argparse.Namespace) -> int:
    from luckyfast.bench.runner import run_bench
    from luckyfast.config import parse_size
    from luckyfast.summary import print_bench_report
    from luckyfast.terminal import make_progress

    report = run_bench(
        options.tasks,
        quick=options.quick,
        systems=options.systems,
        runs=options.runs,
        scale=options.scale,
        memory_bytes=None if options.memory is None else parse_size(options.memory),
        out=Path(options.out),
        progress=make_progress(quiet=options.quiet),
    )
    return print_bench_report(report, as_json=options.json)


def add_demo(commands: Any) -> None:
    """Add ``luckyfast demo``."""
    parser = add_command(
        commands,
        "demo",
        _run_demo,
        "Real receipts from dirty raw logs to predictions and a report, in about three minutes.",
        "example:\n  luckyfast demo --out demo/",
    )
    parser.add_argument("--out", metavar="DIR", default="demo", help="folder to write; its demo files are replaced")
    parser.add_argument("--budget", metavar="TIME", default="3m", help="time for fit (3m)")
    parser.add_argument("--seed", type=int, default=0, help="of the dirt and of the training (0)")


def _run_demo(options: argparse.Namespace) -> int:
    from luckyfast.demo import run_demo
    from luckyfast.summary import print_demo_summary
    from luckyfast.terminal import make_progress

    summary = run_demo(
        options.out, budget=options.budget, seed=options.seed, progress=make_progress(quiet=options.quiet)
    )
    remember("dataset", summary.dataset)
    remember("model", summary.model.path)
    return print_demo_summary(summary)
