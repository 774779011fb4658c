"""Make the quality table of the README: ``python -m luckyfast.bench.quality``.

Every system is fitted with each seed and measured on the test; the table has the means over the seeds.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from .machine import describe_machine
from .tasks.quality import BASELINE_SYSTEMS, MODEL_SYSTEMS, N_TARGETS, Measurement, measure, prepare_dataset

__all__ = ["main", "render_table", "run_quality"]

_DIGITS = {"hit@1": 4, "hit@3": 4, "recall@10": 4, "ndcg@10": 4, "nll": 3, "ece": 4, "brier": 4}


def run_quality(
    dataset_name: str, systems: Sequence[str], seeds: Sequence[int], *, cache: Path, n_threads: int
) -> list[dict[str, Any]]:
    """Fit and measure systems on one log, telling each one's figures on stderr.

    Args:
        dataset_name: a key of `N_TARGETS`.
        systems: keys of `MODEL_SYSTEMS` and `BASELINE_SYSTEMS`.
        seeds: of the models; baselines have none and run once.
        cache: folder for logs and datasets.
        n_threads: cores that training may use.

    Returns:
        One record per system: mean figures, their range over the seeds, the lead over the best baseline on each metric
        from paired bootstrap samples (of the first seed), CPU seconds, and the result of each seed.
    """
    from luckyfast.evaluation import Result, lead

    path = prepare_dataset(dataset_name, cache)
    runs: dict[str, list[Measurement]] = {}
    for system in systems:
        for seed in seeds if system in MODEL_SYSTEMS else (0,):
            measurement = measure(system, path, seed=seed, n_threads=n_threads)
            if measurement.result.n_visits != N_TARGETS[dataset_name]:
                raise ValueError(
                    f"{measurement.result.n_visits} visits were measured, {N_TARGETS[dataset_name]} were expected"
                )
            runs.setdefault(system, []).append(measurement)
            shown = " ".join(f"{name} {figure}" for name, figure in measurement.result.figures.items())
            print(f"{dataset_name} {system} seed {seed}: {shown}, {measurement.fit_cpu_s:.0f} CPU s", file=sys.stderr)
            gc.collect()
    baselines = [runs[system][0].result for system in systems if system in BASELINE_SYSTEMS]

    def best_baseline(metric: str) -> Result:
        sign = 1.0 if metric in ("nll", "ece", "brier") else -1.0
        return min(baselines, key=lambda result: sign * result.figures[metric].value)

    records = []
    for system, measurements in runs.items():
        results = [measurement.result for measurement in measurements]
        figures, leads = {}, {}
        for metric in _DIGITS:
            values = [result.figures[metric].value for result in results]
            figures[metric] = {
                "value": fmean(values),
                "low": fmean(result.figures[metric].low for result in results),
                "high": fmean(result.figures[metric].high for result in results),
                "seeds": [min(values), max(values)],
            }
            if baselines:
                best = best_baseline(metric)
                ahead = lead(results[0], best)[metric]
                leads[metric] = {"over": best.name, "value": ahead.value, "low": ahead.low, "high": ahead.high}
        records.append(
            {
                "system": system,
                "figures": figures,
                "lead": leads,
                "fit_cpu_s": fmean(measurement.fit_cpu_s for measurement in measurements),
                "score_cpu_s": fmean(measurement.score_cpu_s for measurement in measurements),
                "results": [result.to_dict() for result in results],
            }
        )
    return records


def render_table(records: Sequence[dict[str, Any]]) -> str:
    """Render records as a Markdown table: means over the seeds, and half the width of the 95 % interval.

    Args:
        records: what `run_quality` returned, or its JSON.

    Returns:
        The table, best hit@1 first.
    """
    lines = [
        f"| system | {' | '.join(_DIGITS)} | CPU s |",
        f"| --- |{' ---: |' * (len(_DIGITS) + 1)}",
    ]
    for record in sorted(records, key=lambda record: -record["figures"]["hit@1"]["value"]):
        cells = []
        for metric, digits in _DIGITS.items():
            figure = record["figures"][metric]
            cells.append(f"{figure['value']:.{digits}f} ± {(figure['high'] - figure['low']) / 2:.{digits}f}")
        lines.append(f"| {record['system']} | {' | '.join(cells)} | {record['fit_cpu_s']:.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: tables to stdout, progress to stderr, everything to a JSON file."""
    every = (*MODEL_SYSTEMS, *BASELINE_SYSTEMS)
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.quality", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=[*N_TARGETS], default=[*N_TARGETS], help="logs (default: all)")
    parser.add_argument("--systems", nargs="+", choices=every, default=every, help="systems (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="cores for training (default: 1)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder for the JSON file")
    options = parser.parse_args(arguments)
    started = datetime.now(UTC)
    machine = describe_machine()
    tables = {
        name: run_quality(name, options.systems, range(options.seeds), cache=options.cache, n_threads=options.threads)
        for name in options.data
    }
    for name, records in tables.items():
        print(f"### {name}, {N_TARGETS[name]:,} test visits\n\n{render_table(records)}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"quality-{started:%Y%m%dT%H%M%SZ}.json"
    report = {"started": f"{started:%Y-%m-%dT%H:%M:%SZ}", "machine": machine, "seeds": options.seeds, "tables": tables}
    file.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"kept in {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
