"""Predict for every customer of a dataset, batch by batch, into one file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.config import MAX_VISITS, available_cores
from luckyfast.errors import DatasetError, ModelError, OutputExistsError
from luckyfast.inference import MAX_PAIRS, Predictor, Sides, ids_by_name, next_moments, pack, read_config
from luckyfast.moments import Moment, format_moment, parse_moment
from luckyfast.progress import NullProgress, Progress

if TYPE_CHECKING:
    from luckyfast.dataset import Dataset, Histories

__all__ = ["PredictSummary", "predict", "trends_at"]

_CHUNK_CHANCES = 2**22
_BATCH_CHANCES = 2**17
_BATCH_VISITS = 2**13
_BATCH_PAIRS = 2**15


@dataclass(frozen=True)
class PredictSummary:
    """What was predicted, for whom, and what was not.

    Args:
        path: file written.
        at: moment of prediction as text; ``each customer's next visit`` where they have no time in common.
        customers: customers predicted.
        without_history: customers of the dataset with no visit before the moment; they have no rows.
        shortened: customers of whom only the latest visits were read (2^14 visits or 2^16 distinct actions of visits).
        unknown_actions: actions of the dataset that the model does not know; they were left out of the histories.
        missing_features: side columns of the model that the dataset does not have; they were taken as without a value.
        rows: rows written.
        elapsed_s: wall time in seconds.
    """

    path: Path
    at: str
    customers: int
    without_history: int
    shortened: int
    unknown_actions: int
    missing_features: list[str]
    rows: int
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {**asdict(self), "path": str(self.path)}


def predict(
    model: str | Path,
    dataset: str | Path | None = None,
    *,
    at: Moment | None = None,
    top: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PredictSummary:
    """Predict the next visit of every customer through ONNX Runtime; memory does not grow with the dataset.

    What all customers take these days is measured in the dataset too, so that a model keeps up with a log that grows
    without being fitted again: in what comes before the day of ``at``, or in all of it.

    With ``top`` the file has one row per customer and action: ``customer``, ``rank`` (1 is the action with the highest
    chance, then come the most probable next actions: see :func:`luckyfast.offers.offer_order`), ``action``, ``chance``
    (calibrated chance that the action is in the next visit) and ``next_share`` (probability that the next single action
    is this one; over all actions they add up to 1). Without, it has one row per customer: ``customer`` and one column
    of chances per action, named as the action is (JSONL: ``customer`` and ``chances``, an object by action). Customers
    come in the order of the dataset.

    Args:
        model: folder that ``luckyfast fit`` wrote.
        dataset: folder that ``luckyfast ingest`` wrote; the one the model was fitted on if None. Actions are matched by
            name.
        at: moment of prediction: a datetime, ISO 8601 text, or an order number; only visits before it count. None is
            right after the last event of the log; where times of different customers do not compare (order numbers,
            days between orders) it is each customer's last visit plus the median of the gaps before it.
        top: how many actions per customer; None writes all.
        out: file to write, ``.parquet``, ``.csv`` or ``.jsonl``; ``predictions.parquet`` in the model folder if None.
        overwrite: replace the file if it exists.
        threads: cores to use; all that this process may use if None.
        progress: listener for progress.

    Returns:
        What was written, and what was left out.

    Raises:
        ModelError: the model cannot be read, or does not fit the dataset.
        DatasetError: the dataset cannot be read.
        InputError: ``at`` is no moment.
        OutputExistsError: the file exists.

    Example:
        >>> summary = predict(model_folder, top=3, out=folder / "offers.csv")
        >>> summary.rows == 3 * summary.customers
        True
    """
    began = time.monotonic()
    folder = Path(model)
    listener = NullProgress() if progress is None else progress
    if top is not None and top < 1:
        raise ModelError(f"the number of actions per customer must be positive, not {top}", hint="try --top 5")
    from luckyfast.dataset import Dataset
    from luckyfast.tables import TableWriter

    config = read_config(folder)
    data = Dataset.open(_trained_on(config) if dataset is None else dataset)
    predictor = Predictor(folder / "model.onnx", threads=threads or available_cores())
    _check_times(data, predictor.time_kind, config)
    moment: int | None = None
    if at is not None:
        moment = parse_moment(at, predictor.time_kind)
    elif data.has_common_times:
        moment = int(data.manifest["time"]["max"]) + 1
    ids = _matched_ids(data, predictor)
    sides = _SideReader(data, predictor)
    file = folder / "predictions.parquet" if out is None else Path(out)
    if file.exists() and not overwrite:
        raise OutputExistsError(f"{file} exists already", hint="choose another file with --out, or add --overwrite")
    trend = _trend_of(data, predictor, ids, at)
    tally = {"customers": 0, "without_history": 0, "shortened": 0}
    listener.start("Predicting", data.n_customers, "customers")
    with TableWriter(file, predictor.vocabulary[1:], top) as table:
        for batch in data.batches():
            for histories in _readable(batch, moment):
                for customers, in_visit, next_action in _predict_batch(
                    predictor, histories, ids, sides, trend, moment, tally
                ):
                    table.write(customers, in_visit[:, 1:], next_action[:, 1:])
            listener.advance(batch.n_customers)
        rows = table.rows
    listener.finish()
    return PredictSummary(
        path=file,
        at="each customer's next visit" if moment is None else format_moment(moment, predictor.time_kind),
        unknown_actions=int((ids[1:] == 0).sum()),
        missing_features=sides.missing,
        rows=rows,
        elapsed_s=time.monotonic() - began,
        **tally,
    )


def _trained_on(config: dict[str, Any]) -> str:
    path = (config.get("dataset") or {}).get("path")
    if not path or not os.path.isdir(path):  # noqa: PTH112
        raise ModelError(
            "the dataset that the model was fitted on is gone", hint="name one: luckyfast predict MODEL DATASET"
        )
    return str(path)


def _matched_ids(data: Dataset, predictor: Predictor) -> NDArray[np.int64]:
    """The model's id of every action of the dataset, by name; of those it has not that of <other>, or 0."""
    known = set(predictor.vocabulary[1:])
    ids = np.array([0, *map(ids_by_name(predictor.vocabulary[1:]), data.vocabulary[1:])], np.int64)
    if len(ids) > 1 and known.isdisjoint(data.vocabulary[1:]):
        raise ModelError(
            f"the model knows none of the actions in {data.path}",
            hint=f"it knows such as {', '.join(predictor.vocabulary[1:4])}",
        )
    return ids


