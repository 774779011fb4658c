from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import make_calibration, make_dataset, make_trained

from luckyfast.dataset import Dataset
from luckyfast.explorer import SHOWN_PREDICTIONS, SHOWN_VISITS, TOP, write_explorer
from luckyfast.windows import Labels, Split, known_actions, target_visits


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("dataset") / "data")


def written(dataset: Dataset, folder: Path, n_customers: int = 60) -> tuple[dict[str, Any], Split]:
    trained, split = make_trained(dataset)
    file = write_explorer(
        folder / "explorer.json", trained, make_calibration(dataset), dataset, split, n_customers=n_customers
    )
    return json.loads(file.read_text(encoding="utf-8")), split


def test_it_shows_what_was_predicted_and_what_happened(dataset: Dataset, tmp_path: Path) -> None:
    content, split = written(dataset, tmp_path)
    trained, _ = make_trained(dataset)
    histories = next(dataset.batches())
    names, customers = histories.customers.to_pylist(), {entry["customer"]: entry for entry in content["customers"]}
    known = known_actions(dataset, split.test_start)
    targets = target_visits(histories, split, "test")
    owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
    assert set(customers) == {names[owner] for owner in owners}
    scores = np.concatenate([block for _, block in trained.score(histories, targets)])
    labels = Labels.of(histories, targets, known)
    chances = make_calibration(dataset).in_visit(scores, labels.mean_size)
    for owner in np.unique(owners):
        entry, rows = customers[names[owner]], np.flatnonzero(owners == owner)[-SHOWN_PREDICTIONS:]
        assert len(entry["predictions"]) == len(rows)
        for prediction, row in zip(entry["predictions"], rows, strict=True):
            assert entry["visits"][prediction["visit"]][0] == histories.visit_time[targets[row]]
            assert prediction["n_before"] == targets[row] - histories.visit_start[owner]
            first = 1 + int(chances[row, 1:].argmax())
            own = scores[row].copy()
            own[first] = np.inf
            expected = chances[row, 1 + np.argsort(-own[1:])][:TOP]
            np.testing.assert_allclose([chance for _, chance in prediction["top"]], expected, atol=1e-4)
            for action, chance in prediction["top"]:
                assert abs(chances[row, dataset.vocabulary.index(content["actions"][action])] - chance) < 1e-4
            taken = labels.actions[labels.start[row] : labels.start[row + 1]]
            assert sum(rank is None for _, rank, _ in prediction["next"]) == int((taken == 0).any())
            for action, rank, _ in prediction["next"]:
                if rank is not None:
                    column = dataset.vocabulary.index(content["actions"][action])
                    assert column in taken
                    assert rank == 1 + (own[1:] > own[column]).sum()


def test_visits_are_those_of_the_log(dataset: Dataset, tmp_path: Path) -> None:
    content, _ = written(dataset, tmp_path)
    histories = next(dataset.batches())
    rows = histories.customers.to_pylist()
    for entry in content["customers"]:
        start, stop = histories.visit_start[rows.index(entry["customer"]) :][:2].tolist()
        assert entry["n_visits"] == stop - start
        assert len(entry["visits"]) <= SHOWN_VISITS + SHOWN_PREDICTIONS
        for visit, (time, actions) in zip(range(stop - len(entry["visits"]), stop), entry["visits"], strict=True):
            pairs = slice(*histories.action_start[visit : visit + 2].tolist())
            assert time == histories.visit_time[visit]
            found = sorted(content["actions"][action] for action in actions)
            assert found == sorted(dataset.vocabulary[action] for action in histories.actions[pairs])


def test_few_customers_are_the_first_of_many(dataset: Dataset, tmp_path: Path) -> None:
    many, _ = written(dataset, tmp_path)
    few, _ = written(dataset, tmp_path, 3)
    assert [entry["customer"] for entry in few["customers"]] == [entry["customer"] for entry in many["customers"]][:3]
