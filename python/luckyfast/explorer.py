"""Pick some customers and write down what was predicted for them and what they then did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.calibration import Calibration
from luckyfast.dataset import Dataset, Histories
from luckyfast.offers import offer_order
from luckyfast.windows import Labels, Scorer, Split, known_actions, target_visits

__all__ = ["write_explorer"]

SHOWN_VISITS = 40
SHOWN_PREDICTIONS = 4
TOP = 10


def write_explorer(
    path: str | Path,
    scorer: Scorer,
    calibration: Calibration,
    dataset: Dataset,
    split: Split,
    *,
    n_customers: int = 60,
) -> Path:
    """Write ``explorer.json``: histories, chances and outcomes of the first customers that have test visits.

    Customers lie in a dataset in the order of a hash of their names, so the first ones are a random sample. The file
    holds ``time_kind``, ``actions`` (names) and ``customers``, each with ``customer``, ``n_visits``, ``visits``
    (``[time, [index into actions, ...]]``) and ``predictions``: ``visit`` (index of the predicted one), ``n_before``
    (all earlier visits), ``top`` (``[index, chance]``, in the order of offers) and ``next`` (``[index, rank, chance]``
    of what was taken; rank and chance are null for an action that was unknown before the test).

    Args:
        path: file to write.
        scorer: the trained model.
        calibration: its calibration.
        dataset: the dataset it was measured on.
        split: the split whose test visits are predicted.
        n_customers: how many customers at most.

    Returns:
        The path.

    Example:
        >>> file = write_explorer(folder / "explorer.json", scorer, Calibration(), dataset, split, n_customers=2)
        >>> len(json.loads(file.read_text())["customers"])
        2
    """
    known = known_actions(dataset, split.test_start)
    names: dict[int, int] = {}
    customers: list[dict[str, Any]] = []
    for histories in dataset.batches():
        if len(customers) >= n_customers:
            break
        targets = _pick(histories, target_visits(histories, split, "test"), n_customers - len(customers))
        for block, scores in scorer.score(histories, targets):
            labels = Labels.of(histories, block, known)
            chances = calibration.in_visit(scores, labels.mean_size)
            for row, visit in enumerate(block.tolist()):
                actions = labels.actions[labels.start[row] : labels.start[row + 1]]
                _add_prediction(customers, histories, visit, scores[row], chances[row], actions, names)
    vocabulary = dataset.vocabulary
    content = {
        "time_kind": dataset.time_kind,
        "actions": [vocabulary[action] for action in names],
        "customers": customers,
    }
    file = Path(path)
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return file


def _pick(histories: Histories, targets: NDArray[np.int64], n_customers: int) -> NDArray[np.int64]:
    """The last test visits of the first customers."""
    owners = np.searchsorted(histories.visit_start, targets, side="right") - 1
    chosen = owners <= np.unique(owners)[:n_customers].max(initial=-1)
    targets, owners = targets[chosen], owners[chosen]
    places_from_end = np.searchsorted(owners, owners, side="right") - np.arange(len(owners))
    picked: NDArray[np.int64] = targets[places_from_end <= SHOWN_PREDICTIONS]
    return picked


def _add_prediction(
    customers: list[dict[str, Any]],
    histories: Histories,
    visit: int,
    scores: NDArray[np.float32],
    chances: NDArray[np.float32],
    actions: NDArray[np.int32],
    names: dict[int, int],
) -> None:
    owner = int(np.searchsorted(histories.visit_start, visit, side="right")) - 1
    start, stop = histories.visit_start[owner : owner + 2].tolist()
    customer = histories.customers[owner].as_py()
    if not customers or customers[-1]["customer"] != customer:
        first = max(start, visit - SHOWN_VISITS)
        shown = [_visit(histories, index, names) for index in range(first, visit)]
        customers.append({"customer": customer, "n_visits": stop - start, "visits": shown, "predictions": []})
    entry = customers[-1]
    predicted = entry["predictions"][-1] if entry["predictions"] else None
    n_before = visit - start
    # Test visits of a customer follow one another, so the shown visits stay a gapless run.
    entry["visits"].append(_visit(histories, visit, names))
    order = np.argsort(-offer_order(scores[None, 1:], chances[None, 1:])[0], kind="stable") + 1
    rank = np.empty(len(chances), np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    place = len(entry["visits"]) - 1 if predicted is None else predicted["visit"] + 1
    entry["predictions"].append(
        {
            "visit": place,
            "n_before": n_before,
            "top": [[_index(names, int(action)), _rounded(chances[action])] for action in order[:TOP]],
            "next": [
                [_index(names, action), int(rank[action]), _rounded(chances[action])]
                if action
                else [_index(names, 0), None, None]
                for action in np.unique(actions).tolist()
            ],
        }
    )


def _visit(histories: Histories, visit: int, names: dict[int, int]) -> list[Any]:
    pairs = slice(*histories.action_start[visit : visit + 2].tolist())
    return [int(histories.visit_time[visit]), [_index(names, action) for action in histories.actions[pairs].tolist()]]


def _index(names: dict[int, int], action: int) -> int:
    return names.setdefault(action, len(names))


def _rounded(chance: np.float32) -> float:
    return round(float(chance), 4)
