"""Made-up objectives shaped like our own: nine settings, learning curves, costs and memory, for each seed another.

Losses fall as a power of the passes made; more customers help, larger networks need more passes and more data; the best
place of each setting, how much it matters and how settings play together are drawn at random. Easy ones have their
optimum in the middle half of each range, hard ones anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["DEFAULT", "EASY", "HARD", "MAX_EPOCHS", "SETTINGS", "Landscape", "decode"]

MAX_EPOCHS = 27
EASY, HARD = tuple(range(12, 24)), tuple(range(112, 124))
SETTINGS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "lr": ("log", (1e-4, 1e-1)),
    "units": ("log", (16, 512)),
    "layers": ("linear", (1, 3)),
    "drop": ("linear", (0.0, 0.6)),
    "emb": ("log", (4, 128)),
    "batch": ("ordered", (64, 128, 256, 512, 1024, 2048)),
    "window": ("log", (4, 64)),
    "opt": ("choice", ("adam", "rmsprop", "sgd")),
    "wd": ("log", (1e-6, 1e-2)),
}
DEFAULT: dict[str, Any] = {
    "lr": 3e-3,
    "units": 64,
    "layers": 1,
    "drop": 0.2,
    "emb": 16,
    "batch": 256,
    "window": 16,
    "opt": "adam",
    "wd": 1e-4,
}
"""Small and cheap, and not where any landscape has its optimum."""
_N_TOKENS = 2.0e6
_SPEED_UP = 8.0
"""Of the machine, such that a working day holds some twenty random configurations trained to the end."""
_TRIAL_SHARE = 0.2


class Landscape:
    """One objective.

    Args:
        seed: which; from 100 on they are hard.
        noise: standard deviation of a measured loss.
        memory_gb: of the machine; a trial may take a fifth.
        customers_power: a pass over a share of the customers makes the progress of that share to this power. With 1
            it is the number of steps that counts; below, a pass over few counts for more than they are.
    """

    def __init__(
        self, seed: int, noise: float = 0.003, memory_gb: float = 8.0, *, customers_power: float = 0.5
    ) -> None:
        self.seed, self.noise, self.memory_gb, self.customers_power = seed, noise, memory_gb, customers_power
        draw = np.random.RandomState(1000 + seed)
        hard, uniform = seed >= 100, draw.uniform
        names = list(SETTINGS)
        self._best_at = {name: uniform(0.05, 0.95) if hard else uniform(0.25, 0.75) for name in names}
        self._best_at["lr"] = uniform(0.15, 0.85) if hard else uniform(0.3, 0.7)
        self._weight = {name: uniform(0.0, 0.25) for name in names}
        self._weight |= {"lr": uniform(0.3, 0.9), "drop": uniform(0.02, 0.2)}
        self._weight |= {"wd": uniform(0, 0.1), "batch": uniform(0, 0.05)}
        self._need_weight = {"units": uniform(0.05, 0.25), "window": uniform(0.02, 0.2), "emb": uniform(0.01, 0.1)}
        bounds = ((0.1, 0.95), (0.05, 0.95), (0.05, 0.95)) if hard else ((0.2, 0.9), (0.1, 0.9), (0.1, 0.7))
        self._need = {name: uniform(*pair) for name, pair in zip(("units", "window", "emb"), bounds, strict=True)}
        self._with_lr = {"batch": uniform(0, 0.35), "units": uniform(-0.25, 0)}
        self._drop_with_units = uniform(0, 0.5)
        self._opt = np.array([0, uniform(-0.02, 0.04), uniform(0.01, 0.1)])
        self._opt_lr = np.array([0, uniform(-0.1, 0.1), uniform(0.1, 0.3)])
        if hard:
            self._opt = draw.permutation(np.array([0.0, uniform(0.01, 0.06), uniform(0.03, 0.12)]))
        self._base, self._power, self._rate = uniform(0.3, 0.5), uniform(0.6, 1.3), uniform(0.6, 3.0)
        self._few_customers = uniform(0.02, 0.08)
        self._waves = [(uniform(2, 5), uniform(0, 6.28), uniform(0, 0.012)) for _ in range(4)]

    def seconds(self, settings: Mapping[str, Any], epochs: float, customers: float = 1.0) -> float:
        """What that many passes over that share of the customers take."""
        speed = 2.5e10 * settings["batch"] / (settings["batch"] + 192) * min(1, 0.15 + settings["units"] / 256)
        per_token = self._flops(settings) * 6 / speed + 1.5e-6 / (settings["batch"] / 64)
        n_tokens = epochs * _N_TOKENS / _SPEED_UP * customers * (0.3 + 0.7 * settings["window"] / 32)
        return float(n_tokens * per_token)

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """Whether a trial may take so much memory."""
        row = settings["emb"] + settings["layers"] * settings["units"] * 10 + 300
        activations = settings["batch"] * settings["window"] * row * 8
        gigabytes = 0.6 + activations / 1e9 + 16 * self._flops(settings) / 1e9
        gigabytes += _N_TOKENS * settings["window"] * 4 / 1e9 * 0.05
        return bool(gigabytes <= self.memory_gb * _TRIAL_SHARE)

    def loss(
        self,
        settings: Mapping[str, Any],
        epochs: float = MAX_EPOCHS,
        customers: float = 1.0,
        rng: np.random.Generator | None = None,
    ) -> float:
        """Validation loss after some passes over a share of the customers; without `rng`, without noise."""
        u = _encode(settings)
        if self._diverges(settings, u):
            value = 1.05
        else:
            least = self._least(settings, u, customers)
            speed = self._rate * 10 ** (1.2 * (u["lr"] - 0.5)) * customers**self.customers_power * (1.6 - u["batch"])
            speed *= (1.3 - 0.5 * u["units"]) * (0.5 if settings["opt"] == "sgd" else 1.0)
            value = least + (1.0 - least) * (1 + speed * epochs) ** -self._power
        return value + (0.0 if rng is None else self.noise * float(rng.normal()))

    def regret(self, settings: Mapping[str, Any], epochs: float = MAX_EPOCHS, customers: float = 1.0) -> float:
        """How far from the best there is, where 1 is the median of what fits, both trained to the end."""
        best, middle = self._scale
        return (self.loss(settings, epochs, customers) - best) / (middle - best)

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """The best loss that a long search finds, and the median loss."""
        rng = np.random.default_rng(7)
        points = [p for p in (decode(rng.uniform(size=len(SETTINGS))) for _ in range(8000)) if self.fits(p)]
        losses = [self.loss(point) for point in points]
        best = math.inf
        for start in np.argsort(losses)[:12]:
            u, least = np.array([_unit(name, points[start][name]) for name in SETTINGS]), losses[start]
            for _ in range(600):
                changed = rng.uniform(size=len(u)) < rng.choice((0.12, 0.25, 0.5))
                other = np.clip(u + changed * rng.normal(size=len(u)) * rng.choice((0.01, 0.05, 0.2)), 0, 1)
                point = decode(other)
                if self.fits(point) and (loss := self.loss(point)) < least:
                    u, least = other, loss
            best = min(best, least)
        return best, float(np.median(losses))

    def _flops(self, settings: Mapping[str, Any]) -> float:
        H, E = settings["units"], settings["emb"]
        return float(4 * H * (H + E) + (settings["layers"] - 1) * 8 * H * H + H * 300)

    def _diverges(self, settings: Mapping[str, Any], u: Mapping[str, float]) -> bool:
        heat = u["lr"] + 0.3 * u["units"] - 0.3 * u["batch"] - 0.2 * (settings["opt"] == "sgd")
        return bool(heat > 1.02)

    def _least(self, settings: Mapping[str, Any], u: Mapping[str, float], customers: float) -> float:
        """Loss after endless passes."""
        opt = SETTINGS["opt"][1].index(settings["opt"])
        best_lr = self._best_at["lr"] + self._with_lr["batch"] * (u["batch"] - 0.5)
        best_lr += self._with_lr["units"] * (u["units"] - 0.5) + self._opt_lr[opt]
        best_drop = self._best_at["drop"] + self._drop_with_units * (u["units"] - 0.5)
        off = u["lr"] - best_lr
        loss = (
            self._weight["lr"] * 2 * off**2 / (1 + 2 * abs(off)) + self._weight["drop"] * (u["drop"] - best_drop) ** 2
        )
        loss += sum(self._weight[name] * (u[name] - self._best_at[name]) ** 2 for name in ("wd", "batch"))
        size = 0.8 * u["units"] + 0.2 * u["layers"]
        for name, value, slope in (("units", size, 0.0), ("window", u["window"], 0.02), ("emb", u["emb"], 0.03)):
            weight, short = self._need_weight[name], self._need[name] - value
            loss += weight * max(0.0, short) ** 1.5 + slope * max(0.0, -short)
        loss += self._need_weight["units"] * 0.3 * max(0.0, size - self._need["units"] - 0.1) + self._opt[opt]
        for (frequency, phase, height), name in zip(self._waves, ("lr", "units", "drop", "window"), strict=True):
            loss += height * (1 + math.sin(frequency * 6.28 * u[name] + phase))
        loss += self._few_customers * (customers**-0.35 - 1) * (0.5 + size - 0.3 * u["drop"])
        return float(self._base + loss)


def decode(point: Any) -> dict[str, Any]:
    """Settings from a point in [0, 1]^9."""
    settings: dict[str, Any] = {}
    for (name, (kind, values)), u in zip(SETTINGS.items(), point, strict=True):
        if kind in ("ordered", "choice"):
            settings[name] = values[min(int(u * len(values)), len(values) - 1)]
        elif kind == "log":
            value = values[0] * (values[1] / values[0]) ** float(u)
            settings[name] = round(value) if isinstance(values[0], int) else value
        else:
            low, high = values
            settings[name] = (
                min(low + int(u * (high - low + 1)), high) if isinstance(low, int) else low + u * (high - low)
            )
    return settings


def _encode(settings: Mapping[str, Any]) -> dict[str, float]:
    return {name: _unit(name, settings[name]) for name in SETTINGS}


def _unit(name: str, value: Any) -> float:
    kind, values = SETTINGS[name]
    if kind in ("ordered", "choice"):
        return values.index(value) / (len(values) - 1)
    if kind == "log":
        return math.log(value / values[0]) / math.log(values[1] / values[0])
    return float((value - values[0]) / (values[1] - values[0]))
