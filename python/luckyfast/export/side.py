"""The side columns of visits as inputs of a graph, and what they add to the vector of each visit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luckyfast.export.graph import Graph, Value
from luckyfast.export.weights import Weights
from luckyfast.features import INPUTS_PER_NUMBER, MOST_DEVIATIONS, FeatureScale, table_starts

__all__ = ["side_vectors"]


def side_vectors(graph: Graph, scales: Sequence[FeatureScale], weights: Weights) -> Value | None:
    """Declare the inputs and compute, as :mod:`luckyfast.features` and the network do, float32 [B, N, E].

    Args:
        graph: the graph.
        scales: the features of the model; without any there is nothing to add.
        weights: those of the network.
    """
    parts = []
    numbers = [scale for scale in scales if scale.kind == "number"]
    if numbers:
        sums = graph.input("sums", np.float64, ["B", "N", len(numbers)], "sum over the rows that have a number")
        rows = graph.input("rows", np.int64, ["B", "N", len(numbers)], "rows that have a number; 0 is no value")
        there = rows >= 1
        means = sums / rows.at_least(1).cast(np.float64)
        inputs = [_standardised(value, numbers, which) for which, value in enumerate((sums, means))]
        columns = [*(graph.where(there, value.cast(np.float32), 0.0) for value in inputs), 1.0 - there.cast(np.float32)]
        read = graph.stack(*columns).reshape([0, 0, INPUTS_PER_NUMBER * len(numbers)])
        parts.append(read @ weights.constant(weights["side.weight"].T))
    starts = table_starts(scales)[:-1]
    if starts:
        ids = graph.input("categories", np.int64, ["B", "N", len(starts)], "id of the category; 0 is no value")
        table = graph.constant(weights["side.table"], np.float32)
        vectors = graph.op("Gather", table, ids + graph.constant(np.array(starts, np.int64)), dtype=np.float32)
        parts.append(vectors.sum(2) / float(np.sqrt(len(starts))))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _standardised(value: Value, scales: Sequence[FeatureScale], which: int) -> Value:
    """The signed log1p of sums or means, standardised and cut off."""
    graph = value.graph
    log = graph.op("Sign", value) * graph.op("Abs", value).log1p()
    mean, deviation = (
        graph.constant(np.array([getattr(scale, name)[which] for scale in scales]), np.float64)
        for name in ("means", "deviations")
    )
    return ((log - mean) / deviation).clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)
