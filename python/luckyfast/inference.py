"""Run an exported model: pack raw histories into arrays, and ask ONNX Runtime for chances."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from luckyfast.config import EXPORT_FORMAT, EXPORT_FORMAT_VERSION
from luckyfast.errors import ModelError

__all__ = [
    "MAX_PAIRS",
    "MODEL_FORMAT",
    "MODEL_FORMAT_VERSION",
    "Packed",
    "Predictor",
    "Sides",
    "ids_by_name",
    "next_moments",
    "pack",
    "read_config",
    "read_record",
]

MODEL_FORMAT = "luckyfast-model"
MODEL_FORMAT_VERSION = 2
MAX_PAIRS = 2**16
OTHER = "<other>"
"""What ingest calls the rarer categories of a side column, or the rarer actions, together."""


class Sides(NamedTuple):
    """The side columns of visits, [..., number of such features].

    ``sums``: float64, of the rows of a visit that have a number; ``rows``: int64, how many have one, 0 is no value;
    ``categories``: int64, ids in the order of the model's names, 0 is no value.
    """

    sums: NDArray[np.float64]
    rows: NDArray[np.int64]
    categories: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packed:
    """Some histories as an exported model reads them: B customers, padded to N visits and P actions.

    Args:
        times: int64 [B, N], in the model's time unit, ascending.
        n_visits: int64 [B].
        actions: int64 [B, P], ids of the model's vocabulary, distinct within a visit, none of them 0.
        visits: int64 [B, P], visit of each action; -1 is padding.
        moment: int64 [B], moments of prediction.
        sides: [B, N, ...], for a model with side columns; None stands for no value anywhere.
    """

    times: NDArray[np.int64]
    n_visits: NDArray[np.int64]
    actions: NDArray[np.int64]
    visits: NDArray[np.int64]
    moment: NDArray[np.int64]
    sides: Sides | None = None


def pack(
    visit_start: NDArray[np.int64],
    visit_stop: NDArray[np.int64],
    visit_time: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int64],
    moment: NDArray[np.int64],
    sides: Sides | None = None,
) -> Packed:
    """Pack histories that lie one after another into padded arrays; actions of id 0 are left out, their visits stay.

    Args:
        visit_start: int64 [B], first visit of each customer.
        visit_stop: int64 [B], end of what is known of each customer.
        visit_time: int64 [n_visits], ascending within a customer.
        action_start: int32 [n_visits + 1], first action of each visit.
        actions: int64 [n_pairs], ids of the model's vocabulary.
        moment: int64 [B], not before the customer's last known visit.
        sides: [n_visits, ...], if there are any.

    Returns:
        The packed histories.

    Example:
        >>> times, action_start, actions = np.array([10, 20]), np.array([0, 2, 3]), np.array([5, 0, 7])
        >>> packed = pack(np.array([0]), np.array([2]), times, action_start, actions, np.array([30]))
        >>> packed.actions.tolist(), packed.visits.tolist()
        ([[5, 7]], [[0, 1]])
    """
    n_visits = (visit_stop - visit_start).astype(np.int64)
    place, rows = _places(n_visits)
    times = np.zeros((len(n_visits), max(int(n_visits.max(initial=0)), 1)), np.int64)
    times[rows, place] = visit_time[visit_start[rows] + place]
    if sides is not None:
        columns: list[Any] = [np.zeros((*times.shape, column.shape[1]), column.dtype) for column in sides]
        for into, column in zip(columns, sides, strict=True):
            into[rows, place] = column[visit_start[rows] + place]
        sides = Sides(*columns)

    pair_start = action_start[visit_start].astype(np.int64)
    n_pairs = action_start[visit_stop] - pair_start
    offset, owner = _places(n_pairs)
    pairs = pair_start[owner] + offset
    visit = np.searchsorted(action_start, pairs, side="right") - 1 - visit_start[owner]
    ids = actions[pairs]
    owner, visit, ids = owner[ids > 0], visit[ids > 0], ids[ids > 0]
    n_kept = np.bincount(owner, minlength=len(n_visits))
    place, _ = _places(n_kept)
    shape = (len(n_visits), max(int(n_kept.max(initial=0)), 1))
    packed_actions, visits = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    packed_actions[owner, place], visits[owner, place] = ids, visit
    return Packed(times, n_visits, packed_actions, visits, moment.astype(np.int64), sides)


def next_moments(visit_time: NDArray[np.int64], visit_start: NDArray[Any], time_scale: float) -> NDArray[np.int64]:
    """When each customer comes next at the usual pace: the last visit plus the median of the gaps before it.

    Args:
        visit_time: int64 [n_visits], ascending within a customer.
        visit_start: int [B + 1]; customer ``b`` owns visits ``visit_start[b]:visit_start[b + 1]``, at least one.
        time_scale: mean gap of all customers, for those who have no gap; in the unit of the times, as all of it is.

    Returns:
        int64 [B].

    Example:
        >>> next_moments(np.array([10, 12, 18, 5]), np.array([0, 3, 4]), 7.0).tolist()
        [22, 12]
    """
    start = visit_start.astype(np.int64)
    n_gaps = np.diff(start) - 1
    owners = np.repeat(np.arange(len(n_gaps)), n_gaps + 1)
    later = np.flatnonzero(np.arange(len(visit_time)) > start[owners])
    gaps = visit_time[later] - visit_time[later - 1]
    gaps = gaps[np.lexsort((gaps, owners[later]))]
    pace = np.full(len(n_gaps), int(time_scale))
    some, first = n_gaps > 0, np.cumsum(n_gaps) - n_gaps
    low, high = (gaps[first[some] + middle] for middle in ((n_gaps[some] - 1) // 2, n_gaps[some] // 2))
    pace[some] = low + (high - low) // 2
    moments: NDArray[np.int64] = visit_time[start[1:] - 1] + np.maximum(pace, 1)
    return moments


def ids_by_name(names: Sequence[str]) -> Callable[[str], int]:
    """How to find the id of an action or a category by its name: of one that has none that of the rarer ones together,
    or 0.

    Args:
        names: of the ids from 1 on.

    Example:
        >>> id_of = ids_by_name(["<other>", "north"])
        >>> id_of("north"), id_of("south"), ids_by_name(["north"])("south")
        (2, 1, 0)
    """
    ids = {name: i for i, name in enumerate(names, start=1)}
    return lambda name: ids.get(name, ids.get(OTHER, 0))


def _places(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For rows of some sizes laid one after another: place within the row, and row, of every element."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes), rows


class Predictor:
    """An exported model in ONNX Runtime.

    Args:
        path: the ``model.onnx`` of a model folder.
        threads: cores that ONNX Runtime may use.

    Raises:
        ModelError: the file is missing, damaged, or of another format.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        file = Path(path)
        if not file.is_file():
            raise ModelError(f"no exported model at {file}", hint="make one with: luckyfast fit DATASET")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Shapes differ from batch to batch: remembered allocation patterns would only pile up.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime has no common root of its errors
            raise ModelError(f"{file} is damaged: {error}", hint="run luckyfast fit again") from error
        found = (self._metadata.get("format"), self._metadata.get("format_version"))
        if found != (EXPORT_FORMAT, str(EXPORT_FORMAT_VERSION)):
            raise ModelError(
                f"{file} has format {' '.join(map(str, found))}, this luckyfast reads {EXPORT_FORMAT} "
                f"{EXPORT_FORMAT_VERSION}",
                hint="run luckyfast fit again",
            )
        self.vocabulary: list[str] = json.loads(self._metadata["vocabulary"])
        self.time_kind = self._metadata["time_kind"]
        self.time_scale = float(self._metadata["time_scale"])
        self.features: list[dict[str, Any]] = json.loads(self._metadata.get("features", "[]"))
        """Name, kind and categories of each side column that the model reads."""
        trend = json.loads(self._metadata.get("trend", "{}"))
        self.popularity = np.array(trend["popularity"]) if trend else None
        """What trends are measured against, float64 [n_actions]; None for a model that follows none."""

    @property
    def n_actions(self) -> int:
        """Size of the vocabulary, the unknown action included."""
        return len(self.vocabulary)

    def run(
        self, packed: Packed, trend: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Predict.

        Args:
            packed: histories of B customers.
            trend: float32 [n_half_lives, n_actions], for a model that follows trends; those at the end of the log that
                it was fitted on if None.

        Returns:
            ``in_visit`` float32 [B, n_actions], the calibrated chance that an action is in the next visit, and
            ``next_action`` float32 [B, n_actions], the distribution of the next single action. Column 0 is the unknown
            action.
        """
        feed: dict[str, Any] = {
            "times": packed.times,
            "n_visits": packed.n_visits,
            "actions": packed.actions,
            "visits": packed.visits,
            "moment": packed.moment,
        }
        if self.features:
            sides = self._no_sides(packed.times.shape) if packed.sides is None else packed.sides
            feed |= {name: column for name, column in sides._asdict().items() if column.shape[-1]}
        if trend is not None:
            feed["trend"] = trend
        in_visit, next_action = self._session.run(["in_visit", "next_action"], feed)
        return in_visit, next_action

    def _no_sides(self, shape: tuple[int, ...]) -> Sides:
        n = sum(feature["kind"] == "number" for feature in self.features)
        numbers, categories = (*shape, n), (*shape, len(self.features) - n)
        return Sides(np.zeros(numbers), np.zeros(numbers, np.int64), np.zeros(categories, np.int64))


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder.

    Raises:
        ModelError: the folder is missing, damaged, or of another format version.
    """
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}", hint="make one with: luckyfast fit DATASET")
    config = read_record(folder / "config.json")
    version = config.get("format_version") if config.get("format") == MODEL_FORMAT else None
    if version != MODEL_FORMAT_VERSION:
        raise ModelError(
            f"{folder} has model format {version}, this luckyfast reads format {MODEL_FORMAT_VERSION}",
            hint="run luckyfast fit again",
        )
    return config


def read_record(file: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{file.parent} is no complete model folder: it has no {file.name}", hint="run luckyfast fit again"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is damaged: {error}", hint="run luckyfast fit again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is damaged: it holds no record", hint="run luckyfast fit again")
    return content
