"""Which settings mattered: how much of the differences between trials each one explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.search.space import Space

__all__ = ["importance"]

RIDGE = 0.3
LEAST_TRIALS = 8


def importance(space: Space, results: Sequence[tuple[Mapping[str, Any], int, float]]) -> dict[str, float]:
    """Share of the explained variance of losses that is lost without a setting.

    Ranks of the losses, within each rung, are explained by a sum of parabolas, one per setting; a setting's importance
    is what the fit loses when its parabola is taken out (a first-order analysis of variance, as fANOVA; Hutter et al.,
    2014). Settings that matter only together with others are underrated, and with few trials all of it is rough.

    Args:
        space: what was searched.
        results: settings, rung and loss of what was trained.

    Returns:
        A share per setting, the largest first; they add up to 1. Empty where there are too few trials to tell.

    Example:
        >>> space = default_space(ModelConfig())
        >>> points = np.random.default_rng(0).uniform(size=(60, len(space.dimensions)))
        >>> settings = [space.decode(point) for point in points]
        >>> shares = importance(space, [(one, 0, (one["dropout"] - 0.3) ** 2) for one in settings])
        >>> next(iter(shares))
        'dropout'
    """
    if len(results) < max(LEAST_TRIALS, len(space.dimensions)):
        return {}
    points = np.array([space.encode(settings) for settings, _, _ in results])
    rungs = np.array([rung for _, rung, _ in results])
    losses = np.array([loss for _, _, loss in results])
    scores = np.zeros(len(results))
    for rung in np.unique(rungs):
        here = np.flatnonzero(rungs == rung)
        ranks = np.argsort(np.argsort(losses[here], kind="stable"), kind="stable")
        scores[here] = (ranks + 0.5) / len(here) - 0.5
    centred = points - points.mean(axis=0)
    columns = np.stack((centred, centred**2 - (centred**2).mean(axis=0)), axis=2)
    whole = _unexplained(columns, scores)
    lost = {
        dimension.name: max(_unexplained(np.delete(columns, index, axis=1), scores) - whole, 0.0)
        for index, dimension in enumerate(space.dimensions)
    }
    total = sum(lost.values())
    shares = {name: value / total if total > 0 else 0.0 for name, value in lost.items()}
    return dict(sorted(shares.items(), key=lambda one: -one[1]))


def _unexplained(columns: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Sum of squares that a ridge regression leaves."""
    features = columns.reshape(len(scores), -1)
    gram = features.T @ features + RIDGE * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features.T @ scores)
    return float(((scores - features @ weights) ** 2).sum())
