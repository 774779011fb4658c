"""What is particular to a period stays with it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from log_rows import DAY, habit_log, opened

from luckyfast.batches import Batch, Moments, cut_segment, measure
from luckyfast.drift import Drift
from luckyfast.models import ModelConfig, build
from luckyfast.training import train
from luckyfast.windows import Split, split_by_time, target_visits

SMALL = ModelConfig(hidden=8, embedding=6, n_half_lives=2, visit_spans=(3.0,), habit_hidden=3)


def test_periods_are_equal_stretches_and_the_last_one_is_0() -> None:
    with opened(habit_log(n_customers=2)) as dataset:
        constants = measure(dataset, 50 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        drift = Drift(4, build(SMALL, constants))
    assert drift.periods(np.array([0.0, 0.2499, 0.25, 0.6, 0.9999, 1.0])).tolist() == [0, 0, 1, 2, 3, 3]


def test_the_mean_over_periods_is_left_in_the_network() -> None:
    with opened(habit_log(n_customers=3, n_visits=6)) as dataset:
        constants = measure(dataset, 200 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        torch.manual_seed(0)
        network = build(SMALL, constants).eval()
        histories = next(dataset.batches())
        start = histories.visit_start.astype(np.int64)
        batch = Batch(histories, Moments.of(histories, constants), start[:-1], start[1:])
        segment = cut_segment(batch, constants, 0, 10, None, habit=True)
        drift = Drift(2, network)
        for offsets in drift.parameters():
            torch.nn.init.normal_(offsets)
        shares = np.array([0.25, 0.75])
        with torch.no_grad():
            memory, _ = network.remember(segment, network.start(3))
            n = len(segment.visits)
            in_each = [network.predict(memory, segment, drift(torch.full((n,), period))) for period in range(2)]
            drift.settle(network, shares)
            settled = network.predict(memory, segment)
    # Logits are linear in the offsets, so that their mean is that of the logits.
    torch.testing.assert_close(settled, shares[0] * in_each[0] + shares[1] * in_each[1], atol=1e-5, rtol=1e-5)
    assert (in_each[0] - in_each[1]).abs().max() > 0.1


def fashion_log(n_customers: int = 60, n_visits: int = 24) -> list[Any]:
    """Late in the training time, and never again, every other visit has one more action."""
    rng = np.random.default_rng(0)
    rows: list[Any] = []
    for customer, visit in itertools.product(range(n_customers), range(n_visits)):
        day = customer % 30 + visit * 5
        actions = [f"a{action}" for action in rng.integers(8, size=2)]
        actions += ["fashion"] * (60 <= day < 75 and rng.random() < 0.5)
        rows += [(f"c{customer}", day * DAY, action, f"{customer}/{visit}") for action in actions]
    return rows


def test_a_fashion_is_not_taken_for_what_long_histories_do() -> None:
    split = Split(valid_start=75 * DAY, test_start=80 * DAY)
    chances = []
    with opened(fashion_log()) as dataset:
        fashion = dataset.vocabulary.index("fashion")
        for periods in (1, 8):
            config = ModelConfig(
                hidden=8, embedding=6, epochs=30, refit_epochs=0, batch_visits=64, learning_rate=0.01, periods=periods
            )
            model = train(dataset, split, config)
            histories = next(dataset.batches())
            _, scores = next(model.score(histories, target_visits(histories, split, "valid")))
            chances.append(torch.from_numpy(scores).softmax(1)[:, fashion].mean().item())
    without, with_periods = chances
    assert without > 0.08
    assert with_periods < 0.7 * without


@pytest.mark.parametrize("habit", [True, False])
def test_offsets_are_not_part_of_a_model(habit: bool) -> None:
    with opened(habit_log(n_customers=10)) as dataset:
        config = ModelConfig(hidden=4, embedding=4, epochs=1, habit=habit)
        model = train(dataset, split_by_time(dataset), config)
        expected = set(build(config, model.constants).state_dict())
    assert set(model.state) == expected
