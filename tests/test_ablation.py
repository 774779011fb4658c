"""Each variant of the ablation leaves out what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from log_rows import habit_log, opened
from luckyfast.bench.ablation import VARIANTS, main, measure_variant
from naive_ingest import write_dataset

from luckyfast.batches import Moments
from luckyfast.models import ModelConfig
from luckyfast.models.trained import TrainedModel
from luckyfast.training import train
from luckyfast.windows import split_by_time

SMALL = ModelConfig(hidden=6, embedding=5, epochs=1, refit_epochs=1, habit_hidden=3, batch_visits=64)


def trained(variant: str) -> TrainedModel:
    """A small model of a variant."""
    settings, context = VARIANTS[variant]
    with opened(habit_log(n_customers=12)) as dataset, context():
        changes = ModelConfig.from_dict(settings)
        config = replace(SMALL, **{name: getattr(changes, name) for name in settings})
        return train(dataset, split_by_time(dataset), config)


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("weights of habits alike for all actions", "residual.per_action.weight"),
        ("weights of habits alike at all moments", "residual.gate.weight"),
    ],
)
def test_weights_that_are_left_out_stay_0(variant: str, weights: str) -> None:
    assert not trained(variant).state[weights].any()
    assert trained("everything").state[weights].any()


def test_tied_embeddings_are_one() -> None:
    state = trained("tied embeddings").state
    np.testing.assert_array_equal(state["output"], state["table"])


def test_features_that_are_left_out_have_no_weights() -> None:
    everything = trained("everything")
    n_decays = len(everything.constants.half_lives) + len(everything.constants.visit_spans)
    without = trained("without cadence").state["residual.shared"]
    assert not without[n_decays + 5 : n_decays + 9].any()
    assert everything.state["residual.shared"][n_decays + 5 : n_decays + 9].any()
    assert not trained("without calendar").state["calendar.weight"].any()


def test_nothing_stays_changed_and_figures_differ(tmp_path: Path) -> None:
    of = Moments.of
    path = write_dataset(habit_log(n_customers=30), tmp_path / "log")
    figures = {name: measure_variant(name, path)["ndcg@10"] for name in ("everything", "without habits")}
    trained("without calendar")
    assert Moments.of == of
    assert figures["without habits"] < figures["everything"] <= 1.0


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(habit_log(n_customers=12), tmp_path / "ta-feng-dataset")
    arguments = ["--data", "ta-feng", "--variants", "without refit", "--seeds", "1", "--cache", str(tmp_path)]
    assert main(arguments) == 0
    assert "| without refit | " in capsys.readouterr().out
