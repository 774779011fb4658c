"""The core of a network as part of a graph: what it remembers of the visits at the moment of prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from luckyfast.export.graph import Value
from luckyfast.export.history import Calendar, History
from luckyfast.export.weights import Weights

if TYPE_CHECKING:
    from luckyfast.models import ModelConfig

__all__ = ["remember"]


def remember(history: History, calendar: Calendar, config: ModelConfig, weights: Weights, side: Value | None) -> Value:
    """Run the core over the visits.

    Args:
        history: the visits.
        calendar: their calendar.
        config: settings of the model.
        weights: its weights.
        side: what side columns add to the vector of each visit, float32 [B, N, E].

    Returns:
        What the core puts out at the moment of prediction, float32 [B, hidden].
    """
    # A step sees the visit before it, so that the actions of visit v are read at step v + 1.
    sizes = _sizes(history, history.owner + 1, history.present, history.times.size(1))
    steps = _step_features(history, calendar, sizes)
    if config.arch == "mlp":
        return _remember_window(history, steps, config, weights, side)
    bags = _bags(history, history.owner + 1, history.present, sizes, weights["table"])
    if side is not None:
        # padding comes behind the last step that is run
        bags = bags + history.graph.concat(1, side.slice(1, 0, 1) * 0.0, side)
    return _remember_all(history, bags, steps, config, weights)


def _remember_window(
    history: History, steps: Value, config: ModelConfig, weights: Weights, side: Value | None
) -> Value:
    graph, window = history.graph, config.window
    slot = history.owner - history.n_visits + window
    inside = graph.op("And", history.present, slot >= 0)
    slot = graph.where(inside, slot, 0)
    sizes = _sizes(history, slot, inside, graph.constant([window]))
    bags = _bags(history, slot, inside, sizes, weights["table"])
    if side is not None:
        bags = _add_to_window(history, bags, side, window)
    now = graph.op("GatherND", steps, history.n_visits, batch_dims=1)
    first = weights.linear("core.first", bags.reshape([0, -1])) + weights.linear("core.input", now)
    outputs = weights.linear("core.second", first.gelu()).gelu()
    for number in range(config.layers - 1):
        outputs = weights.linear(f"core.above.{number}", outputs).gelu()
    return outputs


def _add_to_window(history: History, bags: Value, side: Value, window: int) -> Value:
    """Add the vectors of the last visits to the places that they have in the window."""
    graph = history.graph
    visit = history.position.slice(1, 0, -1)
    slot = visit - history.n_visits + window
    inside = graph.op("And", slot >= 0, visit < history.n_visits)
    here = inside.cast(np.float32).insert_axis(2)
    return graph.scatter(bags, graph.where(inside, slot, 0), side * here, reduction="add")


def _remember_all(history: History, bags: Value, steps: Value, config: ModelConfig, weights: Weights) -> Value:
    graph = history.graph
    n_table = weights["table"].shape[1]
    project = weights["project.weight"] if "project.weight" in weights else np.eye(n_table, dtype=np.float32)
    # As if the first layer had one input: the projection of bags is part of its weights.
    inputs = graph.concat(2, bags, steps).transpose(1, 0, 2)
    outputs, last = _lstm(
        history, inputs, np.concatenate((project, weights["core.input.weight"]), axis=1), "core", weights
    )
    for number in range(config.layers - 1):
        name = f"core.above.{number}"
        outputs, last = _lstm(history, outputs, weights[f"{name}.input.weight"], name, weights)
    return last


def _lstm(history: History, inputs: Value, w: NDArray[np.float32], name: str, weights: Weights) -> tuple[Value, Value]:
    """One layer over inputs [N + 1, B, n_in]: its outputs [N + 1, B, H], and the last of each customer [B, H]."""
    r, bias = weights[f"{name}.weight"].T, weights[f"{name}.input.bias"]
    hidden = r.shape[1]

    def reordered(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """From gates as input, forget, output, candidate to those of ONNX: input, output, forget, candidate."""
        gates = rows.reshape(4, hidden, *rows.shape[1:])
        ordered: NDArray[np.float32] = gates[[0, 2, 1, 3]].reshape(1, *rows.shape)
        return ordered

    outputs, last, _ = history.graph.ops(
        "LSTM",
        inputs,
        weights.constant(reordered(w)),
        weights.constant(reordered(r)),
        weights.constant(np.concatenate((reordered(bias), np.zeros((1, 4 * hidden))), axis=1)),
        (history.n_visits + 1).drop_axis(1).cast(np.int32),
        n_outputs=3,
        hidden_size=hidden,
    )
    return outputs.drop_axis(1), last.drop_axis(0)


def _step_features(history: History, calendar: Calendar, sizes: Value) -> Value:
    """Size and calendar of the visit that a step sees, and the calendar of the visit to come: float32 [B, N + 1, S]."""
    graph = history.graph
    seen = history.has_earlier().cast(np.float32)
    before = graph.concat(1, calendar.steps.slice(1, 0, 1) * 0.0, calendar.steps.slice(1, 0, -1))
    return graph.concat(2, graph.stack(sizes.log1p(), seen), before, calendar.steps)


def _sizes(history: History, rows: Value, present: Value, n_rows: Value) -> Value:
    """Count the actions of each row, float32 [B, n_rows]."""
    graph = history.graph
    empty = graph.zeros(np.float32, rows.size(0), n_rows)
    return graph.scatter(empty, rows, present.cast(np.float32), reduction="add")


def _bags(history: History, rows: Value, present: Value, sizes: Value, table: NDArray[np.float32]) -> Value:
    """Sum the vectors of each row's actions over the square root of how many there are, float32 [B, n_rows, E]."""
    graph = history.graph
    # PERF: what is left out reads a row of zeros below the table; to multiply it away would take most of the time.
    nothing = len(table)
    padded = graph.constant(np.concatenate((table, np.zeros((1, table.shape[1]), table.dtype))), np.float32)
    vectors = graph.op("Gather", padded, graph.where(present, history.actions, nothing))
    empty = graph.zeros(np.float32, rows.size(0), sizes.size(1), table.shape[1])
    total = graph.scatter(empty, rows, vectors, reduction="add")
    return total / graph.op("Sqrt", sizes.at_least(1.0)).insert_axis(2)
