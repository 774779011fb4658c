from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from naive_ingest import write_dataset
from tiny_model import ACTIONS, DAY, make_calibration, make_dataset, make_model, make_rows, make_trained

from luckyfast import windows
from luckyfast.calibration import calibrate
from luckyfast.cli import main
from luckyfast.dataset import Dataset
from luckyfast.errors import InputError, ModelError
from luckyfast.evaluation import evaluate
from luckyfast.model import Model, load
from luckyfast.models.trained import TrainedModel
from luckyfast.moments import Moment, parse_moment
from luckyfast.windows import split_by_time

History = list[tuple[Moment, str | list[str]]]
HISTORY: History = [("1970-01-02", ["MILK", "TEA"]), ("1970-01-09T10:30", ["MILK"]), ("1970-01-12", "BEER")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "data")


@pytest.fixture(scope="module")
def model(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_model(tmp_path_factory.mktemp("model") / "model", dataset))


def test_one_history_equals_what_pytorch_says(model: Model, dataset: Dataset) -> None:
    trained, _ = make_trained(dataset)
    histories = next(dataset.batches())
    names = dataset.vocabulary
    for customer in range(histories.n_customers):
        start, stop = histories.visit_start[customer : customer + 2].tolist()
        (_, scores), *_ = trained.score(histories, np.array([stop - 1]))
        visits = []
        for visit in range(start, stop - 1):
            pairs = slice(*histories.action_start[visit : visit + 2].tolist())
            visits.append((int(histories.visit_time[visit]), [names[action] for action in histories.actions[pairs]]))
        size = np.array([np.mean([len(actions) for _, actions in visits]) if visits else 0.0])
        moment = int(histories.visit_time[stop - 1])
        found = model.following(dataset.path, moment).predict_proba(visits, at=moment)
        np.testing.assert_allclose(found, make_calibration(dataset).in_visit(scores, size)[0, 1:], rtol=0, atol=1e-5)


def test_order_repeats_and_forms_of_time_do_not_matter(model: Model) -> None:
    expected = model.predict_proba(HISTORY, at="1970-01-15")
    zone = timezone(timedelta(hours=2))
    same: History = [
        (11 * DAY, ["BEER", "BEER"]),
        (datetime(1970, 1, 9, 12, 30, tzinfo=zone), ["MILK"]),
        (datetime(1970, 1, 2), ["TEA", "MILK"]),
    ]
    np.testing.assert_array_equal(model.predict_proba(same, at=datetime(1970, 1, 15, tzinfo=UTC)), expected)
    assert not np.array_equal(model.predict_proba(HISTORY[:2], at="1970-01-15"), expected)


def test_visits_at_or_after_the_moment_are_not_looked_at(model: Model) -> None:
    until = model.predict_proba(HISTORY[:2], at="1970-01-12")
    np.testing.assert_array_equal(model.predict_proba(HISTORY, at="1970-01-12"), until)


def test_without_a_moment_the_usual_pace_is_taken(model: Model) -> None:
    at = 11 * DAY + int(np.median([7.4375 * DAY, 2.5625 * DAY]))
    np.testing.assert_array_equal(model.predict_proba(HISTORY), model.predict_proba(HISTORY, at=at))
    later = DAY + round(model.config["constants"]["time_scale"])
    np.testing.assert_allclose(model.predict_proba(HISTORY[:1]), model.predict_proba(HISTORY[:1], at=later), atol=1e-6)


def test_unknown_names_are_left_out_with_a_warning(model: Model) -> None:
    known = model.predict_proba([("1970-01-02", ["MILK"]), ("1970-01-05", [])], at="1970-01-09")
    with pytest.warns(UserWarning, match="2 action names are not in the vocabulary"):
        found = model.predict_proba([("1970-01-02", ["MILK", "ZEBRA"]), ("1970-01-05", "YAK")], at="1970-01-09")
    np.testing.assert_array_equal(found, known)


