"""The simulated landscapes and the clock of the search benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from log_rows import habit_log
from luckyfast.bench.contest import render_table as render_contest
from luckyfast.bench.contest import run_system
from luckyfast.bench.landscapes import DEFAULT, EASY, HARD, MAX_EPOCHS, Landscape, decode
from luckyfast.bench.simulation import CHECKPOINTS, SYSTEMS, simulate
from luckyfast.bench.table import ARCHS, MARKS, SEARCHES, put_into, render_table
from luckyfast.bench.task import Settings, is_installed
from luckyfast.bench.tasks.search import TASK
from naive_ingest import write_dataset

from luckyfast.errors import UserError
from luckyfast.models import ModelConfig
from luckyfast.search.space import default_space


def test_landscapes_are_what_they_were() -> None:
    assert Landscape(0).loss(DEFAULT) == pytest.approx(0.5529076564816733)
    assert Landscape(100).loss(DEFAULT, 9, 1 / 9) == pytest.approx(0.6569344956227156)
    assert Landscape(0).loss(DEFAULT) != Landscape(1).loss(DEFAULT)


@pytest.mark.parametrize("seed", [EASY[3], HARD[3]])
def test_more_passes_and_more_customers_help_and_cost(seed: int) -> None:
    landscape, rng = Landscape(seed), np.random.default_rng(seed)
    for _ in range(30):
        settings = decode(rng.uniform(size=9))
        losses = [landscape.loss(settings, epochs) for epochs in (1, 9, MAX_EPOCHS)]
        assert losses == sorted(losses, reverse=True)
        assert landscape.loss(settings, 9, 1 / 9) >= landscape.loss(settings, 9)
        assert landscape.seconds(settings, 9) == pytest.approx(9 * landscape.seconds(settings, 1))


def test_the_best_has_no_regret_and_the_default_some() -> None:
    landscape, rng = Landscape(2), np.random.default_rng(0)
    regrets = [landscape.regret(s) for s in (decode(rng.uniform(size=9)) for _ in range(300)) if landscape.fits(s)]
    assert min(regrets) > 0
    assert 0.7 < np.median(regrets) < 1.3


@pytest.mark.parametrize("system", [name for name in SYSTEMS if "bayes" not in name and "GP" not in name])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_method_runs_and_never_gets_worse_by_its_own_ruler(system: str, n_workers: int) -> None:
    if not is_installed(tuple(TASK.systems[system])):
        pytest.skip("not installed")
    curve = simulate(system, Landscape(1), 1500.0, n_workers=n_workers)
    assert len(curve) == len(CHECKPOINTS)
    assert curve[-1] < 1.5
    assert curve == simulate(system, Landscape(1), 1500.0, n_workers=n_workers)


def test_the_task_measures_and_refuses(tmp_path: Path) -> None:
    values = dict(TASK.prepare(tmp_path, Settings(quick=True)).values) | {"budget_s": 600.0}
    figures = TASK.run("random", values, tmp_path)
    assert set(figures) == {"regret@25%", "regret", "± regret", "worst"}
    assert figures["regret"] <= figures["worst"] <= figures["regret"] + figures["± regret"]  # of two landscapes
    assert TASK.check("random", values, tmp_path) is None
    content = json.loads((tmp_path / "regret.json").read_text())
    content[str(EASY[0])][-1] = -1.0
    (tmp_path / "regret.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="below the best"):
        TASK.check("random", values, tmp_path)


def test_the_table_has_a_row_per_network_and_search() -> None:
    figure = {"value": 0.401, "low": 0.39, "high": 0.412}
    cell = {"arch": "mlp", "search": "none", "habit": True, "figures": {"hit@1": figure, "hit@3": figure}}
    lines = render_table([cell, cell | {"figures": {"hit@1": figure | {"value": 0.403}, "hit@3": figure}}]).splitlines()
    assert len(lines) == 2 + len(ARCHS) * len(SEARCHES)
    assert lines[2] == "| mlp | none | - | - | 40.2 ± 1.1 | 40.1 ± 1.1 |"
    assert lines[3] == "| mlp | hyperband | - | - | - | - |"


def test_a_table_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{MARKS[0]}old\n{MARKS[1]}rest\n")
    for table in ("| a |", "| b |"):
        put_into(page, table)
        assert page.read_text() == f"# Page\n{MARKS[0]}\n{table}\n\n{MARKS[1]}rest\n"
    for text in ("no marks", MARKS[1] + MARKS[0], MARKS[0] * 2 + MARKS[1]):
        page.write_text(text)
        with pytest.raises(UserError, match="no place for the table"):
            put_into(page, "| c |")
        assert page.read_text() == text


@pytest.mark.slow
@pytest.mark.parametrize(
    "system", ["luckyfast", "Optuna TPE + median", "Keras Tuner Hyperband", "Keras Tuner Bayesian"]
)
def test_every_system_finds_something_in_the_contest(system: str, tmp_path: Path) -> None:
    if "Keras" in system:
        pytest.importorskip("keras_tuner")
    dataset = write_dataset(habit_log(n_customers=40, n_visits=10), tmp_path / "dataset")
    config = ModelConfig(hidden=8, embedding=6, epochs=2, batch_visits=256, habit_hidden=4)
    space = default_space(config, fixed=("hidden", "embedding", "batch_visits", "habit_hidden"))
    found = run_system(system, dataset, space, 15.0, seed=0, n_workers=2, scratch=tmp_path / "scratch")
    assert len(found) > 1
    assert all(0 < at_s <= 16 and loss > 0 for at_s, loss in found)
    assert not (tmp_path / "scratch").exists()
    table = render_contest([{"system": system, "budget_s": 15.0, "found": found}])
    assert f"{min(loss for _, loss in found):.4f}" in table
