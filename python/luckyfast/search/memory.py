"""How much memory a configuration will take, learnt from those that ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luckyfast.models import block_moments
from luckyfast.trend import HALF_LIVES

__all__ = ["BASE_BYTES", "MemoryModel", "training_floats"]

BASE_BYTES = 330 << 20
"""A process with torch, Numba and Arrow imported and kernels loaded."""
N_HABIT_PAIRS = 80
"""Distinct actions in a history, a first guess."""
N_CALENDAR = 15
MARGIN = 1.15


def training_floats(settings: Mapping[str, Any], n_actions: int, n_categories: int = 0) -> float:
    """Numbers that a training step holds at once: weights and their optimiser's, activations, logits, habit features.

    Args:
        settings: of the model.
        n_actions: size of the vocabulary.
        n_categories: of all side columns together.
    """
    H, E, n_above = settings["hidden"], settings["embedding"], settings["layers"] - 1
    moments = settings["batch_visits"] + settings.get("segment_visits", 0)
    n_in = {"mlp": E * settings["window"], "lstm": 4 * H}.get(settings["arch"], E)
    features = settings["n_half_lives"] + len(settings["visit_spans"]) + 12
    per_action = (
        2 * E + len(HALF_LIVES) + N_CALENDAR + features * settings["habit"] + 4 * H * (settings["arch"] == "lstm")
    )
    weights = n_actions * per_action + 4 * H * (H + n_in) + H * E
    weights += n_above * H * H * (1 if settings["arch"] == "mlp" else 8)
    weights += n_categories * settings.get("features", True) * (4 * H if settings["arch"] == "lstm" else E)
    activations = moments * (14 * H * (1 + n_above) + 4 * n_in + 4 * E)
    activations += 2 * n_actions * min(moments, block_moments(n_actions))
    habits = 0.0
    if settings["habit"]:
        habits = moments * N_HABIT_PAIRS * 6 * features + 2 * settings["habit_hidden"] * max(n_actions, 2048)
    # Weights, gradients and those of a step, two moments, and the averaged, the best and the saved copies.
    return float(8.0 * weights + activations + habits)


class MemoryModel:
    """Peak resident size of a trial: what a process rests at, and a multiple of what its training step holds.

    The multiple is learnt: it begins at a cautious value and follows the trials, the largest ratio first, so that one
    that outgrew its share keeps others like it from being started.

    Args:
        n_actions: size of the vocabulary.
        base_bytes: what a process rests at.
        n_categories: of all side columns together.
    """

    def __init__(self, n_actions: int, base_bytes: int = BASE_BYTES, n_categories: int = 0) -> None:
        self.n_actions, self.n_categories, self.base_bytes = n_actions, n_categories, base_bytes
        self._ratios: list[float] = []

    def estimate(self, settings: Mapping[str, Any]) -> int:
        """Bytes that a trial will reach, with a margin."""
        ratio = max(self._ratios[-20:], default=2.0)
        return int(self.base_bytes + MARGIN * ratio * 4 * training_floats(settings, self.n_actions, self.n_categories))

    def learn(self, settings: Mapping[str, Any], peak_bytes: int, *, over: bool = False) -> None:
        """Take in what a trial reached; where it was stopped for it, it wanted more than that."""
        ratio = (peak_bytes - self.base_bytes) / (4 * training_floats(settings, self.n_actions, self.n_categories))
        self._ratios.append(max(ratio, 0.1) * (1.5 if over else 1.0))
