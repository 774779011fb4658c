from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_model import ACTIONS, make_calibration, make_dataset, make_trained

from luckyfast.calibration import Calibration
from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import ModelError
from luckyfast.export import export_onnx
from luckyfast.inference import Packed, Predictor, pack
from luckyfast.models.trained import TrainedModel
from luckyfast.trend import HALF_LIVES, LARGEST, SHRINKAGE, measure_trend
from luckyfast.windows import Labels

Arch = Literal["mlp", "lstm", "lstm-embed"]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("clock") / "data")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("order") / "data", clock=False)


def pack_targets(histories: Histories, targets: NDArray[np.int64]) -> Packed:
    owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
    return pack(
        histories.visit_start[owners].astype(np.int64),
        targets,
        histories.visit_time,
        histories.action_start,
        histories.actions.astype(np.int64),
        histories.visit_time[targets],
    )


def both_ways(dataset: Dataset, folder: Path, arch: Arch, habit: bool, layers: int) -> list[tuple[Pair, Pair]]:
    """Chances of every visit of a dataset, first visits included: by PyTorch and by ONNX Runtime."""
    trained, _ = make_trained(dataset, arch=arch, habit=habit, layers=layers)
    predictor = Predictor(
        export_onnx(trained, make_calibration(dataset), folder / "m.onnx", vocabulary=dataset.vocabulary)
    )
    pairs = []
    for histories in dataset.batches():
        targets = np.arange(histories.n_visits)
        scores = np.concatenate([block for _, block in trained.score(histories, targets)])
        size = Labels.of(histories, targets, trained.constants.known).mean_size
        torch_way = make_calibration(dataset).in_visit(scores, size), make_calibration(dataset).next_action(scores)
        pairs.append((torch_way, run_on_their_days(predictor, trained, histories, targets)))
    return pairs


def run_on_their_days(
    predictor: Predictor, trained: TrainedModel, histories: Histories, targets: NDArray[np.int64]
) -> Pair:
    """Run each visit with the trends of its day, the ones of the last day left to the model's own."""
    trend = trained.constants.trend
    if trend is None:
        return predictor.run(pack_targets(histories, targets))
    in_visit = np.empty((len(targets), predictor.n_actions), np.float32)
    next_action = np.empty_like(in_visit)
    rows = trend.rows_at(histories.visit_time[targets])
    assert len(set(rows.tolist())) > 20
    for row in set(rows.tolist()):
        own = np.flatnonzero(rows == row)
        packed = pack_targets(histories, targets[own])
        in_visit[own], next_action[own] = predictor.run(packed, trend.values[:, row])
    return in_visit, next_action


def test_without_trends_given_those_at_the_end_of_the_log_are_taken(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock)
    predictor = Predictor(
        export_onnx(trained, make_calibration(clock), tmp_path / "m.onnx", vocabulary=clock.vocabulary)
    )
    packed = pack_targets(next(clock.batches()), np.array([5, 9]))
    trend = trained.constants.trend
    assert trend is not None
    for own, expected in zip(predictor.run(packed), predictor.run(packed, trend.latest), strict=True):
        np.testing.assert_array_equal(own, expected)
    assert np.abs(predictor.run(packed, trend.values[:, 0])[0] - predictor.run(packed)[0]).max() > 1e-3
    metadata = onnx.load(tmp_path / "m.onnx").metadata_props
    told = json.loads(next(entry.value for entry in metadata if entry.key == "trend"))
    again = measure_trend(clock, np.array(told["popularity"]))
    assert again is not None
    np.testing.assert_allclose(again.values, trend.values, atol=1e-6)
    assert (tuple(told["half_lives"]), told["shrinkage"], told["largest"]) == (HALF_LIVES, SHRINKAGE, LARGEST)


