"""Export a trained model as one ONNX graph: raw history in, calibrated probabilities out.

Everything between is inside the graph: calendar, habits, cadence, the network and the calibration, so that any ONNX
runtime in any language can predict from times and action ids alone. The formulas are those of
:mod:`luckyfast.batches` and :mod:`luckyfast.habits`; tests hold the two against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luckyfast.calibration import HIGHEST, LOWEST
from luckyfast.config import EXPORT_FORMAT, EXPORT_FORMAT_VERSION
from luckyfast.export.graph import Graph, Value
from luckyfast.export.habits import habit_features
from luckyfast.export.history import Calendar, History
from luckyfast.export.memory import remember
from luckyfast.export.side import side_vectors
from luckyfast.export.weights import Weights
from luckyfast.trend import HALF_LIVES, LARGEST, SHRINKAGE

if TYPE_CHECKING:
    from luckyfast.calibration import Calibration
    from luckyfast.models.trained import TrainedModel

__all__ = ["export_onnx"]

_DOC = (
    "Chances of each action in the next visit of each customer. Visits are in time order; their actions are distinct "
    "ids of the vocabulary in the metadata, without the unknown one (0). Rows are padded at the end to a common length."
)


def export_onnx(
    trained: TrainedModel, calibration: Calibration, path: str | Path, *, vocabulary: Sequence[str]
) -> Path:
    """Write a trained model and its calibration as one ONNX file (opset 18).

    Inputs, for B customers padded to N visits and P (visit, action) pairs:

    - ``times`` int64 [B, N]: times of the visits, ascending (µs since the epoch, or order numbers);
    - ``n_visits`` int64 [B]: how many of them are real; 0 for a customer without history;
    - ``actions`` int64 [B, P]: action ids, distinct within a visit, never 0;
    - ``visits`` int64 [B, P]: which visit each action is in, from 0; -1 for padding;
    - ``moment`` int64 [B]: the moment of prediction, not before the last visit.

    A model that reads side columns has further inputs for numbers and for categories, each in the order of the
    metadata's ``features``, where it has such:

    - ``sums`` float64 [B, N, n_numbers]: sum over the rows of a visit that have a number;
    - ``rows`` int64 [B, N, n_numbers]: how many rows have one; 0 where there is no value;
    - ``categories`` int64 [B, N, n_categorical]: id of the visit's category, 0 for none; name i has the id i + 1.

    A model that follows trends has one more input, which need not be given:

    - ``trend`` float32 [n_half_lives, V]: the trends of the day; where it is left out, those at the end of the log that
      the model was fitted on. The metadata's ``trend`` (JSON) has what it takes to compute others by the formula in
      :mod:`luckyfast.trend`: ``half_lives`` in days, ``shrinkage``, ``largest`` and ``popularity`` by action id.

    Outputs: ``in_visit`` float32 [B, V], the calibrated chance that an action is in the next visit, and
    ``next_action`` float32 [B, V], the distribution of the next single action. The metadata hold ``format``,
    ``format_version``, ``vocabulary`` (JSON list of names, position = id), ``config``, ``calibration``,
    ``time_kind`` (``clock`` or ``order``), ``time_scale`` (mean gap between the visits of a customer) and ``features``
    (JSON list of name, kind and categories).

    Args:
        trained: the model.
        calibration: its calibration.
        path: file to write.
        vocabulary: action names by id, the unknown one first.

    Returns:
        The path.

    Raises:
        ValueError: the vocabulary is not that of the model.

    Example:
        >>> file = export_onnx(trained, Calibration(), folder / "model.onnx", vocabulary=dataset.vocabulary)
        >>> file.stat().st_size > 0
        True
    """
    n_actions = trained.constants.n_actions
    if len(vocabulary) != n_actions:
        raise ValueError(f"the model has {n_actions} actions, the vocabulary {len(vocabulary)}")
    graph = Graph()
    history = History.declare(graph)
    log_next = graph.op("LogSoftmax", _logits(graph, history, trained) / calibration.temperature, axis=-1)
    size = history.mean_size().log1p() * calibration.size_weight + calibration.intercept
    log_p = log_next.at_least(LOWEST)
    rate = graph.op("Exp", (log_p * calibration.slope + size.insert_axis(1)).at_most(HIGHEST))
    # In double precision, since one minus a number near one loses the digits of small chances.
    hazard = (rate.cast(np.float64) * calibration.dispersion).log1p() / calibration.dispersion
    odds = hazard + graph.op("Log", (1.0 - graph.op("Exp", hazard * -1.0)).at_least(1e-38))
    bent = odds * calibration.odds_slope + calibration.odds_intercept
    for knot, bend in zip(calibration.knots, calibration.bends, strict=True):
        bent = bent + (odds - knot).at_least(0.0) * bend
    if calibration.offsets:
        bent = bent + graph.constant(np.array(calibration.offsets, np.float64))
    chance = graph.op("Sigmoid", bent).cast(np.float32)
    graph.output("in_visit", chance, ["B", n_actions], "chance that the action is in the next visit")
    graph.output("next_action", graph.op("Exp", log_next), ["B", n_actions], "distribution of the next single action")
    metadata = {
        "format": EXPORT_FORMAT,
        "format_version": str(EXPORT_FORMAT_VERSION),
        "vocabulary": json.dumps(list(vocabulary), ensure_ascii=False),
        "config": json.dumps(trained.config.to_dict()),
        "calibration": json.dumps(calibration.to_dict()),
        "time_kind": "clock" if trained.constants.clock else "order",
        "time_scale": repr(float(trained.constants.time_scale)),
    }
    if features := trained.constants.features:
        described = [{"name": own.name, "kind": own.kind, "categories": own.categories} for own in features]
        metadata["features"] = json.dumps(described, ensure_ascii=False)
    if trained.constants.trend is not None:
        popularity = [float(f"{share:.9g}") for share in trained.constants.popularity.tolist()]
        known = {"half_lives": HALF_LIVES, "shrinkage": SHRINKAGE, "largest": LARGEST, "popularity": popularity}
        metadata["trend"] = json.dumps(known)
    file = Path(path)
    file.write_bytes(graph.build("luckyfast", metadata, _DOC).SerializeToString())
    return file


def _logits(graph: Graph, history: History, trained: TrainedModel) -> Value:
    network = trained.network()
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights = Weights(graph, {name: tensor.detach().numpy() for name, tensor in tensors.items()})
    calendar = Calendar.of(history, trained.constants)
    side = side_vectors(graph, trained.constants.features, weights)
    memory = remember(history, calendar, trained.config, weights, side)
    summary = weights.linear("summary", graph.concat(1, memory, calendar.now)).gelu()
    output = summary @ weights.constant(weights["output"].T)
    logits = output + weights.linear("calendar", calendar.now) + weights.constant(weights["prior"])
    if trained.constants.trend is not None:
        trend = graph.default_input("trend", trained.constants.trend.latest, "trends of the day")
        own = weights["trend.shared"][:, None] + weights["trend.per_action"]
        logits = logits + (trend * weights.constant(own)).sum(0)
    if not trained.config.habit:
        return logits
    features, taken = habit_features(history, calendar, trained.constants)
    gate = weights.linear("residual.gate", graph.concat(1, calendar.now, summary), bias=False)
    scale = (gate + weights.constant(weights["residual.shared"])).insert_axis(1)
    scale = scale + weights.constant(weights["residual.per_action.weight"])
    # PERF: the popularity of an action never changes, so its way through the first layer is computed here, once.
    first = weights["residual.first.weight"]
    popular = np.outer(weights["residual.log_popularity"], first[:, -1]) + weights["residual.first.bias"]
    inner = (features @ weights.constant(first[:, :-1].T) + weights.constant(popular)).gelu()
    scores = (scale * features).sum(2) + weights.linear("residual.second", inner, bias=False).drop_axis(2)
    return logits + graph.where(taken, scores, 0.0)
