"""Write an ONNX graph as one writes NumPy: values with operators, constants made on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["OPSET", "Graph", "Value"]

OPSET = 18
_IR_VERSION = 8  # read by every runtime that knows opset 18


class Value:
    """A tensor of a graph: its name and its type, the shape being known at run time alone."""

    def __init__(self, graph: Graph, name: str, dtype: DTypeLike) -> None:
        self.graph = graph
        self.name = name
        self.dtype = np.dtype(dtype)

    def __add__(self, other: Value | float) -> Value:
        return self.graph.op("Add", self, self._like(other))

    def __radd__(self, other: float) -> Value:
        return self._like(other) + self

    def __sub__(self, other: Value | float) -> Value:
        return self.graph.op("Sub", self, self._like(other))

    def __rsub__(self, other: float) -> Value:
        return self._like(other) - self

    def __mul__(self, other: Value | float) -> Value:
        return self.graph.op("Mul", self, self._like(other))

    def __rmul__(self, other: float) -> Value:
        return self._like(other) * self

    def __truediv__(self, other: Value | float) -> Value:
        return self.graph.op("Div", self, self._like(other))

    def __matmul__(self, other: Value) -> Value:
        return self.graph.op("MatMul", self, other)

    def __ge__(self, other: Value | float) -> Value:
        return self.graph.op("GreaterOrEqual", self, self._like(other), dtype=np.bool_)

    def __lt__(self, other: Value | float) -> Value:
        return self.graph.op("Less", self, self._like(other), dtype=np.bool_)

    def equals(self, other: Value | float) -> Value:
        """Compare element by element."""
        return self.graph.op("Equal", self, self._like(other), dtype=np.bool_)

    def modulo(self, divisor: int) -> Value:
        """Remainder of a division of whole numbers, never negative, as in Python."""
        return self.graph.op("Mod", self, self._like(divisor))

    def cast(self, dtype: DTypeLike) -> Value:
        """Change the type."""
        if self.dtype == np.dtype(dtype):
            return self
        return self.graph.op("Cast", self, dtype=dtype, to=_element_type(np.dtype(dtype)))

    def log1p(self) -> Value:
        """Logarithm of one more."""
        return self.graph.op("Log", self + 1.0)

    def clip(self, low: float, high: float) -> Value:
        """Limit to a range."""
        return self.graph.op("Clip", self, self._like(low), self._like(high))

    def at_least(self, low: float) -> Value:
        """Limit from below."""
        return self.graph.op("Max", self, self._like(low))

    def at_most(self, high: float) -> Value:
        """Limit from above."""
        return self.graph.op("Min", self, self._like(high))

    def gelu(self) -> Value:
        """Gaussian error linear unit, exact form."""
        return 0.5 * self * (self.graph.op("Erf", self / 2.0**0.5) + 1.0)

    def insert_axis(self, axis: int) -> Value:
        """Add an axis of length one."""
        return self.graph.op("Unsqueeze", self, self.graph.constant([axis]))

    def drop_axis(self, axis: int) -> Value:
        """Remove an axis of length one."""
        return self.graph.op("Squeeze", self, self.graph.constant([axis]))

    def sum(self, axis: int) -> Value:
        """Add up along an axis, which goes away."""
        return self.graph.op("ReduceSum", self, self.graph.constant([axis]), keepdims=0)

    def slice(self, axis: int, start: int, stop: int) -> Value:
        """Take a range along an axis; negative positions count from its end."""
        constant = self.graph.constant
        return self.graph.op("Slice", self, constant([start]), constant([stop]), constant([axis]))

    def take(self, index: Value, axis: int) -> Value:
        """Take the element that ``index`` names along an axis, at each of its positions."""
        return self.graph.op("GatherElements", self, index, axis=axis)

    def size(self, axis: int) -> Value:
        """Length of an axis, int64 [1]."""
        return self.graph.op("Shape", self, dtype=np.int64, start=axis, end=axis + 1)

    def shape(self) -> Value:
        """Lengths of all axes, int64 [rank]."""
        return self.graph.op("Shape", self, dtype=np.int64)

    def reshape(self, shape: Value | Sequence[int]) -> Value:
        """Give another shape; 0 keeps a length, -1 takes what is left."""
        wanted = shape if isinstance(shape, Value) else self.graph.constant(list(shape))
        return self.graph.op("Reshape", self, wanted)

    def transpose(self, *axes: int) -> Value:
        """Reorder the axes."""
        return self.graph.op("Transpose", self, perm=list(axes))

    def _like(self, other: Value | float) -> Value:
        return other if isinstance(other, Value) else self.graph.constant(other, self.dtype)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[str | int], doc: str) -> Value:
        """Declare an input."""
        self._inputs.append(_value_info(name, np.dtype(dtype), shape, doc))
        return Value(self, name, dtype)

    def default_input(self, name: str, values: NDArray[Any], doc: str) -> Value:
        """Declare an input that has these values where it is not given."""
        from onnx import numpy_helper

        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return self.input(name, values.dtype, values.shape, doc)

    def output(self, name: str, value: Value, shape: Sequence[str | int], doc: str) -> None:
        """Declare an output."""
        from onnx import helper

        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(_value_info(name, value.dtype, shape, doc))

    def constant(self, values: ArrayLike, dtype: DTypeLike | None = None) -> Value:
        """Hold some numbers; equal ones are stored once. Whole numbers are int64 unless told otherwise."""
        from onnx import numpy_helper

        array: NDArray[Any] = np.ascontiguousarray(values, dtype).reshape(np.shape(values))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = Value(self, name, array.dtype)
        return self._constants[key]

    def op(self, kind: str, *inputs: Value | None, dtype: DTypeLike | None = None, **attributes: Any) -> Value:
        """Apply an operator; the result has the first input's type unless told otherwise."""
        return self.ops(kind, *inputs, n_outputs=1, dtype=dtype, **attributes)[0]

    def ops(
        self, kind: str, *inputs: Value | None, n_outputs: int, dtype: DTypeLike | None = None, **attributes: Any
    ) -> list[Value]:
        """Apply an operator that has several results."""
        from onnx import helper

        names = [f"v{len(self._nodes)}_{index}" for index in range(n_outputs)]
        self._nodes.append(
            helper.make_node(kind, [value.name if value else "" for value in inputs], names, **attributes)
        )
        first = next(value for value in inputs if value is not None)
        return [Value(self, name, first.dtype if dtype is None else dtype) for name in names]

    def where(self, condition: Value, value: Value, other: Value | float) -> Value:
        """Choose element by element."""
        return self.op("Where", condition, value, value._like(other), dtype=value.dtype)

    def concat(self, axis: int, *values: Value) -> Value:
        """Join along an axis."""
        return self.op("Concat", *values, axis=axis)

    def stack(self, *values: Value) -> Value:
        """Join along a new last axis."""
        return self.concat(-1, *[value.insert_axis(-1) for value in values])

    def zeros(self, dtype: DTypeLike, *lengths: Value | int) -> Value:
        """Make zeros; a length is a number, or an int64 [1] value."""
        parts = [length if isinstance(length, Value) else self.constant([length]) for length in lengths]
        shape = self.concat(0, *parts)
        return self.op("Expand", self.constant(np.zeros([1] * len(lengths), dtype)), shape)

    def scatter(self, target: Value, index: Value, updates: Value, *, reduction: str) -> Value:
        """Combine updates [B, P, ...] into the rows of [B, R, ...] that ``index`` int64 [B, P] names: add or max."""
        one, zero = self.constant(1), self.constant(0)
        rows = self.op("Range", zero, index.size(0).drop_axis(0), one)
        batch = self.op("Expand", rows.insert_axis(1), index.shape())
        return self.op("ScatterND", target, self.stack(batch, index), updates, reduction=reduction)

    def build(self, name: str, metadata: dict[str, str], doc: str) -> Any:
        """Check the graph and return the model.

        Args:
            name: of the graph.
            metadata: texts to store beside it.
            doc: what it computes.

        Returns:
            The ``onnx.ModelProto``.
        """
        import onnx
        from onnx import helper

        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers, doc_string=doc)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="luckyfast", ir_version=_IR_VERSION
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        return model


def _value_info(name: str, dtype: np.dtype[Any], shape: Sequence[str | int], doc: str) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, _element_type(dtype), shape, doc_string=doc)


def _element_type(dtype: np.dtype[Any]) -> int:
    from onnx import helper

    element: int = helper.np_dtype_to_tensor_dtype(dtype)
    return element
