"""What peers are given is the dataset, and what they hand over covers every target."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from log_rows import DAY, habit_log
from luckyfast.bench.peers import __main__ as peers
from luckyfast.bench.peers import data
from naive_ingest import write_dataset

from luckyfast.baselines import PersonalFrequency
from luckyfast.comparison import evaluate, write_targets
from luckyfast.dataset import Dataset
from luckyfast.evaluation import evaluate as measure
from luckyfast.windows import split_by_time


@pytest.mark.parametrize("with_visits", [True, False])
def test_a_peer_from_log_to_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_visits: bool) -> None:
    # Several customers share the times of their visits, so without visit ids keys alone do not tell them apart.
    rows = [(c, t // DAY * DAY, a, v if with_visits else None) for c, t, a, v in habit_log(n_customers=15)]
    dataset = Dataset.open(write_dataset(rows, tmp_path / "log", batch_pairs=200))
    write_targets(dataset.path, tmp_path / "targets.parquet")

    def count(log: data.Log, targets: data.Targets) -> data.Scores:
        """Personal frequency, written from what a peer sees."""
        assert targets.valid_start == split_by_time(dataset).valid_start
        owners = np.searchsorted(log.visit_start, targets.visits, side="right") - 1
        for part in data.parts_of(np.arange(len(owners)), 7):
            scores = np.zeros((len(part), log.n_actions), np.float32)
            for row, index in enumerate(part):
                for visit in range(log.visit_start[owners[index]], targets.visits[index]):
                    scores[row, log.of(visit)] += 1.0
            yield targets.visits[part], scores

    file = tmp_path / "peer.parquet"
    monkeypatch.setattr(sys, "argv", ["peer", str(dataset.path), str(tmp_path / "targets.parquet"), str(file)])
    data.main(count)
    comparison = evaluate(dataset.path, predictions=[file])
    coverage = comparison.coverage["peer"]
    assert coverage.test == coverage.test_targets > 0
    assert coverage.valid == coverage.valid_targets > 0
    split = split_by_time(dataset)
    same = measure(PersonalFrequency(prior=1e-6).fit(dataset, split), dataset, split)
    for metric in ("hit@1", "hit@3"):  # the prior breaks ties
        assert comparison.results[0].figures[metric].value == pytest.approx(same.figures[metric].value, abs=0.06)
    table = peers.render_table(comparison.to_dict()["systems"], {"peer": 3.2})
    assert "| peer |" in table
    assert "| 3 |" in table


@pytest.mark.skipif(importlib.util.find_spec("recbole") is not None, reason="it is installed here")
def test_a_peer_whose_library_is_missing_is_skipped(tmp_path: Path) -> None:
    assert peers.run_peer("recbole_sasrec", Path(sys.executable), tmp_path, tmp_path, tmp_path / "out.parquet") is None