def _check_times(data: Dataset, time_kind: str, config: dict[str, Any]) -> None:
    """Refuse a dataset whose times are of another kind than those that a model was fitted on."""
    if data.time_kind != time_kind:
        raise DatasetError(
            f"{data.path} has times of kind {data.time_kind}, the model was fitted on kind {time_kind}",
            hint="give a dataset made from logs of the same kind",
        )
    fitted_on = (config.get("dataset") or {}).get("time") or data.manifest["time"]
    if bool(fitted_on.get("relative")) != bool(data.manifest["time"].get("relative")):
        raise DatasetError(
            f"the times of {data.path} and those that the model was fitted on are not alike: the ones are dates, the "
            "others days since each customer's first visit",
            hint="give a dataset made from logs of the same kind",
        )


def trends_at(data: Dataset, predictor: Predictor, config: dict[str, Any], at: Moment | None) -> NDArray[np.float32]:
    """What is in demand in a dataset on a day, as a model reads it.

    Args:
        data: the dataset; actions are matched by name.
        predictor: a model that follows trends.
        config: its ``config.json``.
        at: a moment of the day; after the end of the log if None.

    Returns:
        float32 [n_half_lives, n_actions].

    Raises:
        DatasetError: the dataset has no visits, or times of another kind.
        InputError: ``at`` is no moment.
        ModelError: the model knows none of the actions.
    """
    _check_times(data, predictor.time_kind, config)
    trend = _trend_of(data, predictor, _matched_ids(data, predictor), at)
    if trend is None:
        raise DatasetError(f"{data.path} has no visits", hint="ingest a log with accepted rows")
    return trend


def _trend_of(
    data: Dataset, predictor: Predictor, ids: NDArray[np.int64], at: Moment | None
) -> NDArray[np.float32] | None:
    """The trends at a moment or after the end; None for a model that follows none, or without visits."""
    if predictor.popularity is None:
        return None
    from luckyfast.trend import measure_trend

    trend = measure_trend(data, predictor.popularity, partial(_once_per_visit, ids))
    if trend is None or at is None:
        return None if trend is None else trend.latest
    (row,) = trend.rows_at(np.array([parse_moment(at, predictor.time_kind)]))
    return trend.values[:, row]


class _SideReader:
    """Side columns of a dataset as a model reads them, matched by name and kind, categories by their names.

    Attributes:
        missing: what the dataset does not have.
    """

    def __init__(self, data: Dataset, predictor: Predictor) -> None:
        own = {(info.name, info.kind): k for k, info in enumerate(data.features)}
        places = [own.get((feature["name"], feature["kind"])) for feature in predictor.features]
        self._kinds = [feature["kind"] for feature in predictor.features]
        self._places = places
        self.missing = [
            feature["name"] for feature, place in zip(predictor.features, places, strict=True) if place is None
        ]
        self._ids: list[NDArray[np.int64]] = []
        for feature, place in zip(predictor.features, places, strict=True):
            names = () if place is None else data.features[place].categories
            self._ids.append(np.array([0, *map(ids_by_name(feature["categories"]), names)], np.int64))

    def read(self, histories: Histories) -> Sides | None:
        """All visits of a batch; a category that the model does not know is no value."""
        if not self._kinds:
            return None
        n = histories.n_visits
        from luckyfast.dataset import FeatureColumn

        nothing = FeatureColumn(np.zeros(n, np.int64), np.zeros(n, np.int32))
        columns = [nothing if place is None else histories.features[place] for place in self._places]
        numbers = [column for column, kind in zip(columns, self._kinds, strict=True) if kind == "number"]
        categories = [
            ids[column.values]
            for column, kind, ids in zip(columns, self._kinds, self._ids, strict=True)
            if kind == "category"
        ]
        return Sides(
            _side_by_side([column.values / 1e6 for column in numbers], n, np.float64),
            _side_by_side([column.rows for column in numbers], n, np.int64),
            _side_by_side(categories, n, np.int64),
        )


