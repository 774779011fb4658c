"""Side columns in the networks: read from the past alone, alike in all forms, and learnt where they tell something."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from feature_rows import FEATURES, ROLES, Line, make_side_dataset, write_log
from numpy.typing import NDArray
from tiny_model import knowing_the_end, make_calibration, make_model, make_trained, without_trends
from torch import Tensor
from twin_ops import TwinOps

from luckyfast import checkpoint as checkpoint_module
from luckyfast import load
from luckyfast.batches import Batch, Moments, cut_segment, measure
from luckyfast.blindness import assert_blind
from luckyfast.cli import main
from luckyfast.dataset import Dataset, FeatureColumn, Histories
from luckyfast.errors import ModelError
from luckyfast.export import export_onnx
from luckyfast.features import check_features, read_features, table_starts
from luckyfast.inference import Predictor, Sides, pack
from luckyfast.ingestion import ingest
from luckyfast.models import ModelConfig, build
from luckyfast.models.fused import FusedOps
from luckyfast.models.trained import TrainedModel, score_visits
from luckyfast.prediction import predict
from luckyfast.training import train
from luckyfast.windows import Labels, split_by_time, target_visits

ARCHS = ("mlp", "lstm", "lstm-embed")
EVERY_ARCH = pytest.mark.parametrize("arch", ARCHS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_side_dataset(tmp_path_factory.mktemp("side"))


def scores_of(trained: TrainedModel, histories: Histories) -> NDArray[np.float32]:
    targets = np.arange(histories.n_visits)
    return np.concatenate([block for _, block in trained.score(histories, targets)])


def with_features(histories: Histories, features: tuple[FeatureColumn, ...]) -> Histories:
    return replace(histories, features=features)


def swap(histories: Histories, visits: NDArray[np.int64]) -> tuple[FeatureColumn, ...]:
    """The side columns with others at some visits."""
    columns = []
    for column in histories.features:
        values, rows = column.values.copy(), column.rows.copy()
        values[visits], rows[visits] = np.where(rows[visits] > 0, 0, values.max()), rows[visits] == 0
        columns.append(FeatureColumn(values, rows))
    return tuple(columns)


def test_inputs_equal_their_naive_twin(dataset: Dataset) -> None:
    split = split_by_time(dataset)
    scales = measure(dataset, split.valid_start, n_half_lives=1, visit_spans=(1.0,), strength=1.0).features
    assert [(scale.name, scale.kind) for scale in scales] == [(own.name, own.kind) for own in dataset.features]
    histories = next(dataset.batches())
    found, starts = read_features(histories, scales), iter(table_starts(scales))
    numbers = [(s, c) for s, c in zip(scales, histories.features, strict=True) if s.kind == "number"]
    for k, (scale, column) in enumerate(numbers):
        logs: list[list[float]] = [[], []]
        for visit, (value, rows) in enumerate(zip(column.values.tolist(), column.rows.tolist(), strict=True)):
            if rows and histories.visit_time[visit] < split.valid_start:
                for own, number in zip(logs, (value / 1e6, value / 1e6 / rows), strict=True):
                    own.append(float(np.sign(number) * np.log(1 + abs(number))))
        np.testing.assert_allclose(scale.means, [np.mean(own) for own in logs])
        np.testing.assert_allclose(scale.deviations, [np.std(own) for own in logs])
        for visit in range(0, histories.n_visits, 5):
            total, rows = column.values[visit] / 1e6, column.rows[visit]
            expected = [0.0, 0.0, 1.0]
            if rows:
                pairs = zip((total, total / rows), scale.means, scale.deviations, strict=True)
                expected = [np.clip((np.sign(x) * np.log1p(abs(x)) - m) / d, -5, 5) for x, m, d in pairs] + [0.0]
            np.testing.assert_allclose(found.numbers[visit, 3 * k : 3 * k + 3], expected, atol=1e-6)
    for k, column in enumerate(c for s, c in zip(scales, histories.features, strict=True) if s.kind == "category"):
        np.testing.assert_array_equal(found.categories[:, k], next(starts) + column.values)
    assert found.numbers[:, 2].mean() > 0.05


def test_nothing_of_the_future_is_measured(dataset: Dataset) -> None:
    """Side columns after the training time may be anything: what is measured stays the same."""
    stop = split_by_time(dataset).valid_start

    class Changed(Dataset):
        def batches(self) -> Iterator[Histories]:
            for histories in super().batches():
                later = np.flatnonzero(histories.visit_time >= stop)
                yield with_features(histories, swap(histories, later))

    other = Changed.open(dataset.path)
    measured = [
        measure(data, stop, n_half_lives=1, visit_spans=(1.0,), strength=1.0).features for data in (dataset, other)
    ]
    assert measured[0] == measured[1]


@EVERY_ARCH
def test_scores_depend_on_the_past_alone(dataset: Dataset, arch: Any) -> None:
    trained, _ = make_trained(dataset, arch=arch)
    histories = next(dataset.batches())
    scores = scores_of(trained, histories)
    for visit in (0, 7, histories.n_visits // 2):
        other = scores_of(trained, with_features(histories, swap(histories, np.array([visit]))))
        changed = np.abs(other - scores).max(axis=1) > 1e-6
        owner = int(np.searchsorted(histories.visit_start, visit, side="right")) - 1
        later = np.zeros(len(changed), np.bool_)
        later[visit + 1 : histories.visit_start[owner + 1]] = True
        assert not changed[~later].any()
        if later.any():
            assert changed[visit + 1]


@EVERY_ARCH
def test_carried_state_equals_an_uncut_run(dataset: Dataset, arch: Any) -> None:
    trained, _ = make_trained(dataset, arch=arch)
    histories = next(dataset.batches())
    runs = []
    for n_steps in (1, 4, 100):
        config = replace(trained.config, segment_visits=n_steps)
        targets = np.arange(histories.n_visits)
        blocks = score_visits(trained.network(), config, trained.constants, histories, targets)
        runs.append(np.concatenate([block for _, block in blocks]))
    np.testing.assert_allclose(runs[0], runs[2], atol=2e-5)
    np.testing.assert_allclose(runs[1], runs[2], atol=2e-5)


def test_models_are_blind_and_one_that_peeks_is_caught(dataset: Dataset) -> None:
    trained, split = make_trained(dataset)
    histories = next(dataset.batches())
    targets = target_visits(histories, split, "test")
    assert_blind(trained, histories, targets)

    class Peeks:
        name = "peeks"

        def __init__(self, which: int) -> None:
            self.which = which

        def score(
            self, histories: Histories, targets: NDArray[np.int64]
        ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            column = histories.features[self.which]
            scores = np.zeros((len(targets), dataset.n_actions), np.float32)
            scores[:, 1] = column.values[targets] % 997 + column.rows[targets]
            yield targets, scores

    for which in range(len(dataset.features)):
        with pytest.raises(ModelError, match="sees the future"):
            assert_blind(Peeks(which), histories, targets)


@EVERY_ARCH
def test_both_forms_have_the_same_gradients(dataset: Dataset, arch: Any) -> None:
    config = ModelConfig(arch=arch, hidden=9, embedding=7, dropout=0.3, n_half_lives=2, visit_spans=(3.0,))
    constants = measure(dataset, 1 << 60, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
    histories = next(dataset.batches())
    start = histories.visit_start.astype(np.int64)
    order = np.argsort(start[:-1] - start[1:], kind="stable")
    batch = Batch(histories, Moments.of(histories, constants), start[:-1][order], start[1:][order])
    grads: list[dict[str, Tensor]] = []
    for ops in (TwinOps(), FusedOps()):
        torch.manual_seed(2)
        network = build(config, constants, ops=ops)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.3)
        state = network.start(len(batch.first))
        for offset in (0, 6):
            segment = cut_segment(batch, constants, offset, 6, None, habit=True)
            state = tuple(part[: segment.shape[1]] for part in state)
            ones = np.ones(len(segment.visits), np.float32)
            loss, state = network.loss(segment, state, ones, float(len(segment.label_actions)))
            loss.backward()  # type: ignore[no-untyped-call]
            state = tuple(part.detach() for part in state)
        grads.append({name: own.grad for name, own in network.named_parameters() if own.grad is not None})
    assert {"side.weight", "side.table"} <= set(grads[0])
    for name, plain in grads[0].items():
        assert plain.abs().max() > 1e-6
        torch.testing.assert_close(grads[1][name], plain, atol=1e-5, rtol=1e-3)


def test_what_a_seed_gives_does_not_change_where_nothing_is_kept(dataset: Dataset) -> None:
    """The other weights begin alike with side columns and without, and without them nothing is there at all."""
    constants = measure(dataset, 1 << 60, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
    states = []
    for own in (constants, replace(constants, features=())):
        torch.manual_seed(5)
        states.append(build(ModelConfig(n_half_lives=2, visit_spans=(3.0,)), own).state_dict())
    assert set(states[0]) - set(states[1]) == {"side.weight", "side.table"}
    for name, tensor in states[1].items():
        assert torch.equal(tensor, states[0][name])


@pytest.mark.parametrize("kept", [FEATURES, "price,age", "brand", "store_id,brand"])
@EVERY_ARCH
def test_onnx_runtime_and_pytorch_agree(tmp_path: Path, arch: Any, kept: str) -> None:
    whole = make_side_dataset(tmp_path)
    ingest(tmp_path / "log.csv", tmp_path / "kept", feature=kept, workers=1, **ROLES)
    dataset = Dataset.open(tmp_path / "kept")
    trained = knowing_the_end(make_trained(dataset, arch=arch, layers=2)[0])
    predictor = Predictor(
        export_onnx(trained, make_calibration(dataset), tmp_path / "m.onnx", vocabulary=dataset.vocabulary)
    )
    assert [own["name"] for own in predictor.features] == kept.split(",")
    histories = next(dataset.batches())
    targets = np.arange(histories.n_visits)
    scores = scores_of(trained, histories)
    size = Labels.of(histories, targets, trained.constants.known).mean_size
    owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
    columns = list(zip(dataset.features, histories.features, strict=True))
    kinds = {"number": [np.zeros((histories.n_visits, 0))] * 2, "category": [np.zeros((histories.n_visits, 0))]}
    for info, column in columns:
        own = [column.values / 1e6, column.rows] if info.kind == "number" else [column.values]
        kinds[info.kind] = [np.column_stack((a, b)) for a, b in zip(kinds[info.kind], own, strict=True)]
    sides = Sides(kinds["number"][0], kinds["number"][1].astype(np.int64), kinds["category"][0].astype(np.int64))
    packed = pack(
        histories.visit_start[owners].astype(np.int64),
        targets,
        histories.visit_time,
        histories.action_start,
        histories.actions.astype(np.int64),
        histories.visit_time[targets],
        sides,
    )
    found = predictor.run(packed)
    np.testing.assert_allclose(found[0], make_calibration(dataset).in_visit(scores, size), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], make_calibration(dataset).next_action(scores), rtol=0, atol=1e-5)
    blind = predictor.run(replace(packed, sides=None))
    assert np.abs(blind[1] - found[1]).max() > 1e-3
    assert whole.n_visits == dataset.n_visits


@pytest.fixture(scope="module")
def model_folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = without_trends(make_trained(dataset, arch="lstm-embed")[0])  # other logs here have other trends
    return make_model(tmp_path_factory.mktemp("model") / "model", dataset, trained=trained)


def chances(file: Path) -> dict[str, list[float]]:
    return {row.pop("customer"): list(row.values()) for row in pq.read_table(file).to_pylist()}


def test_one_history_alone_gets_what_a_dataset_gets(dataset: Dataset, model_folder: Path, tmp_path: Path) -> None:
    model = load(model_folder)
    assert model.features == {own.name: own.kind for own in dataset.features}
    found = chances(predict(model_folder, out=tmp_path / "all.parquet", threads=1).path)
    histories = next(dataset.batches())
    at = dataset.manifest["time"]["max"] + 1
    for customer in range(0, histories.n_customers, 4):
        visits, features = [], []
        for visit in range(*histories.visit_start[customer : customer + 2].tolist()):
            pairs = slice(*histories.action_start[visit : visit + 2].tolist())
            actions = [dataset.vocabulary[action] for action in histories.actions[pairs]]
            visits.append((int(histories.visit_time[visit]), actions))
            own: dict[str, Any] = {}
            for info, column in zip(dataset.features, histories.features, strict=True):
                n = int(column.rows[visit])
                if info.kind == "number":
                    own[info.name] = [column.values[visit] / 1e6 / max(n, 1)] * n + [None]
                elif n:
                    own[info.name] = info.categories[column.values[visit] - 1]
            features.append(own)
        name = histories.customers[customer].as_py()
        together = model.predict_proba(visits, at=at, features=features)
        np.testing.assert_allclose(together, found[name], rtol=0, atol=1e-5)
        backwards = model.predict_proba(visits[::-1], at=at, features=features[::-1])
        np.testing.assert_allclose(backwards, together, rtol=0, atol=1e-6)
        if len(visits) > 3:
            assert np.abs(model.predict_proba(visits, at=at) - together).max() > 1e-4
            nothing = model.predict_proba(visits, at=at, features=[{} for _ in visits])
            np.testing.assert_array_equal(nothing, model.predict_proba(visits, at=at))


def test_wrong_features_of_a_history_are_told(model_folder: Path) -> None:
    model = load(model_folder)
    history = [("2024-01-02", ["MILK"]), ("2024-01-05", ["TEA"])]
    with pytest.raises(ModelError, match="features of 1 visits, and 2 visits"):
        model.predict_proba(history, features=[{}])
    with pytest.raises(ModelError, match="no feature 'colour'"):
        model.predict_proba(history, features=[{}, {"colour": "red"}])
    with pytest.raises(ModelError, match="a value that is none"):
        model.top(history, features=[{}, {"price": "much"}])
    numbers = [{"price": 3, "brand": "own"}, {"price": [1, 2.5], "brand": ["third", "own", "third"]}]
    assert len(model.top(history, k=2, features=numbers)) == 2
    nothing = model.predict_proba(history)
    for absent in (None, float("nan"), "nan", float("inf"), [], np.array([np.nan]), [None, "nan"]):
        found = model.predict_proba(history, features=[{"price": absent}, {}])
        np.testing.assert_array_equal(found, nothing)
    of_list = model.predict_proba(history, features=[{"price": [1, 2.5]}, {}])
    assert (of_list != nothing).any()
    for array in (np.array([1, 2.5, np.nan]), (1, 2.5)):
        np.testing.assert_array_equal(model.predict_proba(history, features=[{"price": array}, {}]), of_list)


def test_other_datasets_are_matched_by_name(dataset: Dataset, model_folder: Path, tmp_path: Path) -> None:
    """Another order of columns, other ids of categories, columns that are not there."""
    log = dataset.path.parent / "log.csv"
    expected = chances(predict(model_folder, out=tmp_path / "a.parquet", threads=1).path)
    more = log.read_text(encoding="utf-8") + "zz,2024-01-01 10:00,MILK,zz,1,atlantis,brandless,3\n"
    (tmp_path / "more.csv").write_text(more, encoding="utf-8")
    ingest(tmp_path / "more.csv", tmp_path / "other", feature="age:number,brand,price,store_id", **ROLES)
    summary = predict(model_folder, tmp_path / "other", out=tmp_path / "b.parquet", threads=1)
    found = chances(summary.path)
    assert summary.missing_features == []
    for name, own in expected.items():
        np.testing.assert_allclose(found[name], own, rtol=0, atol=1e-6)
    ingest(log, tmp_path / "less", feature="price,brand:category,age:category", **ROLES)
    summary = predict(model_folder, tmp_path / "less", out=tmp_path / "c.parquet", threads=1)
    assert summary.missing_features == ["store_id", "age"]
    found = chances(summary.path)
    assert max(np.abs(np.subtract(found[name], own)).max() for name, own in expected.items()) > 1e-4

    trained, _ = make_trained(dataset)
    for path in ("other", "less"):
        other = Dataset.open(tmp_path / path)
        with pytest.raises(ModelError, match="fitted with the features price, store_id, brand, age"):
            check_features(other, trained.constants.features)
    with pytest.raises(ModelError, match="fitted with the features"):
        scores_of(trained, next(Dataset.open(tmp_path / "less").batches()))
    with pytest.raises(ModelError, match="fitted with the features"):
        load(model_folder).evaluate(tmp_path / "less")


def test_a_model_comes_back_from_its_folder(dataset: Dataset, tmp_path: Path) -> None:
    trained, _ = make_trained(dataset)
    again = TrainedModel.load(tmp_path, trained.save(tmp_path))
    assert again.constants.features == trained.constants.features
    histories = next(dataset.batches())
    np.testing.assert_array_equal(scores_of(again, histories), scores_of(trained, histories))


def telling_log(path: Path, column: int) -> Path:
    """Customers whose next action is told by a side column of the visit before, and by nothing else."""
    draw = random.Random(3)
    lines = []
    for customer in range(120):
        told = "0"
        for visit in range(20):
            action = f"a{told}"
            told = str(draw.randrange(4))
            values = ["", "", "", ""]
            values[column] = str(10 ** int(told) * draw.choice([1, 2])) if column == 0 else f"s{told}"
            lines.append(Line(f"c{customer}", visit * 3, action, f"{customer}-{visit}", (*values,)))  # type: ignore[arg-type]
    return write_log(path / "log.csv", lines)


@pytest.mark.parametrize(("feature", "column"), [("price:number", 0), ("store_id:category", 1)])
@EVERY_ARCH
def test_what_a_side_column_tells_is_learnt(tmp_path: Path, arch: Any, feature: str, column: int) -> None:
    ingest(telling_log(tmp_path, column), tmp_path / "data", feature=feature, **ROLES)
    data = Dataset.open(tmp_path / "data")
    split = split_by_time(data)
    hits = []
    for features in (True, False):
        config = ModelConfig(
            arch=arch,
            features=features,
            hidden=32,
            embedding=16,
            epochs=14,
            learning_rate=0.02,
            dropout=0.1,
            habit=False,
        )
        lines: list[dict[str, Any]] = []
        train(data, split, replace(config, refit_epochs=0), on_epoch=lines.append)
        hits.append(max(line["valid_hit1"] for line in lines))
    assert hits[0] > 0.9
    assert hits[1] < 0.4


def test_a_training_goes_on_from_its_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "INTERVAL_S", 0.0)
    config = ModelConfig(hidden=8, embedding=8, epochs=4, refit_epochs=1, batch_visits=64)
    split, file = split_by_time(dataset), tmp_path / "training.npz"
    expected = train(dataset, split, config)

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    assert train(dataset, split, config, checkpoint=file, on_epoch=stop).interrupted
    resumed = train(dataset, split, config, checkpoint=file)
    assert np.abs(expected.state["side.table"]).max() > 0
    for name, array in expected.state.items():
        np.testing.assert_array_equal(resumed.state[name], array)
    with pytest.raises(ModelError, match="another dataset or other settings"):
        train(dataset, split, replace(config, features=False), checkpoint=file)


def test_fit_predict_and_evaluate(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--epochs", "1", "--hidden", "8", "--embedding", "8", "--threads", "1", "-q"]
    data = str(dataset.path)
    assert main(["fit", data, "--out", "with", *small]) == 0
    assert main(["fit", data, "--out", "without", "--no-features", *small]) == 0
    assert main(["predict", "with", "--out", "a.parquet", "-q"]) == 0
    assert main(["predict", "without", "--out", "b.parquet", "-q"]) == 0
    capsys.readouterr()
    assert main(["evaluate", data, "--model", "with", "--model", "without", "--no-baselines", "-q", "--json"]) == 0
    assert "with" in capsys.readouterr().out
    own, other = load(tmp_path / "with"), load(tmp_path / "without")
    assert list(own.features) == FEATURES.split(",")
    assert other.features == {}
    assert own.config["model"]["features"]
    measured = own.evaluate().figures["hit@1"].value
    assert measured == pytest.approx(own.metrics["systems"][0]["figures"]["hit@1"]["value"])
