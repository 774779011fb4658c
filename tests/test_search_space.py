"""Points and settings: every value has its place, and bad files are refused in one sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luckyfast.errors import ModelError
from luckyfast.models import ModelConfig
from luckyfast.search.space import Dimension, Space, default_space, read_space

ALL = [
    Dimension("hidden", "log", (3, 400)),
    Dimension("learning_rate", "log", (1e-4, 1e-1)),
    Dimension("dropout", "linear", (0.0, 0.7)),
    Dimension("n_half_lives", "linear", (2, 8)),
    Dimension("batch_visits", "ordered", (128, 256, 1024)),
    Dimension("visit_spans", "choice", ((2.0,), (2.0, 8.0))),
]


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == (pytest.approx(other[name]) if isinstance(value, float) else other[name]), name


@given(st.sampled_from(ALL), st.floats(0, 1))
def test_what_is_encoded_decodes_to_itself(dimension: Dimension, u: float) -> None:
    value = dimension.decode(u)
    again = dimension.decode(dimension.encode(value))
    assert again == pytest.approx(value) if isinstance(value, float) else again == value


@pytest.mark.parametrize("dimension", ALL, ids=lambda d: d.name)
def test_values_lie_within_and_both_ends_are_reached(dimension: Dimension) -> None:
    values = [dimension.decode(u) for u in np.linspace(0, 1, 2001)]
    if dimension.kind in ("log", "linear"):
        assert min(values) == pytest.approx(dimension.values[0])
        assert max(values) == pytest.approx(dimension.values[1])
        assert values == sorted(values)
    else:
        assert set(values) == set(dimension.values)


@pytest.mark.parametrize("dimension", [d for d in ALL if d.name in ("n_half_lives", "batch_visits", "visit_spans")])
def test_each_listed_value_has_the_same_share(dimension: Dimension) -> None:
    values = [dimension.decode(u) for u in (np.arange(4200) + 0.5) / 4200]
    shares = [len(list(group)) / len(values) for _, group in itertools.groupby(values)]
    assert shares == pytest.approx([1 / len(shares)] * len(shares), abs=0.01)


@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
@pytest.mark.parametrize("habit", [False, True])
def test_the_default_space_holds_the_default_and_makes_good_settings(arch: str, habit: bool) -> None:
    config = ModelConfig(arch=arch, habit=habit)  # type: ignore[arg-type]
    space = default_space(config, fixed=("dropout",))
    assert_same(space.decode(space.encode(space.start)), dict(space.start))
    rng = np.random.default_rng(0)
    for _ in range(50):
        settings = space.decode(rng.uniform(size=len(space.dimensions)))
        assert ModelConfig.from_dict(settings).to_dict() == settings
        assert settings["dropout"] == config.dropout
    names = {dimension.name for dimension in space.dimensions}
    assert ("habit_strength" in names) == habit
    assert ("window" in names) == (arch == "mlp")
    assert {"layers", "schedule", "label_smoothing"} <= names


def test_a_default_outside_widens_the_bounds() -> None:
    space = default_space(ModelConfig(hidden=2000, batch_visits=100))
    assert_same(space.decode(space.encode(space.start)), dict(space.start))


def test_a_space_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        "hidden = {log = [32, 4096]}\ndropout = {linear = [0, 0.5]}\nepochs = 2\n"
        "batch_visits = {ordered = [256, 512]}\nvisit_spans = {choice = [[2.0], [2.0, 8.0]]}\n"
    )
    space = read_space(file, ModelConfig(), fixed=("dropout",))
    assert [d.name for d in space.dimensions] == ["hidden", "batch_visits", "visit_spans"]
    assert space.start["epochs"] == 2
    settings = space.decode([1.0, 0.0, 1.0])
    assert (settings["hidden"], settings["batch_visits"]) == (4096, 256)
    assert Space(space.dimensions, space.start).to_dict() == space.to_dict()


def test_a_search_stays_within_the_ranges_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        "hidden = {log = [16, 64]}\nlabel_smoothing = {log = [0.01, 0.1]}\nbatch_visits = {ordered = [8, 16]}\n"
        "schedule = {choice = ['linear', 'constant']}\n"
    )
    space = read_space(file, ModelConfig())
    assert [space.start[d.name] for d in space.dimensions] == [64, 0.01, 16, "linear"]
    assert_same(space.decode(space.encode(space.start)), dict(space.start))
    for corner in (0.0, 1.0):
        settings = space.decode([corner] * 4)
        assert settings["hidden"] in (16, 64)
        assert settings["batch_visits"] in (8, 16)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hiden = {log = [1, 2]}", "no setting hiden"),
        ("arch = 'mlp'", "no setting arch"),
        ("hidden = {log = [64, 32]}", "hidden has no range"),
        ("hidden = {log = [0, 32]}", "hidden has no range"),
        ("hidden = {between = [1, 2]}", "hidden has no range"),
        ("hidden = {log = [1, 2], linear = [1, 2]}", "hidden has no range"),
        ("hidden = {ordered = [1]}", "hidden has no range"),
        ("hidden = [", "no readable space"),
        ("hidden = 0", "hidden is 0"),
        ("hidden = {log = [0.5, 32]}", "hidden has no range"),
        ("layers = {log = [1.2, 1.8]}", "layers has no range"),
        ("dropout = {linear = [false, true]}", "dropout has no range"),
        ("visit_spans = {ordered = [[2.0], [2.0, 8.0]]}", "visit_spans has no range"),
        ("dropout = {ordered = [0.1, 1.5]}", "dropout is 1.5"),
        ("schedule = {choice = ['cosine', 'cyclic']}", "schedule is 'cyclic'"),
        ("visit_spans = {choice = [[2.0], [0.0]]}", "visit_spans is"),
        ("label_smoothing = 'some'", "label_smoothing is 'some'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(ModelError, match=said) as caught:
        read_space(file, ModelConfig())
    assert caught.value.hint


def test_a_missing_file() -> None:
    with pytest.raises(ModelError, match=r"nowhere\.toml"):
        read_space("nowhere.toml", ModelConfig())
