"""The networks that predict the next visit: a feed-forward one over the last visits, and two LSTMs.

Each maps a :class:`~luckyfast.batches.Segment` and a state to one row of logits per moment, and the state after it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from luckyfast.errors import ModelError

if TYPE_CHECKING:
    from luckyfast.batches import Constants
    from luckyfast.models.network import Network
    from luckyfast.models.ops import Ops

__all__ = ["Arch", "ModelConfig", "build"]

Arch = Literal["mlp", "lstm", "lstm-embed"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what a model is and how it is trained.

    Args:
        arch: ``mlp`` (feed-forward over the last ``window`` visits), ``lstm`` (actions one-hot) or ``lstm-embed``.
        habit: whether to add the habit residual.
        hidden: units of the recurrent or feed-forward layer.
        embedding: size of the action embedding (``mlp`` and ``lstm-embed``) and of the layer before the output.
        window: how many visits ``mlp`` looks back.
        dropout: share of units dropped, in what the network reads and before its output.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        size_power: a visit of n distinct actions weighs ``n ** -size_power`` per action in the loss.
        recency: how often the weight of a visit in the loss halves over the training time; 0 weighs all alike.
        periods: stretches of the training time whose fashions are told apart; 1 for none.
        batch_visits: visits per training step, about.
        segment_visits: visits of a customer per step of truncated back-propagation.
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
    hidden: int = 128
    embedding: int = 64
    window: int = 8
    dropout: float = 0.4
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    size_power: float = 0.25
    recency: float = 2.0
    periods: int = 16
    batch_visits: int = 256
    segment_visits: int = 64
    epochs: int = 5
    refit_epochs: int = 3
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
            ModelError: a setting is unknown.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ModelError(f"unknown model setting: {', '.join(unknown)}", hint="was it made by a newer luckyfast?")
        return cls(**values | ({"visit_spans": tuple(values["visit_spans"])} if "visit_spans" in values else {}))


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
