"""Trends: what they are, that they see no day but earlier ones, and that networks follow them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import logs, opened
from naive_ingest import Row, write_dataset
from tiny_model import DAY, make_dataset, make_model, make_rows, make_trained

import luckyfast
from luckyfast import batches, trend
from luckyfast.batches import measure
from luckyfast.dataset import Dataset
from luckyfast.errors import DatasetError
from luckyfast.evaluation import evaluate
from luckyfast.models import ModelConfig
from luckyfast.models.trained import TrainedModel
from luckyfast.models.trend import TrendResidual
from luckyfast.prediction import predict
from luckyfast.training import train
from luckyfast.trend import AHEAD, HALF_LIVES, LARGEST, SHRINKAGE, Trend, measure_trend
from luckyfast.windows import Split


def by_hand(rows: Sequence[Row], names: Sequence[str], popularity: np.ndarray, day: int) -> np.ndarray:
    """Trends on a day, visit by visit."""
    visits: dict[Any, set[str]] = {}
    for customer, _, action, key in rows:
        visits.setdefault((customer, key), set()).add(action)
    days: dict[Any, int] = {}
    for customer, time, _, key in rows:
        days[customer, key] = max(time // DAY, days.get((customer, key), 0))
    known = min(day, max(days.values()) + 1)
    result = np.zeros((len(HALF_LIVES), len(names)))
    for k, half_life in enumerate(HALF_LIVES):
        held, n = dict.fromkeys(names, 0.0), 0.0
        for visit, actions in visits.items():
            if days[visit] < known:
                weight = 2.0 ** (-(known - days[visit]) / half_life)
                n += weight
                for action in actions:
                    held[action] += weight
        for action, name in enumerate(names[1:], start=1):
            ratio = math.log((held[name] + SHRINKAGE) / (n * popularity[action] + SHRINKAGE))
            result[k, action] = max(min(ratio, LARGEST), -LARGEST) * 2.0 ** (-(day - known) / half_life)
    return result


@settings(max_examples=60, deadline=None)
@given(logs(), st.integers(0, 30), st.integers(0, DAY - 1), st.sampled_from([2**20, 40, 3]))
def test_trends_are_those_of_the_visits_on_earlier_days(rows: list[Row], day: int, within: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch, opened(rows) as dataset:
        patch.setattr(trend, "MAX_VALUES", most)
        popularity = np.linspace(0.9, 0.01, dataset.n_actions)
        found = measure_trend(dataset, popularity)
        assert found is not None
        starts = found.starts.tolist()
        days = sorted({time // DAY for _, time, _, _ in rows})
        assert starts[-1 - len(AHEAD) :] == [days[-1] + ahead for ahead in (1, *AHEAD)]
        assert (len(starts) - 1 - len(AHEAD)) * dataset.n_actions <= max(most, dataset.n_actions)
        (own,) = found.rows_at(np.array([day * DAY + within]))
        assert own == max([row for row, start in enumerate(starts) if start <= day], default=0)
        if most == 2**20 and {day, day - 1} & set(days):
            assert starts[own] == day
        for row in {int(own), len(starts) - 3}:
            expected = by_hand(rows, dataset.vocabulary, popularity, starts[row])
            np.testing.assert_allclose(found.values[:, row], expected, atol=1e-5)
        np.testing.assert_array_equal(found.latest, found.values[:, -1 - len(AHEAD)])
        assert not found.values[:, -1].any()


def test_what_comes_later_changes_no_trend_of_a_day(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "all")
    rows = make_rows()
    popularity = np.full(dataset.n_actions, 0.2)
    whole = measure_trend(dataset, popularity)
    assert whole is not None
    cut = int(whole.starts[len(whole.starts) // 2])
    early = Dataset.open(write_dataset([row for row in rows if row[1] < cut * DAY], tmp_path / "early"))
    assert early.n_visits < dataset.n_visits
    ids = np.array([dataset.vocabulary.index(name) for name in early.vocabulary])
    before = measure_trend(early, popularity, lambda _, actions: ids[actions])
    assert before is not None
    n = int(np.searchsorted(before.starts, before.end))
    assert n > 5
    np.testing.assert_array_equal(before.starts[:n], whole.starts[:n])
    np.testing.assert_array_equal(before.values[:, :n], whole.values[:, :n])
    np.testing.assert_array_equal(before.latest, whole.values[:, whole.rows_at(np.array([before.end * DAY]))[0]])
    assert np.ptp(before.latest[:, 1:]) > 0.1


def test_rows_that_come_later_change_no_trend_of_a_day(tmp_path: Path) -> None:
    """Carts that stay open for days are known when the last thing was put into them, and not before."""
    rng = np.random.default_rng(5)
    rows = [
        (f"c{cart % 40}", int((cart // 10 + (rng.integers(9) if cart % 3 == 0 else 0)) * DAY), f"a{action}", f"v{cart}")
        for cart in range(400)
        for action in rng.integers(6, size=4)
    ]
    popularity = np.full(7, 0.2)
    whole = measure_trend(Dataset.open(write_dataset(rows, tmp_path / "all")), popularity)
    assert whole is not None
    known = []
    for day in range(10, 45, 5):
        early = Dataset.open(write_dataset([row for row in rows if row[1] < day * DAY], tmp_path / str(day)))
        cut = measure_trend(early, popularity)
        assert cut is not None
        assert early.n_actions == 7
        done = {
            key for key in {row[3] for row in rows} if max(time for _, time, _, own in rows if own == key) < day * DAY
        }
        expected = by_hand([row for row in rows if row[3] in done], early.vocabulary, popularity, day)
        (row,) = whole.rows_at(np.array([day * DAY]))
        assert whole.starts[row] == day
        np.testing.assert_allclose(whole.values[:, row], expected, atol=1e-5)
        known.append(bool((cut.latest == whole.values[:, row]).all()))
    # of a cart that is still open the shorter log does not know that it is
    assert not all(known)


def test_a_day_without_visits_knows_the_day_before(tmp_path: Path) -> None:
    rows = [
        (f"c{number}", day * DAY, "BEER" if day == 8 else "TEA", f"{day}/{number}")
        for day in (1, 8, 40)
        for number in range(30)
    ]
    dataset = Dataset.open(write_dataset(rows, tmp_path / "data"))
    found = measure_trend(dataset, np.array([0.1, 0.5, 0.5]))
    assert found is not None
    at = found.rows_at(np.array([8, 9, 10, 39, 40]) * DAY)
    beer = found.values[0, at, dataset.vocabulary.index("BEER")]
    assert beer[0] < 0 < beer[1]
    assert beer[1] == beer[2] == beer[3]
    # By then it is no longer known of what there were so few.
    assert abs(beer[4]) < 0.01


def test_a_log_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = luckyfast.load(make_model(tmp_path / "model", make_dataset(tmp_path / "data")))
    order = make_dataset(tmp_path / "order", clock=False)
    with pytest.raises(DatasetError, match="times of kind order, the model was fitted on kind clock"):
        model.following(order.path)
    empty = write_dataset([], tmp_path / "empty")
    with pytest.raises(luckyfast.UserError):
        model.following(empty)
    ordered = luckyfast.load(make_model(tmp_path / "ordered", order))
    history = [(3, ["TEA"])]
    same = ordered.following(order.path).predict_proba(history, at=5)
    np.testing.assert_array_equal(same, ordered.predict_proba(history, at=5))


def test_names_are_matched(tmp_path: Path) -> None:
    """Of a dataset with other ids the trends are those of the names; what is unknown goes nowhere."""
    dataset = make_dataset(tmp_path / "data")
    popularity = np.linspace(0.3, 0.1, dataset.n_actions)
    own = measure_trend(dataset, popularity)
    ids = np.arange(dataset.n_actions)[::-1].copy()
    ids[[0, -1]] = 0, 0
    other = measure_trend(dataset, popularity[::-1].copy(), lambda _, actions: ids[actions])
    assert own is not None
    assert other is not None
    np.testing.assert_array_equal(other.values[:, :, 1:-1], own.values[:, :, ::-1][:, :, 1:-1])
    assert not other.values[:, :, 0].any()


def test_times_that_do_not_compare_have_no_trend(tmp_path: Path) -> None:
    rows = [
        (f"c{customer}", visit, f"a{visit % 3}", f"{customer}/{visit}") for customer in range(9) for visit in range(9)
    ]
    order = Dataset.open(write_dataset(rows, tmp_path / "order", time_kind="order"))
    assert measure_trend(order, np.full(order.n_actions, 0.5)) is None
    constants = measure(order, 5, n_half_lives=1, visit_spans=(1.0,), strength=1.0)
    assert constants.trend is None


def surging_log(n_customers: int = 150, n_days: int = 100) -> list[Row]:
    """For five days at a time one of ten actions is in four of five visits."""
    rng = np.random.default_rng(0)
    surging = rng.permuted(np.tile(np.arange(10), (2, 1)), axis=1).ravel()
    rows: list[Row] = []
    for customer, visit in itertools.product(range(n_customers), range(n_days // 4)):
        day = visit * 4 + customer % 4
        action = surging[day // 5] if rng.random() < 0.8 else rng.integers(10)
        rows.append((f"c{customer}", day * DAY, f"a{action}", f"{customer}/{visit}"))
    return rows


def test_networks_follow_what_is_in_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(hidden=8, embedding=6, epochs=12, refit_epochs=0, batch_visits=64, learning_rate=0.01)
    hits = []
    with opened(surging_log()) as dataset:
        split = Split(valid_start=70 * DAY, test_start=80 * DAY)
        for follows in (True, False):
            if not follows:
                monkeypatch.setattr(batches, "measure_trend", lambda *_: None)
            model = train(dataset, split, config)
            hits.append(evaluate(model, dataset, split).figures["hit@1"].value)
            assert (model.constants.trend is not None) == follows
    # On the first of five days nobody can know.
    assert hits[0] > 0.55
    assert hits[1] < 0.4


def test_a_model_folder_holds_its_trends(tmp_path: Path) -> None:
    trained, _ = make_trained(make_dataset(tmp_path / "data"))
    again = TrainedModel.load(tmp_path, trained.save(tmp_path))
    assert trained.constants.trend is not None
    assert again.constants.trend is not None
    np.testing.assert_array_equal(again.constants.trend.values, trained.constants.trend.values)
    np.testing.assert_array_equal(again.constants.trend.starts, trained.constants.trend.starts)
    assert again.constants.trend.end == trained.constants.trend.end
    assert set(again.state) == set(trained.state) > {"trend.shared", "trend.per_action"}


def test_a_model_follows_another_log(tmp_path: Path) -> None:
    """What others took the days before changes the scores of customers who did nothing else."""
    dataset = make_dataset(tmp_path / "data")
    trained, _ = make_trained(dataset)
    rows = make_rows()
    moment = max(time for _, time, _, _ in rows)
    more = [("new", moment - DAY, "TEA", f"new/{number}") for number in range(99)]
    other = Dataset.open(write_dataset([*rows, *more], tmp_path / "more"))
    histories = next(dataset.batches())
    visits = np.array([int(histories.visit_time.argmax()), int(histories.visit_time.argmin())])
    visits.sort()
    scores = [
        np.concatenate([scores for _, scores in model.score(histories, visits)])
        for model in (trained, trained.following(other), trained.following(dataset))
    ]
    late = int(np.flatnonzero(visits == histories.visit_time.argmax())[0])
    assert np.abs(scores[1] - scores[0])[late, 1:].max() > 0.1
    np.testing.assert_array_equal(scores[1][1 - late], scores[0][1 - late])
    np.testing.assert_array_equal(scores[2], scores[0])


@pytest.mark.parametrize("when", [None, 60, 95, 140])
def test_predict_knows_the_trends_of_its_dataset(tmp_path: Path, when: int | None) -> None:
    """What the model folder holds is not asked; chances are those of a model that holds the trends of the moment."""
    dataset = make_dataset(tmp_path / "data")
    trained, _ = make_trained(dataset)
    own = trained.constants.trend
    assert own is not None
    moment = int(dataset.manifest["time"]["max"]) + 1 if when is None else when * DAY
    row = int(own.rows_at(np.array([own.end * DAY if when is None else moment]))[0])
    tables = []
    for name, held in (("right", row), ("wrong", 1)):
        kept = Trend(own.starts[:1], own.values[:, [held]], own.end)
        holding = replace(trained, constants=replace(trained.constants, trend=kept))
        model = make_model(tmp_path / name, dataset, trained=holding)
        summary = predict(model, at=None if when is None else moment, out=tmp_path / f"{name}.parquet")
        tables.append(pq.read_table(summary.path))
    assert tables[0].equals(tables[1])
    customer = tables[0]["customer"][0].as_py()
    visits: dict[str, tuple[int, list[str]]] = {}
    for name, time, action, key in make_rows():
        if name == customer:
            visits.setdefault(str(key), (time, []))[1].append(action)
    found = [column[0].as_py() for column in tables[0].columns[1:]]
    alike = [
        luckyfast.load(tmp_path / name).predict_proba([*visits.values()], at=moment) for name in ("right", "wrong")
    ]
    np.testing.assert_allclose(found, alike[0], atol=1e-6)
    assert np.abs(found - alike[1]).max() > 1e-3


def test_gradients_of_weights_are_those_of_plain_operations() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 5, 7)).astype(np.float32)
    residual = TrendResidual(Trend(np.arange(5), values, 5))
    for weights in residual.parameters():
        torch.nn.init.normal_(weights)
    rows = np.array([4, 0, 0, 2, 3, 0, 1])
    given = torch.from_numpy(rng.normal(size=(7, 7)).astype(np.float32))
    (residual(rows) * given).sum().backward()  # type: ignore[no-untyped-call]
    found = [weights.grad.clone() for weights in residual.parameters() if weights.grad is not None]
    residual.zero_grad()
    plain = ((residual.shared[:, None] + residual.per_action)[:, None] * torch.from_numpy(values)[:, rows]).sum(0)
    torch.testing.assert_close(residual(rows), plain)
    (plain * given).sum().backward()  # type: ignore[no-untyped-call]
    for own, weights in zip(found, residual.parameters(), strict=True):
        torch.testing.assert_close(own, weights.grad)
