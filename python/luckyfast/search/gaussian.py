"""Bayesian optimisation as a Nevergrad optimizer: a Gaussian process with one length scale per dimension."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import nevergrad as ng
import numpy as np
from numpy.typing import NDArray

__all__ = ["GaussianProcess"]

Array = NDArray[np.float64]
N_RANDOM = 6
"""Proposals before there is enough to model."""
N_CANDIDATES = 1500
N_FITS = 120
MAX_POINTS = 250


@ng.optimizers.registry.register
class GaussianProcess(ng.optimizers.base.Optimizer):  # type: ignore[misc]
    """Expected improvement under a Gaussian process (Jones et al., 1998), Matérn 5/2 with automatic relevance.

    Losses are replaced by normal scores of their ranks, so that a diverged trial or a penalty does not bend the model.
    Length scales maximise the marginal likelihood times a log-normal prior, by a random search that narrows.
    """

    def __init__(self, parametrization: Any, budget: int | None = None, num_workers: int = 1) -> None:
        super().__init__(parametrization, budget=budget, num_workers=num_workers)
        self._points: list[Array] = []
        self._losses: list[float] = []

    def _internal_ask_candidate(self) -> Any:
        rng, start = self._rng, np.asarray(self.parametrization.value, float)
        if len(self._points) < N_RANDOM:
            point = np.clip(start + rng.normal(0.0, 0.25, len(start)), 0.0, 1.0) if self._points else start
        else:
            kept = np.argsort(self._losses, kind="stable")[:MAX_POINTS]
            points = np.array(self._points)[kept]
            scores = _normal_scores(np.array(self._losses)[kept])
            process = _Process.fit(points, scores, rng)
            candidates = _candidates(points, scores, rng)
            point = candidates[int(np.argmax(process.expected_improvement(candidates, float(scores.min()))))]
        return self.parametrization.spawn_child(new_value=point)

    def _internal_tell_candidate(self, candidate: Any, loss: float) -> None:
        self._points.append(np.asarray(candidate.value, float))
        self._losses.append(float(loss))

    def _internal_tell_not_asked(self, candidate: Any, loss: float) -> None:
        self._internal_tell_candidate(candidate, loss)


class _Process:
    """A fitted process: zero mean, unit variance, and noise."""

    def __init__(self, points: Array, scores: Array, scales: Array, noise: float) -> None:
        self.points, self.scales = points, scales
        kernel = _matern(points, points, scales) + noise * np.eye(len(points))
        self.factor = np.linalg.cholesky(kernel)
        self.weights = np.linalg.solve(self.factor.T, np.linalg.solve(self.factor, scores))
        self.log_likelihood = -0.5 * float(scores @ self.weights) - float(np.log(np.diag(self.factor)).sum())

    @classmethod
    def fit(cls, points: Array, scores: Array, rng: Any) -> _Process:
        """Choose length scales and noise."""
        centre = np.full(points.shape[1] + 1, np.log(0.7))
        centre[-1] = np.log(0.05)
        best, best_value, best_logs = None, -np.inf, centre
        for number in range(N_FITS):
            width = 1.0 if number < N_FITS // 3 else 0.4
            changed = rng.uniform(size=len(centre)) < (1.0 if number < N_FITS // 3 else 0.3)
            base = centre if number < N_FITS // 3 else best_logs
            logs = base + (number > 0) * changed * rng.normal(0.0, width, len(centre))
            logs[-1] = min(max(logs[-1], np.log(1e-4)), 0.0)
            process = cls(points, scores, np.exp(logs[:-1]), float(np.exp(logs[-1])))
            value = process.log_likelihood - 0.5 * float(((logs - centre) ** 2).sum())
            if value > best_value:
                best, best_value, best_logs = process, value, logs
        assert best is not None
        return best

    def expected_improvement(self, candidates: Array, least: float) -> Array:
        """How far below the least score each candidate is expected to fall, float64 [n]."""
        cross = _matern(candidates, self.points, self.scales)
        mean = cross @ self.weights
        spread = np.sqrt(np.maximum(1.0 - (np.linalg.solve(self.factor, cross.T) ** 2).sum(axis=0), 1e-12))
        gain = (least - mean) / spread
        density = np.exp(-0.5 * gain**2) / np.sqrt(2 * np.pi)
        # Abramowitz & Stegun 7.1.26 in place of an error function, which NumPy has not.
        t = 1.0 / (1.0 + 0.2316419 * np.abs(gain))
        tail = (
            density * t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
        )
        below = np.where(gain > 0, 1.0 - tail, tail)
        improvement: Array = spread * (gain * below + density)
        return improvement


def _matern(a: Array, b: Array, scales: Array) -> Array:
    scaled_a, scaled_b = a / scales, b / scales
    squares = (scaled_a**2).sum(1)[:, None] + (scaled_b**2).sum(1)[None] - 2.0 * scaled_a @ scaled_b.T
    distance = np.sqrt(5.0 * np.maximum(squares, 0.0))
    kernel: Array = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    return kernel


def _normal_scores(losses: Array) -> Array:
    ranks = np.empty(len(losses))
    ranks[np.argsort(losses, kind="stable")] = np.arange(len(losses))
    normal = NormalDist()
    return np.array([normal.inv_cdf((rank + 0.5) / len(losses)) for rank in ranks])


def _candidates(points: Array, scores: Array, rng: Any) -> Array:
    """Points everywhere, and near the best in a few coordinates."""
    n_dimensions = points.shape[1]
    anywhere = rng.uniform(size=(N_CANDIDATES // 3, n_dimensions))
    best = points[np.argsort(scores, kind="stable")[:5]]
    near = best[rng.randint(len(best), size=N_CANDIDATES - len(anywhere))]
    width = 10.0 ** rng.uniform(-2.0, -0.3, size=(len(near), 1))
    changed = rng.uniform(size=near.shape) < np.maximum(rng.uniform(size=(len(near), 1)), 1.0 / n_dimensions)
    return np.concatenate((anywhere, np.clip(near + changed * rng.normal(size=near.shape) * width, 0.0, 1.0)))
