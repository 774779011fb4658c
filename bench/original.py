"""What the usual way to train costs against luckyfast's: ``python -m luckyfast.bench.original``.

The usual way, as in many Keras examples: a sample is a window of the last 16 visits as vectors of 0 and 1 over all
actions, an LSTM runs over it, and a softmax after its last step learns one label, an action of the next visit (another
one of them in each epoch). luckyfast runs once over each history, learns from all its positions, and reads the calendar
of both moments, as the usual way does not. Both have one LSTM layer of 128 units, no habits, and are measured on the
same test by the same evaluator. The usual way gets `--times` the CPU seconds that luckyfast took; its hit@1 is told on
the way there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from luckyfast.dataset import Dataset, Histories
from luckyfast.evaluation import evaluate
from luckyfast.models import ModelConfig
from luckyfast.training import train
from luckyfast.windows import Split, first_visits, known_actions, split_by_time

from .tasks.quality import prepare_dataset

__all__ = ["WindowScorer", "main"]

WINDOW, HIDDEN, BATCH, RATE = 16, 128, 256, 1e-3


class WindowScorer(nn.Module):
    """The usual network, a scorer.

    Args:
        n_actions: size of the vocabulary.
    """

    name = "windows"

    def __init__(self, n_actions: int) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.lstm, self.output = nn.LSTM(n_actions, HIDDEN, batch_first=True), nn.Linear(HIDDEN, n_actions)

    def forward(self, windows: Tensor) -> Tensor:
        """Logits [n, n_actions] of windows [n, 16, n_actions]."""
        logits: Tensor = self.output(self.lstm(windows)[0][:, -1])
        return logits

    def score(
        self, histories: Histories, targets: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Score every action at the given visits; see :class:`luckyfast.windows.Scorer`."""
        for start in range(0, len(targets), 512):
            block = targets[start : start + 512]
            with torch.inference_mode():
                yield block, self(_windows(histories, block, self.n_actions)).numpy()


def _windows(histories: Histories, visits: NDArray[np.int64], n_actions: int) -> Tensor:
    """The visits before each of these, float32 [n, 16, n_actions]; zeros where there is none."""
    seen = visits[:, None] - np.arange(WINDOW, 0, -1)
    inside = seen >= first_visits(histories, visits)[:, None]
    seen, bounds = np.where(inside, seen, 0), histories.action_start.astype(np.int64)
    sizes = np.where(inside, bounds[seen + 1] - bounds[seen], 0).ravel()
    rows = np.repeat(np.arange(len(sizes)), sizes)
    pairs = np.arange(sizes.sum()) + np.repeat(bounds[seen].ravel() - np.cumsum(sizes) + sizes, sizes)
    windows = torch.zeros(len(sizes), n_actions)
    windows[torch.from_numpy(rows), torch.from_numpy(histories.actions[pairs].astype(np.int64))] = 1.0
    return windows.view(len(visits), WINDOW, n_actions)


def _train_windows(dataset: Dataset, split: Split, limits_s: Sequence[float]) -> Iterator[tuple[float, WindowScorer]]:
    """Train for so many CPU seconds; the network after each limit."""
    torch.manual_seed(0)
    rng, network = np.random.default_rng(0), WindowScorer(dataset.n_actions)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    known, spent, left = known_actions(dataset, split.test_start), 0.0, list(limits_s)
    while left:
        for histories in dataset.batches():
            visits = np.flatnonzero(histories.visit_time < split.test_start)
            sizes = np.diff(histories.action_start)[visits]
            picks = histories.action_start[visits] + (rng.random(len(visits)) * sizes).astype(np.int64)
            labels = histories.actions[picks].astype(np.int64)
            order = rng.permutation(np.flatnonzero(known[labels]))
            for start in range(0, len(order), BATCH):
                began, chosen = time.process_time(), order[start : start + BATCH]
                logits = network(_windows(histories, visits[chosen], dataset.n_actions))
                loss = F.cross_entropy(logits, torch.from_numpy(labels[chosen]))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                spent += time.process_time() - began
                if spent >= left[0]:
                    yield left.pop(0), network
                    if not left:
                        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Print hit@1 by CPU seconds, both ranked by score."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.original", description=__doc__)
    parser.add_argument("--times", type=float, nargs="+", default=[1, 5, 20], help="of luckyfast's CPU seconds")
    parser.add_argument("--epochs", type=int, default=5, help="of luckyfast (default: 5)")
    parser.add_argument("--cache", type=Path, default=Path(".bench/cache"), help="folder for logs and datasets")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset = Dataset.open(prepare_dataset("complete-journey", options.cache))
    split = split_by_time(dataset)
    began = time.process_time()
    config = ModelConfig(arch="lstm", habit=False, hidden=HIDDEN, epochs=options.epochs, refit_epochs=1)
    model = train(dataset, split, config)
    took = time.process_time() - began
    print(f"luckyfast: {took:.1f} CPU s, hit@1 {evaluate(model, dataset, split).figures['hit@1']}", flush=True)
    for limit_s, network in _train_windows(dataset, split, [took * times for times in sorted(options.times)]):
        figure = evaluate(network, dataset, split).figures["hit@1"]
        print(f"windows: {limit_s:.1f} CPU s ({limit_s / took:.0f} x), hit@1 {figure}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