@pytest.mark.parametrize("kind", ["clock", "order"])
@pytest.mark.parametrize(("habit", "layers"), [(True, 1), (False, 1), (True, 2), (False, 3)])
@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_onnx_runtime_and_pytorch_agree(
    tmp_path: Path, arch: Arch, habit: bool, layers: int, kind: str, request: pytest.FixtureRequest
) -> None:
    for torch_way, onnx_way in both_ways(request.getfixturevalue(kind), tmp_path, arch, habit, layers):
        for expected, found in zip(torch_way, onnx_way, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
            # Agreement would mean little if all visits had the same chances.
            assert np.ptp(expected, axis=0).max() > 0.05


def test_small_chances_keep_their_digits(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock)
    rare = Calibration(1.0, 1.0, -20.0, 0.0)
    predictor = Predictor(export_onnx(trained, rare, tmp_path / "m.onnx", vocabulary=clock.vocabulary))
    histories = next(clock.batches())
    in_visit, next_action = predictor.run(pack_targets(histories, np.array([5])))
    np.testing.assert_allclose(in_visit, next_action * np.exp(-20.0), rtol=1e-5, atol=1e-16)


def test_extreme_fits_are_bounded_as_in_python(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock)
    histories, targets = next(clock.batches()), np.array([5])
    ((_, scores),) = trained.score(histories, targets)
    sure = Calibration(1.0, 1.0, 800.0, 0.0, knots=(0.0,), bends=(-0.9,), odds_intercept=-3.0)
    predictor = Predictor(export_onnx(trained, sure, tmp_path / "m.onnx", vocabulary=clock.vocabulary))
    in_visit, _ = predictor.run(pack_targets(histories, targets))
    np.testing.assert_allclose(in_visit, sure.in_visit(scores, np.ones(1)), rtol=1e-5)


def test_padding_and_company_change_nothing(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock, arch="lstm-embed")
    predictor = Predictor(
        export_onnx(trained, make_calibration(clock), tmp_path / "m.onnx", vocabulary=clock.vocabulary)
    )
    histories = next(clock.batches())
    targets = np.arange(0, histories.n_visits, 7)
    together, _ = predictor.run(pack_targets(histories, targets))
    for row, target in enumerate(targets):
        alone, _ = predictor.run(pack_targets(histories, np.array([target])))
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-6)


def test_the_file_tells_what_it_is(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock)
    predictor = Predictor(
        export_onnx(trained, make_calibration(clock), tmp_path / "m.onnx", vocabulary=clock.vocabulary)
    )
    assert predictor.vocabulary == clock.vocabulary
    assert set(ACTIONS) <= set(predictor.vocabulary)
    assert (predictor.time_kind, predictor.time_scale) == ("clock", trained.constants.time_scale)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.version for entry in model.opset_import} == {18}
    assert [value.name for value in model.graph.output] == ["in_visit", "next_action"]


def test_another_vocabulary_is_refused(clock: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(clock)
    with pytest.raises(ValueError, match="the vocabulary 1"):
        export_onnx(trained, make_calibration(clock), tmp_path / "m.onnx", vocabulary=["<unknown>"])


def test_bad_files_say_what_to_do(tmp_path: Path, clock: Dataset) -> None:
    with pytest.raises(ModelError, match="no exported model"):
        Predictor(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="damaged"):
        Predictor(tmp_path / "bad.onnx")
    trained, _ = make_trained(clock)
    file = export_onnx(trained, make_calibration(clock), tmp_path / "old.onnx", vocabulary=clock.vocabulary)
    model = onnx.load(file)
    next(entry for entry in model.metadata_props if entry.key == "format_version").value = "0"
    onnx.save(model, file)
    with pytest.raises(ModelError, match="has format luckyfast-onnx 0"):
        Predictor(file)


@given(st.lists(st.lists(st.sets(st.integers(0, 5), max_size=4), max_size=5), max_size=6), st.data())
def test_pack_equals_its_naive_twin(customers: list[list[set[int]]], data: st.DataObject) -> None:
    visits = [sorted(visit) for customer in customers for visit in customer]
    starts = np.cumsum([0, *(len(customer) for customer in customers)])
    first = [data.draw(st.integers(int(start), int(stop))) for start, stop in pairwise(starts)]
    packed = pack(
        np.array(first, np.int64),
        starts[1:].astype(np.int64),
        np.arange(100, 100 + len(visits)),
        np.cumsum([0, *map(len, visits)]).astype(np.int32),
        np.array([action for visit in visits for action in visit], np.int64),
        np.zeros(len(customers), np.int64),
    )
    for row, (start, stop) in enumerate(zip(first, starts[1:], strict=True)):
        assert packed.n_visits[row] == stop - start
        assert packed.times[row, : stop - start].tolist() == list(range(100 + start, 100 + stop))
        expected = [(action, v) for v, visit in enumerate(visits[start:stop]) for action in visit if action]
        real = packed.visits[row] >= 0
        found = zip(packed.actions[row, real].tolist(), packed.visits[row, real].tolist(), strict=True)
        assert list(found) == expected
        assert not packed.actions[row, ~real].any()
