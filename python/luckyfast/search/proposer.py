"""What to try next: Nevergrad proposes, and what it proposes depends on the seed, the number and the results alone.

A fresh optimizer is made for each proposal and told of what was found: there is no state but the journal, and a resumed
search proposes what it would have proposed. One array in [0, 1]^d with mutations of width 0.35 around the default does
better than Nevergrad's own spaces of logs and choices, whose mutations crowd in the middle or on the bounds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError
from luckyfast.search.space import Space

__all__ = ["DEFAULT_OPTIMIZER", "GP_OPTIMIZER", "Proposer"]

DEFAULT_OPTIMIZER = "DiscreteOnePlusOne"
GP_OPTIMIZER = "GaussianProcess"
_HINT = f"the default is --optimizer {DEFAULT_OPTIMIZER}"
SIGMA = 0.35
N_TOLD = 8
"""How many of the best an optimizer that keeps one incumbent is told of."""
EVERY_UNIFORM = 10
N_ATTEMPTS = 60

Told = Sequence[tuple[Mapping[str, Any], float]]


class Proposer:
    """Proposes settings.

    Args:
        space: what is searched.
        optimizer: a name in Nevergrad's registry, or ``GaussianProcess``.
        seed: of all proposals.

    Raises:
        ModelError: there is no such optimizer, or it cannot be told of results that it did not ask for.
    """

    def __init__(self, space: Space, optimizer: str = DEFAULT_OPTIMIZER, seed: int = 0) -> None:
        self.space, self.optimizer, self.seed = space, optimizer, seed
        known = (DEFAULT_OPTIMIZER, GP_OPTIMIZER)  # known without the import
        if optimizer not in known and optimizer not in _registry():
            raise ModelError(
                f"there is no optimizer {optimizer!r} in Nevergrad's registry",
                hint=_HINT,
            )
        if optimizer not in known:
            try:
                with _quiet():
                    self._optimizer(0)
            except Exception as error:  # whatever an optimizer of somebody else's may raise
                raise ModelError(f"the optimizer {optimizer!r} cannot be used: {error}", hint=_HINT) from error

    def prepare(self) -> None:
        """Import Nevergrad, which takes seconds and 150 MB: when there is something to do meanwhile, and here alone."""
        _registry()

    def propose(
        self,
        number: int,
        told: Told,
        seen: Sequence[Mapping[str, Any]] = (),
        allowed: Callable[[dict[str, Any]], bool] = lambda settings: True,
    ) -> dict[str, Any] | None:
        """Propose new settings.

        Args:
            number: of the proposal; 0 is the default configuration.
            told: settings and losses so far, in the order in which they were proposed; less is better.
            seen: settings that were proposed before.
            allowed: whether settings may be tried.

        Returns:
            The settings, or None where nothing new that is allowed could be found.
        """
        known = {_key(settings) for settings in seen}
        for attempt in range(N_ATTEMPTS):
            settings = self.space.decode(self._point(number, attempt, told))
            if _key(settings) not in known and allowed(settings):
                return settings
        return None

    def _point(self, number: int, attempt: int, told: Told) -> NDArray[np.float64]:
        rng = np.random.default_rng((self.seed, number, attempt))
        if (number == 0 and attempt == 0) or not self.space.dimensions:
            return self.space.encode(self.space.start)
        # The last attempts look everywhere: around the best there may be nothing new, or nothing that fits.
        if number % EVERY_UNIFORM == EVERY_UNIFORM - 1 or attempt >= N_ATTEMPTS // 2:
            return rng.uniform(size=len(self.space.dimensions))
        if self.optimizer == DEFAULT_OPTIMIZER and len(told) > N_TOLD:
            told = sorted(told, key=lambda one: one[1])[:N_TOLD]
        return self._ask(int(rng.integers(2**32)), told)

    def _ask(self, seed: int, told: Told) -> NDArray[np.float64]:
        with _quiet():
            optimizer = self._optimizer(seed)
            for settings, loss in told:
                point = np.clip(self.space.encode(settings), 0.0, 1.0)
                optimizer.tell(optimizer.parametrization.spawn_child(new_value=point), loss)
            asked: NDArray[np.float64] = optimizer.ask().value
        return asked

    def _optimizer(self, seed: int) -> Any:
        """An optimizer that has proposed the default; not one that drives the search itself and would wait for ever."""
        import nevergrad as ng
        from nevergrad.optimization.recaster import RecastOptimizer

        kind = _registry()[self.optimizer]
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
