"""Run peers in their own environment and measure what they hand over: ``python -m luckyfast.bench.peers``.

Make the environment with, for example::

    python -m venv ENV
    ENV/bin/pip install torch lightgbm recbole "setuptools<81" "numpy<2" "pandas<2.3" "scipy<1.14" "pyarrow<17"

Peers whose library it lacks are skipped and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luckyfast.comparison import evaluate, write_targets

from ..tasks.quality import N_TARGETS, prepare_dataset

__all__ = ["PEERS", "main", "run_peer"]

PEERS = {"lightgbm_ranker": "lightgbm", "recbole_sasrec": "recbole"}
"""The module of each peer, and the library that it needs."""

_METRICS = ("hit@1", "hit@3", "recall@10", "ndcg@10", "nll", "ece_debiased")


def run_peer(peer: str, python: Path, dataset: Path, targets: Path, out: Path) -> float | None:
    """Let a peer predict the targets of a dataset on one thread.

    Args:
        peer: a key of `PEERS`.
        python: the interpreter of its environment.
        dataset: the dataset.
        targets: what `write_targets` wrote.
        out: Parquet file for its predictions.

    Returns:
        CPU seconds of training and predicting; None where the environment lacks the library.

    Raises:
        subprocess.CalledProcessError: the peer failed.
    """
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({PEERS[peer]!r}) is None)"
    if subprocess.run([python, "-c", probe], check=False).returncode:
        return None
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    places = [str(path.resolve()) for path in (dataset, targets, out)]
    command = [str(python), "-W", "ignore", "-m", f"peers.{peer}", *places]
    subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, check=True)
    cpu_s: float = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["cpu_s"]
    return cpu_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: one table per log to stdout."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.peers", description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the peers' environment")
    parser.add_argument("--data", nargs="+", choices=[*N_TARGETS], default=[*N_TARGETS], help="logs (default: all)")
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS], help="(default: all)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and predictions")
    options = parser.parse_args(arguments)
    for name in options.data:
        dataset = prepare_dataset(name, options.cache)
        targets = options.cache / f"{name}-targets.parquet"
        write_targets(dataset, targets, overwrite=True)
        costs: dict[str, float] = {}
        files = []
        for peer in options.peers:
            file = options.cache / f"{name}-{peer}.parquet"
            cpu_s = run_peer(peer, options.python, dataset, targets, file)
            if cpu_s is None:
                print(f"{peer}: {PEERS[peer]} is not installed in that environment, skipped", file=sys.stderr)
                continue
            costs[file.stem] = cpu_s
            files.append(file)
        print(f"### {name}\n\n{render_table(evaluate(dataset, predictions=files).to_dict()['systems'], costs)}\n")
    return 0


def render_table(systems: Sequence[dict[str, Any]], costs: dict[str, float]) -> str:
    """Render results as a Markdown table, best hit@1 first; ± is half of the 95 % interval."""
    lines = [f"| system | {' | '.join(_METRICS)} | CPU s |", f"| --- |{' ---: |' * (len(_METRICS) + 1)}"]
    for system in sorted(systems, key=lambda one: -one["figures"]["hit@1"]["value"]):
        figures = [system["figures"][metric] for metric in _METRICS]
        cells = [f"{one['value']:.4f} ± {(one['high'] - one['low']) / 2:.4f}" for one in figures]
        cost = f"{costs[system['name']]:.0f}" if system["name"] in costs else ""
        lines.append(f"| {system['name']} | {' | '.join(cells)} | {cost} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
