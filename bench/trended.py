"""What trends are worth to a baseline: ``python -m luckyfast.bench.trended``.

TIFU-KNN, whose scores are logs of shares, with a multiple of the trends of one half-life added to them. Half-life and
multiple are those with the best NDCG@10 on validation, among 15; then it is measured on the test.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luckyfast.baselines import TifuKnn, fit_baseline
from luckyfast.batches import measure
from luckyfast.dataset import Dataset
from luckyfast.evaluation import evaluate
from luckyfast.trend import HALF_LIVES, Trend
from luckyfast.windows import split_by_time

from .tasks.quality import N_TARGETS, prepare_dataset

if TYPE_CHECKING:
    import numpy.typing as npt

    from luckyfast.dataset import Histories
    from luckyfast.windows import Scorer

__all__ = ["Trended", "main"]

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25)
METRICS = ("hit@1", "hit@3", "recall@10", "ndcg@10")


@dataclass(frozen=True, eq=False)
class Trended:
    """A scorer with trends added to its scores.

    Args:
        scorer: whose scores are logs.
        trend: what is in demand.
        half_life: which of the half-lives.
        weight: what its trends are multiplied by.
    """

    scorer: Scorer
    trend: Trend
    half_life: int
    weight: float

    @property
    def name(self) -> str:
        """That of the scorer, with trends."""
        return f"{self.scorer.name} with trends"

    def score(
        self, histories: Histories, targets: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Score visits; see :class:`~luckyfast.windows.Scorer`."""
        for block, scores in self.scorer.score(histories, targets):
            rows = self.trend.rows_at(histories.visit_time[block])
            yield block, scores + np.float32(self.weight) * self.trend.values[self.half_life, rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: two lines per log to stdout."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.trended", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=[*N_TARGETS], default=[*N_TARGETS], help="logs (default: all)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    options = parser.parse_args(arguments)
    for name in options.data:
        dataset = Dataset.open(prepare_dataset(name, options.cache))
        split = split_by_time(dataset)
        trend = measure(dataset, split.valid_start, n_half_lives=1, visit_spans=(), strength=1.0).trend
        if trend is None:
            print(f"{name}: times do not compare")
            continue
        late, _ = fit_baseline(TifuKnn, dataset, split)
        early = copy.copy(late).fit(dataset, split, before=split.valid_start)
        choices = [(half_life, weight) for half_life in range(len(HALF_LIVES)) for weight in WEIGHTS]
        figures = [evaluate(Trended(early, trend, *own), dataset, split, part="valid").figures for own in choices]
        best = max(range(len(choices)), key=lambda number: figures[number]["ndcg@10"].value)
        for scorer in (late, Trended(late, trend, *choices[best])):
            found = evaluate(scorer, dataset, split).figures
            shown = " ".join(
                f"{metric} {found[metric].value:.4f} [{found[metric].low:.4f}, {found[metric].high:.4f}]"
                for metric in METRICS
            )
            print(f"{name} {scorer.name}: {shown}")
        half_life, weight = choices[best]
        print(f"{name}: {weight} x the trends of {HALF_LIVES[half_life]:g} days, chosen on validation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
