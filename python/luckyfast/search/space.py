"""The space of configurations: a point in [0, 1]^d stands for the settings of one model."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError
from luckyfast.models import ModelConfig

__all__ = ["Dimension", "Space", "default_space", "read_space"]

Kind = Literal["log", "linear", "ordered", "choice"]
Point = NDArray[np.float64]

_HINT = (
    "write it like hidden = {log = [32, 512]}, dropout = {linear = [0.0, 0.6]}, batch_visits = {ordered = [256, 512]}"
)


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Args:
        name: a field of :class:`~luckyfast.models.ModelConfig`.
        kind: ``log`` or ``linear`` between two bounds, ``ordered`` values, or a ``choice`` of values without order.
        values: the bounds, or the values.

    Example:
        >>> Dimension("hidden", "log", (32, 512)).decode(0.5)
        128
        >>> Dimension("batch_visits", "ordered", (256, 512, 1024)).encode(512)
        0.5
    """

    name: str
    kind: Kind
    values: tuple[Any, ...]

    def decode(self, u: float) -> Any:
        """The value at ``u`` in [0, 1]; each whole number or listed value has an equal share of the interval."""
        u = min(max(float(u), 0.0), 1.0)
        if self.kind in ("ordered", "choice"):
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        low, high = self.values
        if not isinstance(low, int):
            return low * (high / low) ** u if self.kind == "log" else low + u * (high - low)
        if self.kind == "log":
            return min(max(round(low * (high / low) ** u), low), high)
        return min(low + int(u * (high - low + 1)), high)

    def encode(self, value: Any) -> float:
        """The middle of what decodes to a value; the nearest where it lies outside.

        Raises:
            ModelError: the value is none of a choice.
        """
        if self.kind in ("ordered", "choice"):
            if value in self.values:
                return (self.values.index(value) + 0.5) / len(self.values)
            if self.kind == "choice" or not all(isinstance(one, int | float) for one in (value, *self.values)):
                raise ModelError(f"{self.name} is none of {self.values}: {value!r}", hint="add it to the space")
            nearest = min(range(len(self.values)), key=lambda index: abs(self.values[index] - value))
            return (nearest + 0.5) / len(self.values)
        low, high = self.values
        if self.kind == "log":
            u = math.log(max(value, low * 1e-9) / low) / math.log(high / low)
        else:
            u = (value - low + 0.5) / (high - low + 1) if isinstance(low, int) else (value - low) / (high - low)
        return min(max(u, 0.0), 1.0)


