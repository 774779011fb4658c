"""What to try next: Nevergrad proposes, and what it proposes depends on the seed, the number and the results alone.

A fresh optimizer is made for each proposal and told of what was found: there is no state but the journal, and a resumed
search proposes what it would have proposed. Results of a higher rung are told as better than all of lower ones, except
to an optimizer that knows of rungs. One array in [0, 1]^d with mutations of width 0.35 around the default does
better than Nevergrad's own spaces of logs and choices, whose mutations crowd in the middle or on the bounds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError
from luckyfast.search.journal import Trial
from luckyfast.search.space import Space

__all__ = ["DEFAULT_OPTIMIZER", "GP_OPTIMIZER", "Proposer", "lexicographic"]

ONE_PLUS_ONE = "DiscreteOnePlusOne"
GP_OPTIMIZER = "GaussianProcess"
DEFAULT_OPTIMIZER = f"{ONE_PLUS_ONE}+{GP_OPTIMIZER}"
_HINT = f"the default is --optimizer {DEFAULT_OPTIMIZER}"
SIGMA = 0.35
N_TOLD = 8
"""How many of the best an optimizer that keeps one incumbent is told of."""
EVERY_UNIFORM = 10
N_ATTEMPTS = 30
"""Points asked of the optimizer, and as many from everywhere after them."""
RUNG_STEP = 10.0
PENALTY = 1e3
"""Told in place of the loss of a configuration that could not be trained."""


class Proposer:
    """Proposes settings.

    Args:
        space: what is searched.
        optimizer: a name in Nevergrad's registry, or ``GaussianProcess``; several, joined by +, take turns.
        seed: of all proposals.
        cost: what settings cost to train, relative to others; None where all cost the same.

    Raises:
        ModelError: there is no such optimizer, or it cannot be told of results that it did not ask for.
    """

    def __init__(
        self,
        space: Space,
        optimizer: str = DEFAULT_OPTIMIZER,
        seed: int = 0,
        cost: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        self.space, self.optimizers, self.seed, self.cost = space, optimizer.split("+"), seed, cost
        for name in self.optimizers:
            if name in (ONE_PLUS_ONE, GP_OPTIMIZER):
                continue  # known without the import
            if name not in _registry():
                raise ModelError(f"there is no optimizer {name!r} in Nevergrad's registry", hint=_HINT)
            try:
                with _quiet():
                    tried = self._optimizer(name, 0)
                    start = tried.parametrization.spawn_child(new_value=self.space.encode(self.space.start))
                    tried.tell(start, 0.0)
            except Exception as error:  # whatever an optimizer of somebody else's may raise
                why = str(error) or "it does not learn from what others proposed"
                raise ModelError(f"the optimizer {name!r} cannot be used: {why}", hint=_HINT) from error

    def prepare(self) -> None:
        """Import Nevergrad, which takes seconds and 150 MB: when there is something to do meanwhile, and here alone."""
        _registry()

    def propose(
        self,
        number: int,
        trials: Collection[Trial] = (),
        allowed: Callable[[dict[str, Any]], bool] = lambda settings: True,
    ) -> dict[str, Any] | None:
        """Propose new settings.

        Args:
            number: of the proposal; 0 is the default configuration.
            trials: those so far, in the order in which they were proposed.
            allowed: whether settings may be tried.

        Returns:
            The settings, or None where nothing new that is allowed could be found.
        """
        known = {_key(trial.settings) for trial in trials}
        with _quiet():
            for point in self._points(number, trials):
                settings = self.space.decode(point)
                if _key(settings) not in known and allowed(settings):
                    return settings
        return None

    def _points(self, number: int, trials: Collection[Trial]) -> Iterator[NDArray[np.float64]]:
        """Points to be tried in turn, each float64 [d] in [0, 1]."""
        rng, n_dimensions = np.random.default_rng((self.seed, number)), len(self.space.dimensions)
        if number == 0 or not n_dimensions:
            yield self.space.encode(self.space.start)
        if not n_dimensions:
            return
        name = self.optimizers[number % len(self.optimizers)]
        if name == GP_OPTIMIZER or number % EVERY_UNIFORM != EVERY_UNIFORM - 1:
            optimizer = self._optimizer(name, int(rng.integers(2**32)))
            self._tell(name, optimizer, trials)
            for _ in range(N_ATTEMPTS):
                yield optimizer.ask().value
        # The last attempts look everywhere: around the best there may be nothing new, or nothing that fits.
        for _ in range(N_ATTEMPTS):
            yield rng.uniform(size=n_dimensions)

    def _tell(self, name: str, optimizer: Any, trials: Collection[Trial]) -> None:
        if name == GP_OPTIMIZER:
            if self.cost is not None:
                optimizer.log_cost = self._log_cost
            for trial in trials:
                point = self._encode(trial.settings)
                for rung, record in sorted(trial.records.items()):
                    optimizer.tell_rung(point, rung, math.inf if record.loss is None else record.loss)
            return
        told = [(trial, loss) for trial in trials if (loss := lexicographic(trial)) is not None]
        if name == ONE_PLUS_ONE:
            told = sorted(told, key=lambda one: one[1])[:N_TOLD]
        for trial, loss in told:
            optimizer.tell(optimizer.parametrization.spawn_child(new_value=self._encode(trial.settings)), loss)

    def _encode(self, settings: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.clip(self.space.encode(settings), 0.0, 1.0)

    def _log_cost(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        assert self.cost is not None
        return np.log([self.cost(self.space.decode(point)) for point in points])

    def _optimizer(self, name: str, seed: int) -> Any:
        """An optimizer that has proposed the default; not one that drives the search itself and would wait for ever."""
        import nevergrad as ng
        from nevergrad.optimization.recaster import RecastOptimizer

        kind = _registry()[name]
        # For one worker NGOpt and its like choose among those; for two they do not.
        for n_workers in (1,) if kind.no_parallelization else (1, 2):
            array = ng.p.Array(init=self.space.encode(self.space.start))
            array.set_mutation(sigma=SIGMA).set_bounds(0.0, 1.0)
            array.random_state.seed(seed)
            optimizer = kind(array, budget=1000, num_workers=n_workers)
            optimizer.ask()
            if not any(isinstance(part, RecastOptimizer) for part in _parts(optimizer)):
                return optimizer
        raise ModelError("it does not learn from what others proposed")


def lexicographic(trial: Trial) -> float | None:
    """The loss of a trial, where any higher rung comes before all lower ones; None while it is open."""
    if trial.loss is not None:
        return trial.loss - RUNG_STEP * trial.rung
    return PENALTY if trial.records else None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimizers would rather have wider bounds
        yield


def _parts(optimizer: Any) -> Iterator[Any]:
    """An optimizer, and those that it is made of."""
    from nevergrad.optimization.base import Optimizer

    yield optimizer
    for value in vars(optimizer).values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Optimizer):
                yield from _parts(part)


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _registry() -> Any:
    import nevergrad as ng

    from luckyfast.search import gaussian  # noqa: F401 (registers itself)

    return ng.optimizers.registry
