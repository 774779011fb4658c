"""What every network must do, whatever its architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log, logs, opened

from luckyfast.batches import Batch, Constants, Moments, cut_segment, measure
from luckyfast.dataset import Histories
from luckyfast.errors import ModelError
from luckyfast.models import ModelConfig, build
from luckyfast.models.network import Network
from luckyfast.models.trained import TrainedModel, score_visits

ARCHS = ("mlp", "lstm", "lstm-embed")
SMALL = ModelConfig(hidden=6, embedding=5, window=3, n_half_lives=2, visit_spans=(3.0,), habit_hidden=3)


def random_network(config: ModelConfig, constants: Constants) -> Network:
    """A network all of whose parts matter."""
    torch.manual_seed(0)
    network = build(config, constants)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network.eval()


def all_scores(network: Network, config: ModelConfig, constants: Constants, histories: Histories) -> np.ndarray:
    """Scores of every visit, which come in order."""
    targets = np.arange(histories.n_visits)
    blocks = list(score_visits(network, config, constants, histories, targets))
    np.testing.assert_array_equal(np.concatenate([visits for visits, _ in blocks]), targets)
    return np.concatenate([scores for _, scores in blocks])


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("habit", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
def test_carried_state_equals_an_uncut_run(arch: str, habit: bool, layers: int) -> None:
    with opened(habit_log(n_customers=5, n_visits=17)) as dataset:
        constants = measure(dataset, 200 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        small = replace(SMALL, arch=arch, habit=habit, layers=layers)  # type: ignore[arg-type]
        network = random_network(small, constants)
        runs = [
            all_scores(network, replace(small, segment_visits=steps), constants, histories) for steps in (1, 4, 100)
        ]
    assert np.ptp(runs[0]) > 1
    np.testing.assert_allclose(runs[0], runs[2], atol=2e-5)
    np.testing.assert_allclose(runs[1], runs[2], atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(logs(max_customers=5), st.sampled_from(ARCHS), st.sampled_from([1, 2]), st.data())
def test_scores_depend_on_the_past_alone(rows: list, arch: str, layers: int, data: st.DataObject) -> None:
    """Hide the contents of some visits and all that follows: scores up to there stay as they were."""
    with opened(rows) as dataset:
        constants = measure(dataset, 20 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        config = replace(SMALL, arch=arch, layers=layers, segment_visits=3)  # type: ignore[arg-type]
        network = random_network(config, constants)
        scores = all_scores(network, config, constants, histories)
        customer = data.draw(st.integers(0, histories.n_customers - 1))
        first, stop = histories.visit_start[customer], histories.visit_start[customer + 1]
        cut = data.draw(st.integers(int(first), int(stop) - 1))
        actions, time = histories.actions.copy(), histories.visit_time.copy()
        hidden = slice(histories.action_start[cut], histories.action_start[stop])
        actions[hidden] = 1 + actions[hidden] % (dataset.n_actions - 1) if dataset.n_actions > 2 else 1
        time[cut + 1 : stop] += 77 * DAY
        changed = replace(histories, actions=actions, visit_time=time)
        other = all_scores(network, config, constants, changed)
    unseen = np.r_[0 : cut + 1, stop : histories.n_visits]
    np.testing.assert_allclose(other[unseen], scores[unseen], atol=1e-6)
    # A reader of labels would be caught: the visit after the cut does see the change.
    if cut + 1 < stop and not np.array_equal(actions, histories.actions):
        assert np.abs(other[cut + 1] - scores[cut + 1]).max() > 1e-6


@pytest.mark.parametrize("arch", ARCHS)
def test_the_order_inside_visits_changes_nothing(arch: str) -> None:
    with opened(habit_log(n_customers=4, n_visits=9)) as dataset:
        constants = measure(dataset, 200 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        config = replace(SMALL, arch=arch)  # type: ignore[arg-type]
        network = random_network(config, constants)
        actions = histories.actions.copy()
        for start, stop in zip(histories.action_start[:-1], histories.action_start[1:], strict=True):
            actions[start:stop] = actions[start:stop][::-1]
        scores = all_scores(network, config, constants, histories)
        other = all_scores(network, config, constants, replace(histories, actions=actions))
    np.testing.assert_allclose(other, scores, atol=1e-5)


def test_habits_touch_the_actions_of_the_history_alone() -> None:
    with opened(habit_log(n_customers=3, n_visits=4)) as dataset:
        constants = measure(dataset, 200 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        start = histories.visit_start.astype(np.int64)
        batch = Batch(histories, Moments.of(histories, constants), start[:-1], start[1:])
        segment = cut_segment(batch, constants, 0, 10, None, habit=True)
        network = random_network(SMALL, constants)
        with torch.inference_mode():
            scores, _ = network(segment, network.start(3))
            network.residual = None
            plain, _ = network(segment, network.start(3))
    changed = torch.zeros_like(plain, dtype=torch.bool)
    assert segment.habits is not None
    changed[segment.habits.rows, segment.habits.actions] = True
    assert torch.equal(scores != plain, changed)


def test_a_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    with opened(habit_log(n_customers=3, n_visits=6)) as dataset:
        constants = measure(dataset, 10 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        network = random_network(SMALL, constants)
        state = {name: value.numpy() for name, value in network.state_dict().items()}
        model = TrainedModel(SMALL, constants, state, state)
        again = TrainedModel.load(tmp_path, model.save(tmp_path))
        (_, scores), (_, other) = (next(m.score(histories, np.array([2, 5, 7]))) for m in (model, again))
    assert again.config == SMALL
    np.testing.assert_array_equal(scores, other)
    settings_ = model.save(tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="damaged"):
        TrainedModel.load(tmp_path, settings_)


def test_unknown_architectures_and_settings_are_refused() -> None:
    with opened(habit_log(n_customers=2, n_visits=3)) as dataset:
        constants = measure(dataset, 10 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
    with pytest.raises(ModelError, match="gru"):
        build(replace(SMALL, arch="gru"), constants)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="depth"):
        ModelConfig.from_dict({"depth": 3})
    assert ModelConfig.from_dict(SMALL.to_dict()) == SMALL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", 0),
        ("hidden", 8.5),
        ("hidden", True),
        ("layers", 0),
        ("dropout", 1.0),
        ("dropout", "much"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("label_smoothing", 1.0),
        ("epochs", 0),
        ("visit_spans", [2.0, -1.0]),
        ("visit_spans", 3.0),
        ("schedule", "cyclic"),
        ("arch", "gru"),
        ("habit", "no"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ModelError, match=name) as caught:
        ModelConfig.from_dict({name: value})
    assert caught.value.hint


def test_settings_of_before_mean_what_they_meant() -> None:
    settings_ = ModelConfig().to_dict()
    for name in ("layers", "schedule", "label_smoothing"):
        del settings_[name]
    assert ModelConfig.from_dict(settings_) == ModelConfig()


def test_every_setting_has_a_range() -> None:
    values = ModelConfig().to_dict()
    assert ModelConfig.from_dict(values) == ModelConfig()
    for name, value in values.items():
        with pytest.raises(ModelError, match=name):
            ModelConfig.from_dict({name: "nonsense" if isinstance(value, str | bool | tuple) else -1e9})