@dataclass(frozen=True)
class Space:
    """Dimensions, and the configuration that everything starts from.

    Args:
        dimensions: what is searched.
        start: all settings of the default configuration, the searched and the fixed, as ``ModelConfig.to_dict`` gives.

    Example:
        >>> space = default_space(ModelConfig(hidden=96))
        >>> space.decode(space.encode(space.start))["hidden"]
        96
    """

    dimensions: tuple[Dimension, ...]
    start: Mapping[str, Any]

    def decode(self, point: Sequence[float] | Point) -> dict[str, Any]:
        """The settings at a point of [0, 1]^d."""
        return dict(self.start) | {d.name: d.decode(u) for d, u in zip(self.dimensions, point, strict=True)}

    def encode(self, settings: Mapping[str, Any]) -> Point:
        """The point of some settings, float64 [d]; settings that are not searched do not matter."""
        return np.array([d.encode(settings[d.name]) for d in self.dimensions])

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, for JSON; two spaces are the same where these are equal."""
        return {
            "dimensions": {d.name: {d.kind: list(d.values)} for d in self.dimensions},
            "start": dict(self.start),
        }


def default_space(config: ModelConfig, fixed: Sequence[str] = ()) -> Space:
    """The space that is searched where nothing else is asked.

    Args:
        config: the default configuration; a bound is widened where it lies outside.
        fixed: settings that keep their value.
    """
    wide = {
        "hidden": Dimension("hidden", "log", (32, 512)),
        "embedding": Dimension("embedding", "log", (16, 256)),
        "dropout": Dimension("dropout", "linear", (0.0, 0.7)),
        "learning_rate": Dimension("learning_rate", "log", (3e-4, 3e-2)),
        "schedule": Dimension("schedule", "choice", ("cosine", "linear", "constant")),
        "weight_decay": Dimension("weight_decay", "log", (1e-3, 0.3)),
        "size_power": Dimension("size_power", "linear", (0.0, 1.0)),
        "label_smoothing": Dimension("label_smoothing", "ordered", (0.0, 0.02, 0.05, 0.1)),
        "recency": Dimension("recency", "linear", (0.0, 5.0)),
        "batch_visits": Dimension("batch_visits", "ordered", (128, 256, 512, 1024)),
        "ema_decay": Dimension("ema_decay", "ordered", (0.9, 0.97, 0.99, 0.995, 0.998)),
    }
    if config.arch == "mlp":
        wide["layers"] = Dimension("layers", "ordered", (1, 2, 3))
        wide["window"] = Dimension("window", "log", (2, 24))
    else:
        wide["layers"] = Dimension("layers", "ordered", (1, 2))
        wide["segment_visits"] = Dimension("segment_visits", "ordered", (16, 32, 64, 128))
    if config.habit:
        wide["n_half_lives"] = Dimension("n_half_lives", "linear", (2, 8))
        wide["habit_strength"] = Dimension("habit_strength", "log", (1.0, 30.0))
        wide["habit_hidden"] = Dimension("habit_hidden", "ordered", (4, 8, 16, 32))
    start = config.to_dict()
    return Space(tuple(_holding(d, start[d.name]) for name, d in wide.items() if name not in fixed), start)


def read_space(path: str | Path, config: ModelConfig, fixed: Sequence[str] = ()) -> Space:
    """Read a space from a small TOML file: one line per setting, a range, values, or one fixed value.

    Args:
        path: the file, such as ``hidden = {log = [32, 512]}``, ``dropout = {linear = [0.0, 0.6]}``,
            ``batch_visits = {ordered = [256, 512]}``, ``visit_spans = {choice = [[2.0], [2.0, 8.0]]}``, ``epochs = 3``.
        config: the default configuration: where the search starts, and the value of what the file does not name.
        fixed: settings that keep their value, whatever the file says.

    A search begins at the default configuration, or as near to it as the file's ranges let it: no range is widened.

    Raises:
        ModelError: the file is missing or no such TOML, or names a setting that there is not.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"{path} is no readable space: {error}", hint=_HINT) from error
    known = {field.name for field in fields(ModelConfig)} - {"arch", "habit", "features", "seed"}
    start, dimensions = config.to_dict(), []
    for name, value in content.items():
        if name not in known:
            raise ModelError(
                f"{path}: there is no setting {name}", hint=f"the settings are: {', '.join(sorted(known))}"
            )
        if name in fixed:
            continue
        if not isinstance(value, dict):
            start[name] = _checked(path, config, name, value)
            continue
        dimension = _dimension(path, name, value, type(start[name]))
        for one in dimension.values:
            _checked(path, config, name, one)
        dimensions.append(dimension)
        start[name] = _nearest(dimension, start[name])
    return Space(tuple(dimensions), start)


def _checked(path: str | Path, config: ModelConfig, name: str, value: Any) -> Any:
    try:
        return ModelConfig.from_dict(config.to_dict() | {name: value}).to_dict()[name]
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", hint=error.hint) from error


def _dimension(path: str | Path, name: str, value: dict[str, Any], type_: type) -> Dimension:
    kind, values = next(iter(value.items()), ("", None))
    good = len(value) == 1 and kind in get_args(Kind) and isinstance(values, list) and len(values) > 1
    if good and kind in ("log", "linear"):
        assert isinstance(values, list)
        good = len(values) == 2 and all(type(one) in (int, float) for one in values) and type_ in (int, float)
        whole = [type_(one) for one in values] if good else values
        good = good and whole == values and values[0] < values[1] and (kind == "linear" or values[0] > 0)
        values = whole
    elif good and kind == "ordered":
        assert isinstance(values, list)
        good = all(type(one) in (int, float) for one in values)
    if not good:
        raise ModelError(f"{path}: {name} has no range: {value!r}", hint=_HINT)
    return Dimension(name, kind, tuple(values))  # type: ignore[arg-type]


def _nearest(dimension: Dimension, value: Any) -> Any:
    """The value of a dimension that is nearest to another; of a choice the first, where that is none of them."""
    values = dimension.values
    if dimension.kind in ("log", "linear"):
        return min(max(value, values[0]), values[1])
    if value in values:
        return value
    return values[0] if dimension.kind == "choice" else min(values, key=lambda one: abs(one - value))


def _holding(dimension: Dimension, value: Any) -> Dimension:
    """The dimension, widened where the default value lies outside."""
    values = dimension.values
    if dimension.kind in ("log", "linear"):
        values = (min(values[0], value), max(values[1], value))
    elif value not in values:
        values = (*values, value) if dimension.kind == "choice" else tuple(sorted({*values, value}))
    return Dimension(dimension.name, dimension.kind, values)