def _side_by_side(columns: list[NDArray[Any]], n: int, dtype: Any) -> NDArray[Any]:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((n, 0), dtype)


def _readable(histories: Histories, moment: int | None) -> Iterator[Histories]:
    """The same customers; of those with very many visits only what is read of them, one by one, and a visit more."""
    from luckyfast.windows import runs_of_customers

    for customers, start, end, _ in runs_of_customers(histories):
        if customers.stop - customers.start == 1:
            stop = end if moment is None else start + int(np.searchsorted(histories.visit_time[start:end], moment))
            start, end = max(start, stop - MAX_VISITS - 1), max(stop, start + 1)
        yield histories.part(customers, slice(start, end))


def _predict_batch(
    predictor: Predictor,
    histories: Histories,
    ids: NDArray[np.int64],
    sides: _SideReader,
    trend: NDArray[np.float32] | None,
    moment: int | None,
    tally: dict[str, int],
) -> Iterator[tuple[Any, NDArray[np.float32], NDArray[np.float32]]]:
    """Predict one batch of histories in chunks of customers, each chunk in groups of similar length."""
    start = histories.visit_start[:-1].astype(np.int64)
    if moment is None:
        moments = next_moments(histories.visit_time, histories.visit_start, predictor.time_scale)
        stop = histories.visit_start[1:].astype(np.int64)
    else:
        moments = np.full(histories.n_customers, moment)
        stop = histories.stops_before(moment)
    chosen = np.flatnonzero(stop > start)
    latest = _latest(histories, start, stop)
    tally["customers"] += len(chosen)
    tally["without_history"] += histories.n_customers - len(chosen)
    tally["shortened"] += int((latest > start).sum())
    actions, own_sides = _once_per_visit(ids, histories.action_start, histories.actions), sides.read(histories)
    n_actions = predictor.n_actions
    size = max(_CHUNK_CHANCES // n_actions, 1)
    for begin in range(0, len(chosen), size):
        chunk = chosen[begin : begin + size]
        in_visit = np.empty((len(chunk), n_actions), np.float32)
        next_action = np.empty_like(in_visit)
        for rows in _groups(histories, latest[chunk], stop[chunk], n_actions):
            customers = chunk[rows]
            packed = pack(
                latest[customers],
                stop[customers],
                histories.visit_time,
                histories.action_start,
                actions,
                moments[customers],
                own_sides,
            )
            in_visit[rows], next_action[rows] = predictor.run(packed, trend)
        yield histories.customers.take(chunk), in_visit, next_action


def _once_per_visit(
    ids: NDArray[np.int64], action_start: NDArray[Any], actions: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The model's actions of visits, where several that became one count once: the others are 0."""
    matched = ids[actions]
    shared = np.bincount(ids, minlength=1) > 1
    shared[0] = False
    if shared.any():
        places = np.flatnonzero(shared[matched])  # only <other> stands for several
        visits = np.searchsorted(action_start, places, side="right")
        matched[places[1:][visits[1:] == visits[:-1]]] = 0
    return matched


def _latest(histories: Histories, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """First visit to read of each customer, so that no history outgrows what fits in memory."""
    within = np.searchsorted(histories.action_start, histories.action_start[stop].astype(np.int64) - MAX_PAIRS)
    latest: NDArray[np.int64] = np.maximum(start, np.maximum(stop - MAX_VISITS, within))
    return np.minimum(latest, np.maximum(stop - 1, start))


def _groups(
    histories: Histories, start: NDArray[np.int64], stop: NDArray[np.int64], n_actions: int
) -> Iterator[NDArray[np.int64]]:
    """Group customers of similar length, so that little is padded and no group outgrows its share of memory."""
    n_visits = stop - start + 1
    n_pairs = histories.action_start[stop] - histories.action_start[start]
    order = np.argsort(n_pairs, kind="stable")
    most = max(_BATCH_CHANCES // n_actions, 1)
    begin = 0
    while begin < len(order):
        ahead = order[begin : begin + most]
        count = np.arange(1, len(ahead) + 1)
        fits = (np.maximum.accumulate(n_visits[ahead]) * count <= _BATCH_VISITS) & (
            np.maximum.accumulate(n_pairs[ahead]) * count <= _BATCH_PAIRS
        )
        # Padded sizes only grow with the group, so the first misfit ends it; one customer always goes.
        size = max(len(ahead) if fits.all() else int(np.argmin(fits)), 1)
        yield np.sort(ahead[:size])
        begin += size
