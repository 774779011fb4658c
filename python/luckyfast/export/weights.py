"""The weights of a trained model as constants of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.export.graph import Graph, Value

__all__ = ["Weights"]


class Weights:
    """Weights by name, and the layers made of them.

    Args:
        graph: the graph they go into.
        state: float32 arrays by name.
    """

    def __init__(self, graph: Graph, state: dict[str, NDArray[np.float32]]) -> None:
        self.graph = graph
        self._state = state

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self._state[name]

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def constant(self, array: NDArray[Any]) -> Value:
        """Hold an array as float32."""
        return self.graph.constant(array, np.float32)

    def linear(self, name: str, values: Value, *, bias: bool = True) -> Value:
        """Apply a linear layer to the last axis."""
        result = values @ self.constant(self[f"{name}.weight"].T)
        return result + self.constant(self[f"{name}.bias"]) if bias else result
