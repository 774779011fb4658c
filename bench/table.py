"""Fill the table of architectures and searches: ``python -m luckyfast.bench.table``.

Every cell is one ``luckyfast.fit`` with the same budget on the same log, one after the other, with all cores. A cell
that is there already is not run again, so that a stopped run goes on where it was. ``--into README.md`` puts the table
in place of the one that stands there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luckyfast.config import format_duration, parse_duration
from luckyfast.errors import UserError

from .machine import describe_machine
from .tasks.quality import N_TARGETS, prepare_dataset

__all__ = ["main", "put_into", "render_table"]

ARCHS = ("mlp", "lstm", "lstm-embed")
SEARCHES = ("none", "hyperband", "bayes")
METRICS = ("hit@1", "hit@3")
MARKS = ("<!-- table of searches -->\n", "<!-- end of the table of searches -->\n")


def fill(cell: tuple[str, str, bool], dataset: Path, budget_s: float, *, seed: int, scratch: Path) -> dict[str, Any]:
    """Fit one cell.

    Args:
        cell: architecture, search, and whether with habits.
        dataset: what to fit on.
        budget_s: seconds of the whole fit.
        seed: of weights and proposals.
        scratch: folder for the model, which is removed.

    Returns:
        The cell's figures with intervals, how many trials there were, and what the best was.
    """
    import luckyfast

    arch, search, habit = cell
    out = scratch / "model"
    choices: dict[str, Any] = {"arch": arch, "search": search, "habit": habit, "budget": budget_s, "seed": seed}
    model = luckyfast.fit(dataset, out=out, overwrite=True, **choices)
    system = model.metrics["systems"][0]
    content = {
        "arch": arch,
        "search": search,
        "habit": habit,
        "seed": seed,
        "budget_s": budget_s,
        "elapsed_s": model.config["elapsed_s"],
        "trials": model.config["search"],
        "refit": model.config["refit"],
        "settings": model.config["model"],
        "n_visits": system["n_visits"],
        "figures": system["figures"],
    }
    shutil.rmtree(out)
    return content


def render_table(cells: Sequence[dict[str, Any]]) -> str:
    """Render cells as Markdown: a row per architecture and search, hit@1 and hit@3 in per cent, plain and with habit.

    Args:
        cells: what `fill` returned.

    Returns:
        The table; the means where there are several seeds, and half the width of the mean 95 % interval.
    """
    header = [f"{metric} %, {kind}" for kind in ("plain", "with habit") for metric in METRICS]
    lines = [f"| network | search | {' | '.join(header)} |", f"| --- | --- |{' ---: |' * len(header)}"]
    for arch, search in itertools.product(ARCHS, SEARCHES):
        texts = []
        for habit, metric in itertools.product((False, True), METRICS):
            key = (arch, search, habit)
            figures = [c["figures"][metric] for c in cells if (c["arch"], c["search"], c["habit"]) == key]
            if not figures:
                texts.append("-")
                continue
            value = 100 * sum(figure["value"] for figure in figures) / len(figures)
            half = 50 * sum(figure["high"] - figure["low"] for figure in figures) / len(figures)
            texts.append(f"{value:.1f} ± {half:.1f}")
        lines.append(f"| {arch} | {search} | {' | '.join(texts)} |")
    return "\n".join(lines)


def put_into(path: Path, table: str) -> None:
    """Replace what stands between the marks of a Markdown file.

    Args:
        path: of the file.
        table: the new one.

    Raises:
        UserError: the file has not each of `MARKS` once, in their order.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if any(text.count(mark) != 1 for mark in MARKS) or not end:
        raise UserError(f"{path} has no place for the table", hint=f"put {MARKS[0].strip()} and {MARKS[1].strip()}")
    path.write_text(f"{before}{begin}\n{table}\n\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the table to stdout, progress to stderr, every cell to a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.table", description=__doc__)
    parser.add_argument("--data", choices=[*N_TARGETS], default="complete-journey", help="log (complete-journey)")
    parser.add_argument("--budget", default="10m", help="of every cell (10m)")
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=ARCHS)
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=SEARCHES)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (1)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    parser.add_argument("--out", type=Path, default=Path(".bench/table"), help="folder for the cells")
    parser.add_argument("--into", type=Path, help="Markdown file that holds the table between two marks")
    options = parser.parse_args(arguments)
    budget_s = parse_duration(options.budget)
    dataset = prepare_dataset(options.data, options.cache)
    folder = options.out / f"{options.data}-{format_duration(budget_s)}"
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for seed, arch, search, habit in itertools.product(
        range(options.seeds), options.archs, options.searches, (False, True)
    ):
        file = folder / f"{arch}-{search}-{'habit' if habit else 'plain'}-{seed}.json"
        if not file.exists():
            machine = describe_machine()
            content = fill((arch, search, habit), dataset, budget_s, seed=seed, scratch=folder)
            file.write_text(json.dumps(content | {"machine": machine}, indent=1), encoding="utf-8")
        cells.append(json.loads(file.read_text(encoding="utf-8")))
        figure = cells[-1]["figures"]["hit@1"]["value"]
        print(f"{file.stem}: hit@1 {figure:.4f} in {format_duration(cells[-1]['elapsed_s'])}", file=sys.stderr)
    table = render_table(cells)
    print(table)
    if options.into is not None:
        put_into(options.into, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
