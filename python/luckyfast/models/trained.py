"""A trained model: weights, and everything needed to score visits with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from luckyfast.batches import Batch, Constants, Moments, cut_segment
from luckyfast.dataset import Dataset, Histories
from luckyfast.errors import ModelError
from luckyfast.features import FeatureScale
from luckyfast.models import ModelConfig, build
from luckyfast.models.cores import n_cores
from luckyfast.models.network import Network
from luckyfast.trend import Trend, measure_trend
from luckyfast.windows import runs_of_customers

__all__ = ["TrainedModel"]

WEIGHTS = "weights.npz"
_SCALARS = ("half_lives", "visit_spans", "time_scale", "clock", "strength", "n_visits")
_BLOCK_SCORES = 1 << 22
_GROUP_VISITS = 2048


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model, a :class:`~luckyfast.windows.Scorer`.

    Args:
        config: its settings.
        constants: what was measured in the training time.
        state: weights by name, float32.
        blind_state: the weights before validation was trained on; the same where it never was.
        interrupted: whether Ctrl-C ended the training early.
        refit_passes: passes over everything before the test that followed the training; fewer than
            ``config.refit_epochs`` where the time did not suffice.

    Example:
        >>> model = train(dataset, split_by_time(dataset), ModelConfig(arch="mlp", epochs=1, hidden=8))
        >>> histories = next(dataset.batches())
        >>> visits, scores = next(model.score(histories, np.array([1, 2])))
        >>> scores.shape == (2, dataset.n_actions)
        True
    """

    config: ModelConfig
    constants: Constants
    state: dict[str, NDArray[np.float32]]
    blind_state: dict[str, NDArray[np.float32]]
    interrupted: bool = False
    refit_passes: float = 0.0

    @property
    def name(self) -> str:
        """Architecture, and whether habits are left out."""
        return self.config.arch + ("" if self.config.habit else " (no habit)")

    @property
    def blind(self) -> TrainedModel:
        """The model as it was before it saw validation: what to calibrate with."""
        return replace(self, state=self.blind_state)

    def following(self, dataset: Dataset) -> TrainedModel:
        """The same model, with the trends of another dataset of the same vocabulary, such as the log as it is today."""
        trend = None if self.constants.trend is None else measure_trend(dataset, self.constants.popularity)
        return self if trend is None else replace(self, constants=replace(self.constants, trend=trend))

    def network(self) -> Network:
        """Build the network with these weights, ready to score."""
        with torch.random.fork_rng(devices=[]):
            network = build(self.config, self.constants)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in self.state.items()})
        return network.eval()

    def score(
        self, histories: Histories, targets: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Score every action at the given visits, blind to them; see :class:`~luckyfast.windows.Scorer`.

        Args:
            histories: one batch of histories.
            targets: int64 [n], ascending visit indices.

        Yields:
            Blocks ``(targets int64 [m], scores float32 [m, n_actions])`` in order.
        """
        yield from score_visits(self._scoring, self.config, self.constants, histories, targets)

    @cached_property
    def _scoring(self) -> Network:
        return self.network()

    def save(self, folder: Path) -> dict[str, Any]:
        """Write ``weights.npz`` into a folder.

        Returns:
            The JSON-able rest, which :meth:`load` needs.
        """
        arrays: dict[str, Any] = {f"network.{name}": array for name, array in self.state.items()}
        if trend := self.constants.trend:
            arrays |= {"trend": trend.values, "trend_starts": trend.starts, "trend_end": trend.end}
        np.savez(folder / WEIGHTS, popularity=self.constants.popularity, known=self.constants.known, **arrays)
        scalars = {name: getattr(self.constants, name) for name in _SCALARS}
        scalars["features"] = [scale.to_dict() for scale in self.constants.features]
        return {"model": self.config.to_dict(), "constants": scalars}

    @classmethod
    def load(cls, folder: Path, settings: dict[str, Any]) -> TrainedModel:
        """Read what :meth:`save` wrote.

        Args:
            folder: where ``weights.npz`` is.
            settings: what :meth:`save` returned; other keys are ignored.

        Raises:
            ModelError: the weights are missing or damaged.
        """
        try:
            with (folder / WEIGHTS).open("rb") as content, np.load(content) as file:
                arrays = {name: file[name] for name in file.files}
            scalars = {name: settings["constants"][name] for name in _SCALARS}
            constants = Constants(
                popularity=arrays.pop("popularity"),
                known=arrays.pop("known"),
                trend=_trend_of(arrays),
                features=tuple(FeatureScale.from_dict(own) for own in settings["constants"].get("features", [])),
                **scalars | {"half_lives": tuple(scalars["half_lives"]), "visit_spans": tuple(scalars["visit_spans"])},
            )
            state = {name.removeprefix("network."): array for name, array in arrays.items()}
            model = cls(ModelConfig.from_dict(settings["model"]), constants, state, state)
            _ = model._scoring
        except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, BadZipFile) as error:
            raise ModelError(f"{folder / WEIGHTS} is damaged: {error}", hint="fit the model again") from error
        return model


def _trend_of(arrays: dict[str, NDArray[Any]]) -> Trend | None:
    if "trend" not in arrays:
        return None
    return Trend(arrays.pop("trend_starts"), arrays.pop("trend"), int(arrays.pop("trend_end")))


def score_visits(
    network: Network, config: ModelConfig, constants: Constants, histories: Histories, targets: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Score visits with a network in evaluation mode; blocks come in the order of the targets.

    Of a customer with more than ``MAX_VISITS`` visits, each target sees at least so many before it, and not all.
    """
    for customers, start, end, size in runs_of_customers(histories):
        own = targets[slice(*np.searchsorted(targets, (start, end)).tolist())]
        while len(own):
            n = int(np.searchsorted(own, own[0] + size))
            begin = max(int(own[0]) - size, start)
            part = histories.part(customers, slice(begin, min(int(own[0]) + size, end)))
            for visits, scores in _score(network, config, constants, part, own[:n] - begin):
                yield visits + begin, scores
            own = own[n:]


def _score(
    network: Network, config: ModelConfig, constants: Constants, histories: Histories, targets: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Score visits of customers whose histories are run whole."""
    moments = Moments.of(histories, constants)
    wanted = np.zeros(histories.n_visits, np.bool_)
    wanted[targets] = True
    customers, begins = np.unique(np.searchsorted(histories.visit_start, targets, side="right") - 1, return_index=True)
    ends = np.append(begins[1:], len(targets))
    first = histories.visit_start[customers].astype(np.int64)
    last = targets[ends - 1] + 1
    # A group of customers runs side by side: it is full where its scores or its first segment are.
    filled = np.cumsum(
        np.maximum(
            np.minimum(last - first, config.segment_visits) / _GROUP_VISITS,
            (ends - begins) * (constants.n_actions / _BLOCK_SCORES),
        )
    )
    group = 0
    while group < len(customers):
        before = filled[group - 1] if group else 0.0
        stop = max(int(np.searchsorted(filled, before + 1, side="right")), group + 1)
        order = group + np.argsort((first - last)[group:stop], kind="stable")
        batch = Batch(histories, moments, first[order], last[order])
        held: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        for block in _run(network, config, constants, batch, wanted):
            held.append(block)
            # Of one customer they are in order, and may be more than can be held.
            if stop - group == 1 and sum(scores.size for _, scores in held) >= _BLOCK_SCORES:
                yield _together(held)
                held = []
        if held:
            yield _together(held)
        group = stop


def _together(
    blocks: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Blocks as one, in the order of the visits."""
    visits, scores = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    ascending = np.argsort(visits)
    return visits[ascending], scores[ascending]


def _run(
    network: Network, config: ModelConfig, constants: Constants, batch: Batch, wanted: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    state = network.start(len(batch.first))
    for offset in range(0, int((batch.stop - batch.first).max()), config.segment_visits):
        segment = cut_segment(
            batch,
            constants,
            offset,
            config.segment_visits,
            wanted,
            habit=config.habit,
            n_threads=n_cores(),
        )
        with torch.inference_mode():
            logits, state = network(segment, tuple(part[: segment.shape[1]] for part in state))
        if len(segment.visits):
            yield segment.visits, logits.cpu().numpy()
