"""Side columns as networks read them: numbers as standardised logarithms, categories as rows of one table.

A network reads the features of a visit together with its actions, so that they are known when the next visit is
predicted, and those of the predicted visit never are. Of a number it reads three inputs: the signed ``log1p`` of the
visit's sum and of the mean of its rows, each standardised by what was measured in the training time and cut off, and
whether there is no value, in which case the other two are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError

if TYPE_CHECKING:
    from luckyfast.dataset import Dataset, FeatureInfo, Histories

__all__ = [
    "INPUTS_PER_NUMBER",
    "MOST_DEVIATIONS",
    "FeatureMeter",
    "FeatureScale",
    "VisitFeatures",
    "check_features",
    "read_features",
    "table_starts",
]

INPUTS_PER_NUMBER = 3
MOST_DEVIATIONS = 5.0
"""Where the inputs of numbers are cut off."""


@dataclass(frozen=True)
class FeatureScale:
    """What a network must know of one feature.

    Args:
        name: its column in the raw files.
        kind: ``number`` or ``category``.
        categories: names of the categories; the first has id 1, and 0 is no value.
        means: of the two logarithms of a number (sum, mean of the rows) in the training visits that have a value.
        deviations: their standard deviations.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    means: tuple[float, float] = (0.0, 0.0)
    deviations: tuple[float, float] = (1.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureScale:
        """Rebuild from :meth:`to_dict`."""
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**plain)


@dataclass(frozen=True, eq=False)
class VisitFeatures:
    """The features of some visits as a network reads them.

    Args:
        numbers: float32 [n, 3 * numbers].
        categories: int64 [n, n_categorical], rows of the table in which those of all features follow one another.
    """

    numbers: NDArray[np.float32]
    categories: NDArray[np.int64]


@dataclass
class FeatureMeter:
    """Measures the numbers of the training time, batch by batch.

    Args:
        infos: the features of the dataset.
    """

    infos: Sequence[FeatureInfo]
    _sums: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        # of each feature and logarithm: how many, their sum, the sum of their squares
        self._sums = np.zeros((len(self.infos), 2, 3))

    def add(self, histories: Histories, visits: slice, inside: NDArray[np.bool_]) -> None:
        """Take in those visits of a stretch that lie ``inside`` the training time."""
        for k, info in enumerate(self.infos):
            if info.kind == "number":
                column = histories.features[k].take(visits)
                there = inside & (column.rows > 0)
                logs = _logarithms(column.values[there], column.rows[there])
                self._sums[k] += np.stack([np.array([len(one), one.sum(), (one * one).sum()]) for one in logs])

    def scales(self) -> tuple[FeatureScale, ...]:
        """What was measured."""
        found = []
        for info, sums in zip(self.infos, self._sums, strict=True):
            n, total, squares = sums.T
            means = total / np.maximum(n, 1)
            variances = squares / np.maximum(n, 1) - means**2
            deviations = np.where(variances > 1e-9, np.sqrt(np.maximum(variances, 1e-9)), 1.0)
            measured = (tuple(means.tolist()), tuple(deviations.tolist()))
            found.append(FeatureScale(info.name, info.kind, info.categories, *measured))
        return tuple(found)


def read_features(histories: Histories, scales: Sequence[FeatureScale]) -> VisitFeatures:
    """The features of all visits of a batch.

    Raises:
        ModelError: the dataset has other features.
    """
    if len(histories.features) != len(scales):
        raise _other_features(len(histories.features), scales)
    n, starts = histories.n_visits, iter(table_starts(scales))
    numbers, categories = [np.zeros((n, 0), np.float32)], [np.zeros((n, 0), np.int64)]
    for scale, column in zip(scales, histories.features, strict=True):
        if scale.kind == "category":
            categories.append((column.values.astype(np.int64) + next(starts))[:, None])
            continue
        there = column.rows > 0
        inputs = [
            np.clip((log - mean) / deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS)
            for log, mean, deviation in zip(
                _logarithms(column.values, np.maximum(column.rows, 1)), scale.means, scale.deviations, strict=True
            )
        ]
        numbers.append(np.stack([*(np.where(there, one, 0.0) for one in inputs), ~there], axis=1).astype(np.float32))
    return VisitFeatures(np.concatenate(numbers, axis=1), np.concatenate(categories, axis=1))


def table_starts(scales: Sequence[FeatureScale]) -> list[int]:
    """Where the rows of each categorical feature begin in the common table, and where the last ones end.

    Example:
        >>> table_starts([FeatureScale("a", "category", ("x", "y")), FeatureScale("b", "category", ("z",))])
        [0, 3, 5]
    """
    sizes = [1 + len(scale.categories) for scale in scales if scale.kind == "category"]
    return [sum(sizes[:k]) for k in range(len(sizes) + 1)]


def check_features(dataset: Dataset, scales: Sequence[FeatureScale]) -> None:
    """Refuse a dataset whose features are not those of a model, column by column and category by category.

    Raises:
        ModelError: they differ.
    """
    own = [(info.name, info.kind, info.categories) for info in dataset.features]
    if scales and own != [(scale.name, scale.kind, scale.categories) for scale in scales]:
        raise _other_features(len(own), scales)


def _other_features(n_found: int, scales: Sequence[FeatureScale]) -> ModelError:
    names = ", ".join(scale.name for scale in scales)
    return ModelError(
        f"the model was fitted with the features {names}, and those of the dataset ({n_found}) are not the same",
        hint="give the dataset that the model was fitted on, or fit again",
    )


def _logarithms(values: NDArray[np.integer[Any]], rows: NDArray[np.int32]) -> list[NDArray[np.float64]]:
    """Signed log1p of sums in millionths, and of the means of their rows."""
    sums = values / 1e6
    return [np.sign(one) * np.log1p(np.abs(one)) for one in (sums, sums / rows)]
