"""The networks that predict the next visit: a feed-forward one over the last visits, and two LSTMs.

Each maps a :class:`~luckyfast.batches.Segment` and a state to one row of logits per moment, and the state after it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from luckyfast.errors import ModelError

if TYPE_CHECKING:
    from luckyfast.batches import Constants
    from luckyfast.models.network import Network
    from luckyfast.models.ops import Ops

__all__ = ["Arch", "Device", "ModelConfig", "Schedule", "block_moments", "build", "refit_share"]

Arch = Literal["mlp", "lstm", "lstm-embed"]
Device = Literal["auto", "cpu", "cuda"]
Schedule = Literal["cosine", "linear", "constant"]

_CHOICES = {"arch": get_args(Arch), "habit": (True, False), "features": (True, False), "schedule": get_args(Schedule)}
_LEAST = 1e-9
_MOST_REFIT = 3 / 8
_BLOCK_LOGITS, _MOST_LOGITS, _FEW_MOMENTS, _MANY_MOMENTS = 1 << 19, 1 << 20, 64, 512
_RANGES = {
    "hidden": (1, math.inf),
    "layers": (1, math.inf),
    "embedding": (1, math.inf),
    "window": (1, math.inf),
    "dropout": (0, 1),
    "learning_rate": (_LEAST, math.inf),
    "weight_decay": (0, math.inf),
    "size_power": (0, math.inf),
    "label_smoothing": (0, 1),
    "recency": (0, math.inf),
    "batch_visits": (1, math.inf),
    "segment_visits": (1, math.inf),
    "epochs": (1, math.inf),
    "refit_epochs": (0, math.inf),
    "ema_decay": (0, 1),
    "n_half_lives": (1, math.inf),
    "visit_spans": (_LEAST, math.inf),
    "habit_strength": (_LEAST, math.inf),
    "habit_hidden": (1, math.inf),
    "seed": (0, math.inf),
}
"""From the first number, and below the second."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what a model is and how it is trained.

    Args:
        arch: ``mlp`` (feed-forward over the last ``window`` visits), ``lstm`` (actions one-hot) or ``lstm-embed``.
        habit: whether to add the habit residual.
        features: whether to read the side columns that the dataset has.
        hidden: units of each recurrent or feed-forward layer.
        layers: recurrent layers on top of each other, or feed-forward ones above the window.
        embedding: size of the action embedding (``mlp`` and ``lstm-embed``) and of the layer before the output.
        window: how many visits ``mlp`` looks back.
        dropout: share of units dropped, in what the network reads, between its layers and before its output.
        learning_rate: peak of the schedule.
        schedule: after a short rise, ``cosine`` or ``linear`` down to zero, or ``constant``.
        weight_decay: of AdamW.
        size_power: a visit of n distinct actions weighs ``n ** -size_power`` per action in the loss.
        label_smoothing: share of each label's weight that goes to all known actions alike.
        recency: how often the weight of a visit in the loss halves over the training time; 0 weighs all alike.
        batch_visits: visits per training step, about.
        segment_visits: visits of a customer per step of truncated back-propagation, at most.
        epochs: passes over the training histories.
        refit_epochs: further passes that include validation, after the best epoch was chosen; 0 for none.
        ema_decay: decay per step of the averaged weights, which are what is kept.
        n_half_lives: half-lives of habits in time.
        visit_spans: half-lives of habits in visits.
        habit_strength: how many visits of an average customer the prior of a habit is worth.
        habit_hidden: units of the small network over one action's habit features.
        seed: of weights, shuffling and dropout.

    Example:
        >>> ModelConfig(arch="mlp").to_dict()["arch"]
        'mlp'
    """

    arch: Arch = "lstm-embed"
    habit: bool = True
    features: bool = True
    hidden: int = 128
    layers: int = 1
    embedding: int = 64
    window: int = 8
    dropout: float = 0.4
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"
    weight_decay: float = 0.02
    size_power: float = 0.5
    label_smoothing: float = 0.0
    recency: float = 2.0
    batch_visits: int = 256
    segment_visits: int = 64
    epochs: int = 5
    refit_epochs: int = 6
    ema_decay: float = 0.99
    n_half_lives: int = 5
    visit_spans: tuple[float, ...] = (2.0, 6.0, 20.0)
    habit_strength: float = 7.0
    habit_hidden: int = 16
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self) | {"visit_spans": list(self.visit_spans)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Rebuild settings from :meth:`to_dict`.

        Raises:
            ModelError: a setting is unknown, of another type, or out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"unknown model setting: {', '.join(unknown)}", hint="was it made by a newer luckyfast?")
        for field in fields(cls):
            if field.name in values:
                _check(field.name, str(field.type), values[field.name])
        return cls(**values | ({"visit_spans": tuple(values["visit_spans"])} if "visit_spans" in values else {}))


def _check(name: str, type_: str, value: Any) -> None:
    """Refuse a value that no network can be built or trained with."""
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ModelError(f"{name} is {value!r}", hint=f"choose one of {', '.join(map(str, _CHOICES[name]))}")
        return
    low, stop = _RANGES[name]
    is_list = type_.startswith("tuple")
    numbers: list[Any] = [value] if not is_list else [*value] if isinstance(value, list | tuple) else [None]
    for number in numbers:
        good = isinstance(number, int if type_ == "int" else int | float) and not isinstance(number, bool)
        if not (good and low <= number < stop):
            kind = "a whole number" if type_ == "int" else "numbers" if is_list else "a number"
            below = f" and below {stop:g}" if math.isfinite(stop) else ""
            raise ModelError(f"{name} is {value!r}", hint=f"give {kind} of at least {low:g}{below}")


def refit_share(epochs: int, refit_epochs: int) -> float:
    """The refit's share of a time that does not suffice for all passes.

    That of its passes, but no more than leaves most of the time to the training: what validation chooses, and what the
    calibration is fitted to, is the network before the refit.

    Args:
        epochs: passes of the training, at least 1.
        refit_epochs: passes of the refit.

    Example:
        >>> refit_share(3, 1), refit_share(5, 6)
        (0.25, 0.375)
    """
    return min(refit_epochs / (epochs + refit_epochs), _MOST_REFIT)


def block_moments(n_actions: int) -> int:
    """How many moments have their logits at once.

    Half a million logits, 2 MB, which some second-level caches hold; with many actions more, lest each block read and
    write weights for too few moments, up to what the last-level cache holds; and never fewer than 64, as many as an
    action has output weights by default.
    """
    return max(_BLOCK_LOGITS // n_actions, min(_MANY_MOMENTS, _MOST_LOGITS // n_actions), _FEW_MOMENTS)


def build(config: ModelConfig, constants: Constants, *, device: str = "cpu", ops: Ops | None = None) -> Network:
    """Build an untrained network.

    Args:
        config: its settings; torch's global generator decides the weights.
        constants: what was measured in the training time.
        device: of torch, where it will be.
        ops: in which form its operations are; the best for the device if None.

    Returns:
        The network, in training mode.

    Raises:
        ModelError: the architecture is unknown.
    """
    if config.arch not in get_args(Arch):
        raise ModelError(f"unknown architecture: {config.arch!r}", hint=f"choose one of {', '.join(get_args(Arch))}")
    import torch

    from luckyfast.models.network import Network
    from luckyfast.models.ops import ops_for

    return Network(config, constants, ops or ops_for(torch.device(device))).to(device)