def test_an_empty_history_is_a_cold_start(model: Model) -> None:
    chances = model.predict_proba([], at="1970-01-09")
    assert chances.shape == (len(ACTIONS),)
    assert ((chances > 0) & (chances < 1)).all()
    np.testing.assert_array_equal(
        model.predict_proba(HISTORY, at="1970-01-01"), model.predict_proba([], at="1970-01-01")
    )
    with pytest.raises(ModelError, match="empty history"):
        model.predict_proba([])


def test_top_names_the_best_first(model: Model) -> None:
    n_other = 0
    for action in ACTIONS:
        history: History = [*HISTORY, ("1970-01-14", action)]
        chances, next_action = model._predict(history, None, None)
        top = model.top(history, k=len(ACTIONS) + 5)
        assert sorted(name for name, _ in top) == sorted(ACTIONS)
        places = [model.actions.index(name) for name, _ in top]
        assert places[0] == chances.argmax()
        n_other += places[0] != next_action.argmax()
        others = np.delete(next_action, places[0])
        assert next_action[places[1:]].tolist() == sorted(others.tolist(), reverse=True)
        assert all(chance == chances[model.actions.index(name)] for name, chance in top)
        assert model.top(history, k=2) == top[:2]
    assert n_other > 0  # the likeliest is not always the most probable next action


