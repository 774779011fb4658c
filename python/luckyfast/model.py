"""A fitted model, opened from its folder: the thin end of everything."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from luckyfast.errors import ModelError
from luckyfast.inference import Predictor, Sides, ids_by_name, next_moments, pack, read_config, read_record
from luckyfast.moments import Moment, parse_moment
from luckyfast.offers import offer_order

if TYPE_CHECKING:
    from luckyfast.evaluation import Result

__all__ = ["Model", "load"]

Visit = tuple[Moment, str | Iterable[str]]
Features = Mapping[str, Any]


def load(path: str | Path, *, threads: int = 1) -> Model:
    """Open a model folder.

    Args:
        path: folder that ``luckyfast fit`` wrote.
        threads: cores that a prediction may use.

    Returns:
        The model; its network is read on the first prediction.

    Raises:
        ModelError: the folder is missing, damaged, or of another format version.

    Example:
        >>> model = luckyfast.load(model_folder)
        >>> len(model.actions) > 1
        True
    """
    folder = Path(path)
    return Model(folder, read_config(folder), threads=threads)


class Model:
    """A fitted model: calibrated chances of what a customer does next.

    Predicting needs ONNX Runtime and NumPy alone; neither PyTorch nor Numba is loaded.

    Args:
        path: its folder.
        config: its parsed ``config.json``.
        threads: cores that a prediction may use.

    Example:
        >>> model = luckyfast.load(model_folder)
        >>> first, second = model.actions[:2]
        >>> chances = model.predict_proba([("2017-05-01", [first]), ("2017-05-08", [first, second])], at="2017-05-15")
        >>> chances.shape == (len(model.actions),)
        True
    """

    def __init__(self, path: Path, config: dict[str, Any], *, threads: int = 1) -> None:
        self.path = path
        self.config = config
        self._threads = threads
        self._trend: NDArray[np.float32] | None = None

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, arch={self.config.get('arch')!r})"

    @property
    def actions(self) -> list[str]:
        """Names of the actions that can be predicted, in the order of every vector of chances."""
        return self._predictor.vocabulary[1:]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Measured figures: ``{"systems": [...]}``, the model first, then every baseline."""
        return read_record(self.path / "metrics.json")

    @property
    def features(self) -> dict[str, str]:
        """The side columns that the model reads: name to kind, ``number`` or ``category``."""
        return {feature["name"]: feature["kind"] for feature in self._predictor.features}

    def predict_proba(
        self, history: Sequence[Visit], at: Moment | None = None, *, features: Sequence[Features] | None = None
    ) -> NDArray[np.float32]:
        """Predict the next visit of one customer.

        Args:
            history: visits as ``(time, actions)``. A time is a datetime, ISO 8601 text, or a whole number (µs since the
                epoch, or an order number where the log had no clock); ``actions`` are names (one name alone is fine,
                repeats count once). The order of visits does not matter. Visits at the same time stay apart. An empty
                history gives the chances of a customer who was never seen.
            at: the moment of prediction; visits at or after it are not looked at, and what all customers take these
                days is what :meth:`following` knows, whenever it is. None takes the customer's usual pace:
                the last visit plus the median of the gaps, or the mean gap of all customers where there is no gap.
            features: for each visit of the history its side columns by name, where the model has :attr:`features`: a
                number or a category, or a list of them, one per row of the visit; what is not there, None, or NaN is no
                value, and so is a category that the model does not know.

        Returns:
            float32 [n_actions], the calibrated chance that each of :attr:`actions` is in the next visit. These are not
            exclusive and do not add up to 1; to rank actions use :meth:`top`, whose order is another.

        Raises:
            InputError: a time cannot be read.
            ModelError: the history has another form, or is empty and no moment is given.

        Warns:
            UserWarning: some action names are not in the vocabulary; where that holds ``<other>``, the rarer actions
                together, they are taken as that, and else left out; their visits stay.

        Example:
            >>> chances = model.predict_proba([("2017-05-01T10:00", ["MILK"])], at="2017-05-08")
            >>> bool((chances >= 0).all() and (chances <= 1).all())
            True
        """
        return self._predict(history, at, features)[0]

    def top(
        self,
        history: Sequence[Visit],
        k: int = 5,
        at: Moment | None = None,
        *,
        features: Sequence[Features] | None = None,
    ) -> list[tuple[str, float]]:
        """Name what to offer to one customer.

        Args:
            history: as in :meth:`predict_proba`.
            k: how many.
            at, features: as in :meth:`predict_proba`.

        Returns:
            Up to ``k`` pairs of action and chance of being in the next visit: the action with the highest chance, then
            the most probable next actions, see :func:`luckyfast.offers.offer_order`.

        Raises:
            InputError: a time cannot be read.
            ModelError: the history has another form, or ``k`` is not positive.

        Example:
            >>> len(model.top([("2017-05-01", "MILK")], k=3))
            3
        """
        if k < 1:
            raise ModelError(f"k must be positive, not {k}", hint="ask for at least one action")
        chances, next_action = self._predict(history, at, features)
        best = np.argsort(-offer_order(next_action[None], chances[None])[0], kind="stable")[:k]
        names = self.actions
        return [(names[index], float(chances[index])) for index in best]

    def following(self, dataset: str | Path, at: Moment | None = None) -> Model:
        """The same model, knowing what all customers of a log take these days.

        Demand moves faster than models are fitted: the trends of yesterday's log need no training. As it is, a model
        knows those at the end of the log that it was fitted on.

        Args:
            dataset: folder that ``luckyfast ingest`` wrote, such as the log as it is today (``--append`` adds to it);
                actions are matched by name.
            at: what is known on the morning of this day; at the end of the log if None.

        Returns:
            The model, for predictions of that time; one that follows no trends, since it was fitted where times of
            different customers do not compare, stays as it is.

        Raises:
            DatasetError: the dataset cannot be read, has no visits, or times of another kind.
            InputError: ``at`` is no moment.
            ModelError: the model knows none of the actions.

        Example:
            >>> today = model.following(dataset_path)
            >>> len(today.top([("2017-05-01", "MILK")], k=3))
            3
        """
        from luckyfast.dataset import Dataset
        from luckyfast.prediction import trends_at

        data = Dataset.open(dataset)
        other = Model(self.path, self.config, threads=self._threads)
        other._predictor = self._predictor
        if self._predictor.popularity is not None:
            other._trend = trends_at(data, self._predictor, self.config, at)
        return other

    def evaluate(self, dataset: str | Path | None = None) -> Result:
        """Measure the model again on the test visits of a dataset (this loads PyTorch).

        Args:
            dataset: folder with the same vocabulary as the one the model was fitted on; that one if None.

        Returns:
            Figures with intervals; see :class:`luckyfast.evaluation.Result`.

        Raises:
            DatasetError: the dataset cannot be read.
            ModelError: the dataset has another vocabulary.

        Example:
            >>> 0 <= model.evaluate(dataset_path).figures["hit@1"].value <= 1
            True
        """
        from luckyfast.calibration import Calibration
        from luckyfast.dataset import Dataset
        from luckyfast.evaluation import evaluate
        from luckyfast.features import check_features
        from luckyfast.models.trained import TrainedModel
        from luckyfast.windows import Split

        data = Dataset.open(self.config["dataset"]["path"] if dataset is None else dataset)
        if data.vocabulary != self._predictor.vocabulary:
            raise ModelError(
                f"{data.path} has another vocabulary than the model",
                hint="give the dataset that the model was fitted on",
            )
        split = {name: int(self.config["split"][name]) for name in ("valid_start", "test_start", "min_history")}
        trained = TrainedModel.load(self.path, self.config)
        check_features(data, trained.constants.features)
        return evaluate(
            trained.following(data),
            data,
            Split(**split),
            Calibration.from_dict(self.config["calibration"]),
            offers=True,
        )

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.path / "model.onnx", threads=self._threads)

    @cached_property
    def _id_of(self) -> Callable[[str], int]:
        return ids_by_name(self.actions)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.actions)

    def _predict(
        self, history: Sequence[Visit], at: Moment | None, features: Sequence[Features] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Chances and next-action distribution of the known actions."""
        kind = self._predictor.time_kind
        if features is not None and len(features) != len(history):
            raise ModelError(
                f"there are features of {len(features)} visits, and {len(history)} visits",
                hint="give one mapping per visit, an empty one where nothing is known",
            )
        values = [{}] * len(history) if features is None else features
        visits = sorted(
            (
                (parse_moment(time, kind), names, own)
                for (time, names), own in zip(_checked(history), values, strict=True)
            ),
            key=lambda one: one[0],
        )
        if at is not None:
            moment = parse_moment(at, kind)
            visits = [visit for visit in visits if visit[0] < moment]
        elif visits:
            times = np.array([time for time, _, _ in visits], np.int64)
            moment = int(next_moments(times, np.array([0, len(times)]), self._predictor.time_scale)[0])
        else:
            raise ModelError("an empty history has no last visit", hint="say when to predict: at='2017-12-01'")
        ids, unknown = [], set()
        for _, names, _ in visits:
            unknown |= set(names) - self._known
            ids.append(sorted(set(map(self._id_of, names)) - {0}))
        if unknown:
            what = "taken as <other>" if self._id_of(min(unknown)) else "left out"
            warnings.warn(
                f"{len(unknown)} action names are not in the vocabulary and were {what}, such as {min(unknown)!r}",
                stacklevel=3,
            )
        packed = pack(
            np.zeros(1, np.int64),
            np.array([len(visits)]),
            np.array([time for time, _, _ in visits], np.int64),
            np.concatenate(([0], np.cumsum([len(visit) for visit in ids]))).astype(np.int64),
            np.array([action for visit in ids for action in visit], np.int64),
            np.array([moment]),
            self._sides([own for _, _, own in visits]),
        )
        in_visit, next_action = self._predictor.run(packed, self._trend)
        return in_visit[0, 1:], next_action[0, 1:]

    def _sides(self, features: Sequence[Features]) -> Sides | None:
        """The side columns of visits as the predictor reads them."""
        described = self._predictor.features
        if not described:
            return None
        unknown = {name for own in features for name in own} - {feature["name"] for feature in described}
        if unknown:
            names = ", ".join(feature["name"] for feature in described)
            raise ModelError(f"the model has no feature {min(unknown)!r}", hint=f"it reads {names}")
        values = [
            [_numbers(own.get(feature["name"])) for own in features]
            for feature in described
            if feature["kind"] == "number"
        ]
        sums = [[sum(one) for one in column] for column in values]
        ids = [
            [_most_frequent(_listed(own.get(feature["name"])), feature["categories"]) for own in features]
            for feature in described
            if feature["kind"] == "category"
        ]
        n = len(features)
        return Sides(
            np.array(sums, np.float64).reshape(-1, n).T,
            np.array([[len(one) for one in column] for column in values], np.int64).reshape(-1, n).T,
            np.array(ids, np.int64).reshape(-1, n).T,
        )


def _listed(value: Any) -> list[Any]:
    """The values of a visit's rows that have one."""
    return [one for one in np.asarray(value, object).ravel().tolist() if one is not None and one == one]


def _numbers(value: Any) -> list[float]:
    """The same as numbers; what is not finite is no value."""
    try:
        return [number for number in map(float, _listed(value)) if math.isfinite(number)]
    except (TypeError, ValueError) as error:
        raise ModelError(f"a feature that is a number has a value that is none: {error}") from error


def _most_frequent(names: Sequence[Any], categories: Sequence[str]) -> int:
    """Id of the category that comes most often, of equally frequent the first by name; 0 for none."""
    known = [i for i in map(ids_by_name(categories), map(str, names)) if i]
    return min(known, key=lambda i: (-known.count(i), i), default=0)


def _checked(history: Sequence[Visit]) -> list[tuple[Moment, list[str]]]:
    visits = []
    for index, visit in enumerate(history):
        try:
            time, actions = visit
            names = [actions] if isinstance(actions, str) else list(actions)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"visit {index} of the history is no pair of a time and actions: {visit!r}",
                hint='write it like [("2017-05-01", ["MILK", "EGGS"]), ...]',
            ) from error
        if not all(isinstance(name, str) for name in names):
            raise ModelError(f"visit {index} of the history holds something that is no action name", hint="give names")
        visits.append((time, names))
    return visits
