"""Bayesian optimisation over settings and rungs as a Nevergrad optimizer: one Gaussian process for all rungs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nevergrad as ng
import numpy as np
from numpy.typing import NDArray

__all__ = ["GaussianProcess"]

Array = NDArray[np.float64]
N_RANDOM = 6
"""Proposals before there is enough to model."""
N_CANDIDATES = 1500
N_KEPT = 300
"""Of them, by expected improvement, whose cost is looked at."""
N_FITS = 60
MAX_RESULTS = 220
COST_POWER = 0.6
"""Expected improvement is divided by cost to this power; 0.3 and 0 find less in the same time."""
WORST = 0.75
"""Losses beyond this quantile count as being there: a diverged trial does not bend the model."""
MEAN_VARIANCE = 25.0
"""Of the unknown mean of each rung, and a quarter of it of what their means share."""


@ng.optimizers.registry.register
class GaussianProcess(ng.optimizers.base.Optimizer):  # type: ignore[misc]
    """Expected improvement at the highest rung (Jones et al., 1998) under a Gaussian process over settings and rungs.

    The kernel is a Matérn 5/2 with a length scale per dimension times a correlation between rungs that falls with their
    distance (as in Swersky et al., 2013), so that cheap results tell of dear ones as far as they agree. Rungs have
    means of their own: what was promoted was better than most before. Scales, noise and correlation maximise the
    marginal likelihood times a log-normal prior, by a random search that narrows. Asked again without being told
    anything, it gives its next best candidate.

    Attributes:
        log_cost: logarithm of the cost of points [n, d], float64 [n]; None where all cost the same.

    Example:
        >>> process = GaussianProcess(ng.p.Array(init=np.full(2, 0.5)).set_mutation(sigma=0.3))
        >>> for x in np.random.default_rng(0).uniform(size=(30, 2)):
        ...     process.tell_rung(x, 0, ((x - 0.3) ** 2).sum())
        >>> bool(np.abs(process.ask().value - 0.3).max() < 0.1)
        True
    """

    log_cost: Callable[[Array], Array] | None = None

    def __init__(self, parametrization: Any, budget: int | None = None, num_workers: int = 1) -> None:
        super().__init__(parametrization, budget=budget, num_workers=num_workers)
        self._points: list[Array] = []
        self._rungs: list[int] = []
        self._losses: list[float] = []
        self._candidates: list[Array] = []

    def tell_rung(self, point: Array, rung: int, loss: float) -> None:
        """Tell a result.

        Args:
            point: float64 [d], in [0, 1].
            rung: 0 is the cheapest.
            loss: less is better; inf where there is none because the trial failed.
        """
        self._points.append(np.asarray(point, float))
        self._rungs.append(rung)
        self._losses.append(float(loss))
        self._candidates = []

    def _internal_ask_candidate(self) -> Any:
        rng, start = self._rng, np.asarray(self.parametrization.value, float)
        if len({point.tobytes() for point in self._points}) < N_RANDOM:
            point = np.clip(start + rng.normal(0.0, 0.3, len(start)), 0.0, 1.0) if self._points else start
        else:
            if not self._candidates:
                self._candidates = list(self._ranked()[::-1])
            point = self._candidates.pop()
        return self.parametrization.spawn_child(new_value=point)

    def _internal_tell_candidate(self, candidate: Any, loss: float) -> None:
        self.tell_rung(candidate.value, 0, loss)

    def _internal_tell_not_asked(self, candidate: Any, loss: float) -> None:
        self._internal_tell_candidate(candidate, loss)

    def _ranked(self) -> Array:
        """Candidates, the best first, float64 [n, d]."""
        losses, rungs = np.array(self._losses), np.array(self._rungs)
        kept = np.lexsort((losses, -rungs))[:MAX_RESULTS]
        points, rungs = np.array(self._points)[kept], rungs[kept]
        process = _Process.fit(points, rungs, _scores(losses[kept], rungs), self._rng)
        tried = np.unique(points, axis=0)
        top = int(rungs.max())
        means, _ = process.predict(tried, top)
        candidates = _candidates(tried[np.argsort(means, kind="stable")[:5]], self._rng)
        value = _log_expected_improvement(*process.predict(candidates, top), float(means.min()))
        most = np.argsort(-value, kind="stable")[:N_KEPT]
        candidates, value = candidates[most], value[most]
        if self.log_cost is not None:
            value = value - COST_POWER * self.log_cost(candidates)
        ranked: Array = candidates[np.argsort(-value, kind="stable")]
        return ranked


class _Process:
    """A fitted process of unit variance, with noise."""

    def __init__(self, points: Array, rungs: Any, scores: Array, logs: Array) -> None:
        self.points, self.rungs = points, rungs
        self.scales, noise, self.agreement = np.exp(logs[:-2]), np.exp(logs[-2]), 1.0 / (1.0 + np.exp(-logs[-1]))
        self.factor = np.linalg.cholesky(self._kernel(points, rungs) + noise * np.eye(len(points)))
        self._whitened = np.linalg.solve(self.factor, scores)
        self.log_likelihood = -0.5 * float(self._whitened @ self._whitened) - float(np.log(np.diag(self.factor)).sum())

    @classmethod
    def fit(cls, points: Array, rungs: Any, scores: Array, rng: Any) -> _Process:
        """Choose length scales, noise, and how far neighbouring rungs agree."""
        centre = np.array([np.log(0.7)] * points.shape[1] + [np.log(0.05), 2.0])
        best, best_value, best_logs = None, -np.inf, centre
        for number in range(N_FITS):
            is_wide = number < N_FITS // 3
            changed = rng.uniform(size=len(centre)) < (1.0 if is_wide else 0.3)
            step = changed * rng.normal(0.0, 1.0 if is_wide else 0.4, len(centre))
            logs = (centre if is_wide else best_logs) + (number > 0) * step
            logs[-2] = min(max(logs[-2], np.log(1e-4)), 0.0)
            process = cls(points, rungs, scores, logs)
            value = process.log_likelihood - 0.5 * float(((logs - centre) ** 2).sum())
            if best is None or value > best_value:
                best, best_value, best_logs = process, value, logs
        assert best is not None
        return best

    def predict(self, points: Array, rung: int) -> tuple[Array, Array]:
        """Mean and standard deviation at a rung, each float64 [n]."""
        cross = self._kernel(points, np.full(len(points), rung))
        whitened = np.linalg.solve(self.factor, cross.T)
        variance = 1.0 + 1.25 * MEAN_VARIANCE - (whitened**2).sum(axis=0)
        return self._whitened @ whitened, np.sqrt(np.maximum(variance, 1e-10))

    def _kernel(self, points: Array, rungs: Any) -> Array:
        """Covariance of points with those it was fitted to, float64 [n, m]."""
        apart = np.abs(rungs[:, None] - self.rungs[None])
        kernel: Array = _matern(points, self.points, self.scales) * self.agreement**apart
        kernel += MEAN_VARIANCE * (0.25 + (apart == 0))
        return kernel


def _log_expected_improvement(mean: Array, spread: Array, least: float) -> Array:
    """How far below the least score each candidate is expected to fall, as a logarithm, float64 [n]."""
    gain = (least - mean) / spread
    density = np.exp(-0.5 * gain**2) / np.sqrt(2 * np.pi)
    # Abramowitz & Stegun 7.1.26 in place of an error function, which NumPy has not.
    t = 1.0 / (1.0 + 0.2316419 * np.abs(gain))
    tail = density * t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    below = np.where(gain > 0, 1.0 - tail, tail)
    improvement: Array = np.log(np.maximum(spread * (gain * below + density), 1e-300))
    return improvement


def _matern(a: Array, b: Array, scales: Array) -> Array:
    scaled_a, scaled_b = a / scales, b / scales
    squares = (scaled_a**2).sum(1)[:, None] + (scaled_b**2).sum(1)[None] - 2.0 * scaled_a @ scaled_b.T
    distance = np.sqrt(5.0 * np.maximum(squares, 0.0))
    kernel: Array = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    return kernel


def _scores(losses: Array, rungs: Any) -> Array:
    """Losses around 0, of variance 1 within rungs; the worst of each rung are cut off."""
    scores = np.empty(len(losses))
    variance = 0.0
    for rung in np.unique(rungs):
        here = rungs == rung
        own, ok = losses[here], np.isfinite(losses[here])
        worst = np.quantile(own[ok], WORST) if ok.any() else np.inf
        scores[here] = np.minimum(own, worst)
        variance += float(np.var(scores[here])) * len(own) if ok.any() else 0.0
    known = np.isfinite(scores)
    scores -= scores[known].mean()
    scores[~known] = 0.0
    return scores / max(float(np.sqrt(variance / len(losses))), 1e-12)


def _candidates(best: Array, rng: Any) -> Array:
    """Points everywhere, and near the best in a few coordinates."""
    n_dimensions = best.shape[1]
    anywhere = rng.uniform(size=(N_CANDIDATES // 3, n_dimensions))
    near = best[rng.randint(len(best), size=N_CANDIDATES - len(anywhere))]
    width = 10.0 ** rng.uniform(-2.0, -0.3, size=(len(near), 1))
    changed = rng.uniform(size=near.shape) < np.maximum(rng.uniform(size=(len(near), 1)), 1.0 / n_dimensions)
    return np.concatenate((anywhere, np.clip(near + changed * rng.normal(size=near.shape) * width, 0.0, 1.0)))