@pytest.mark.parametrize(
    ("history", "kind", "message"),
    [
        ([("tomorrow", ["MILK"])], InputError, "not a moment"),
        ([("1970-01-02", 5)], ModelError, "no pair of a time and actions"),
        ([("1970-01-02", [5])], ModelError, "no action name"),
        (["MILK"], ModelError, "no pair"),
    ],
)
def test_other_forms_are_refused(model: Model, history: list[object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        model.predict_proba(history)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="k must be positive"):
        model.top(HISTORY, k=0)


def test_order_numbers_are_moments_where_there_is_no_clock() -> None:
    assert parse_moment("12", "order") == parse_moment(12, "order") == parse_moment(np.int64(12), "order") == 12
    with pytest.raises(InputError, match="not an order number"):
        parse_moment("1970-01-01", "order")
    for far in (2**63, -(10**20), "99999999999999999999"):
        with pytest.raises(InputError, match="not a moment"):
            parse_moment(far, "order")
    assert parse_moment("1969-12-31T23:59:59.999999", "clock") == -1


def test_a_fit_measures_lists_of_offers_and_their_offsets(tmp_path: Path) -> None:
    """What is bought alone is most often the next action, and more visits hold something else."""
    rng = np.random.default_rng(0)
    rows = []
    for number, time in enumerate(rng.integers(0, 100 * DAY, 1500).tolist()):
        alone = rng.random() < 0.45
        actions = ["COUPON"] if alone else ["MILK", *rng.choice(ACTIONS[2:], 3, replace=False).tolist()]
        rows += [(f"c{number % 40}", time, action, f"v{number}") for action in actions]
    dataset = Dataset.open(write_dataset(rows, tmp_path / "data"))
    small = ["--epochs", "3", "--hidden", "8", "--embedding", "8", "--threads", "1", "-q"]
    small += ["--set", "refit_epochs=0", "--set", "batch_visits=64"]
    assert main(["fit", str(dataset.path), "--out", str(tmp_path / "model"), *small]) == 0
    found = load(tmp_path / "model")
    trained, split = TrainedModel.load(found.path, found.config), split_by_time(dataset)
    calibration = calibrate(trained, dataset, split, earlier=True)
    assert calibration.offsets != calibrate(trained, dataset, split).offsets
    for name, value in calibration.to_dict().items():
        assert found.config["calibration"][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    figures = evaluate(trained, dataset, split, calibration, offers=True).figures
    for metric in ("hit@1", "ndcg@10"):
        assert found.metrics["systems"][0]["figures"][metric]["value"] == pytest.approx(figures[metric].value)
    assert evaluate(trained, dataset, split, calibration).figures["hit@1"] != figures["hit@1"]


def test_evaluate_measures_the_folder_again(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    result = model.evaluate()
    assert result.n_visits > 0
    assert result.figures == model.evaluate(dataset.path).figures
    trained, split = make_trained(dataset)
    by_score, as_offers = (
        evaluate(trained, dataset, split, make_calibration(dataset), offers=offers).figures for offers in (False, True)
    )
    assert result.figures == as_offers
    assert by_score["hit@1"] != as_offers["hit@1"]
    stranger = write_dataset([("c", time, "AARDVARK", None) for time in range(9)], tmp_path / "stranger")
    with pytest.raises(ModelError, match="another vocabulary"):
        model.evaluate(stranger)


def test_bad_folders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load(tmp_path / "none")
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": "luckyfast-model", "format_version": 99}))
    with pytest.raises(ModelError, match="model format 99"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="damaged"):
        load(tmp_path)


def test_predicting_loads_neither_torch_nor_numba(model: Model) -> None:
    code = (
        "import sys, luckyfast\n"
        f"model = luckyfast.load({str(model.path)!r})\n"
        "model.top([('1970-01-02', ['MILK'])])\n"
        "print(sorted({'torch', 'numba', 'pyarrow', 'onnx', 'nevergrad'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rare_actions_are_what_they_were_in_training(tmp_path: Path) -> None:
    rows = [(c, t, "<other>" if a in ("RICE", "FISH") else a, s) for c, t, a, s in make_rows()]
    model = load(make_model(tmp_path / "model", Dataset.open(write_dataset(rows, tmp_path / "dataset"))))
    known = model.predict_proba([(DAY, ["MILK", "<other>"]), (3 * DAY, "<other>")], at=5 * DAY)
    with pytest.warns(UserWarning, match="taken as <other>, such as 'FISH'"):
        found = model.predict_proba([(DAY, ["RICE", "MILK", "FISH"]), (3 * DAY, "FISH")], at=5 * DAY)
    np.testing.assert_array_equal(found, known)


def test_damaged_weights_are_named(model: Model, tmp_path: Path) -> None:
    content = (model.path / "weights.npz").read_bytes()
    for cut in (0, 4, len(content) // 2, len(content) - 1):
        (tmp_path / "weights.npz").write_bytes(content[:cut])
        with pytest.raises(ModelError, match="is damaged"):
            TrainedModel.load(tmp_path, model.config)


def test_targets_of_long_histories_see_many_visits_and_not_all(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = make_trained(dataset, arch="lstm-embed")
    histories = next(dataset.batches())
    targets = np.flatnonzero(np.arange(histories.n_visits) % 3 > 0)
    scores = {}
    for most in (4, 2**14):
        monkeypatch.setattr(windows, "MAX_VISITS", most)
        blocks = list(model.score(histories, targets))
        np.testing.assert_array_equal(np.concatenate([visits for visits, _ in blocks]), targets)
        scores[most] = np.concatenate([own for _, own in blocks])
    owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
    long = np.diff(histories.visit_start)[owners] > 4
    assert long.any()
    np.testing.assert_allclose(scores[4][~long], scores[2**14][~long], rtol=0, atol=1e-6)
    for customer in np.unique(owners[long]).tolist():
        start = int(histories.visit_start[customer])
        left = targets[owners == customer]
        while len(left):
            begin, n = max(int(left[0]) - 4, start), int((left < left[0] + 4).sum())
            part = histories.part(slice(customer, customer + 1), slice(begin, int(left[n - 1]) + 1))
            expected = np.concatenate([own for _, own in model.score(part, left[:n] - begin)])
            np.testing.assert_allclose(scores[4][np.isin(targets, left[:n])], expected, rtol=0, atol=1e-6)
            left = left[n:]
