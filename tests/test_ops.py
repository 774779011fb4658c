"""The engine's operations against the plain ones: results, gradients, and whole trainings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import DAY, habit_log, opened
from numpy.typing import NDArray
from torch import Tensor, nn
from twin_ops import TwinOps, kept_factors

from luckyfast import _engine
from luckyfast.batches import Batch, Constants, Moments, Segment, cut_segment, measure, training_batches
from luckyfast.course import label_weights
from luckyfast.dataset import Dataset
from luckyfast.habits import Habits
from luckyfast.models import ModelConfig, build
from luckyfast.models import fused as fused_module
from luckyfast.models.cores import use_cores
from luckyfast.models.fused import FusedOps
from luckyfast.models.ops import Ops
from luckyfast.optimiser import Optimiser

PLAIN, FUSED = TwinOps(), FusedOps()
THREADS = pytest.mark.parametrize("n_threads", [1, 3])


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Any:
    callspec = getattr(request.node, "callspec", None)
    with use_cores(callspec.params.get("n_threads", 1) if callspec else 1):
        yield


def compare(operation: Callable[..., Any], *inputs: Tensor, atol: float = 1e-5) -> None:
    """Run an operation in both forms, and go back from a random combination of its results."""
    results = []
    for ops in (PLAIN, FUSED):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        # Leaves must not be overwritten; what is computed from them may be.
        outputs = operation(ops, *[leaf * 1.0 for leaf in leaves])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(3)
        total = sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs)
        assert isinstance(total, Tensor)
        total.backward()  # type: ignore[no-untyped-call]
        results.append([*(output.detach() for output in outputs), *(leaf.grad for leaf in leaves)])
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, atol=atol, rtol=1e-4)


@THREADS
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 70, 5), (40, 3, 900), (0, 4, 3)])
def test_linear(shape: tuple[int, int, int], n_threads: int) -> None:
    n, N, K = shape
    torch.manual_seed(0)
    inputs = torch.randn(n, K), torch.randn(N, K) / K**0.5, torch.randn(N), torch.randn(n, N)
    compare(lambda ops, *tensors: ops.linear(*tensors), *inputs, atol=1e-4)
    compare(lambda ops, *tensors: ops.linear(*tensors, None), *inputs[:2], atol=1e-4)


@THREADS
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 7, 16), (5, 13, 64), (3, 24, 65), (2, 33, 100), (6, 5, 3)])
def test_lstm(shape: tuple[int, int, int], n_threads: int) -> None:
    T, B, H = shape
    torch.manual_seed(0)
    inputs = torch.randn(T, B, 4 * H), torch.randn(B, H), torch.randn(B, H), torch.randn(H, 4 * H) / H**0.5
    compare(lambda ops, *tensors: ops.lstm_sequence(*tensors), *inputs)
    projected, h0, c0, weight = inputs
    compare(lambda ops, *tensors: ops.lstm_sequence(tensors[0], h0, c0, tensors[1]), projected, weight)
    compare(lambda ops, *tensors: ops.lstm_sequence(tensors[0], h0 * 0, c0, tensors[1]), projected, weight)
    compare(lambda ops, *tensors: ops.lstm_sequence(*tensors), projected, h0 * 0, c0, weight)


@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_layers_have_the_same_gradients(arch: str) -> None:
    config = ModelConfig(arch=arch, layers=3, hidden=9, embedding=7, dropout=0.3, n_half_lives=2, visit_spans=(3.0,))  # type: ignore[arg-type]
    grads: list[list[Tensor]] = []
    with opened(habit_log(n_customers=8, n_visits=12)) as dataset:
        constants = measure(dataset, 200 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        start = histories.visit_start.astype(np.int64)
        batch = Batch(histories, Moments.of(histories, constants), start[:-1], start[1:])
        for ops in (PLAIN, FUSED):
            torch.manual_seed(2)
            network = build(config, constants, ops=ops)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.normal_(std=0.3)
            state = network.start(len(batch.first))
            for offset in (0, 6):
                segment = cut_segment(batch, constants, offset, 6, None, habit=True)
                weights, total = weights_of(segment, 0.25)
                loss, state = network.loss(segment, state, weights, total)
                loss.backward()  # type: ignore[no-untyped-call]
                state = tuple(part.detach() for part in state)
            grads.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
            assert len(grads[-1]) == len(list(network.parameters()))
    for plain, fused in zip(*grads, strict=True):
        assert plain.abs().max() > 1e-6
        torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-3)


def test_lstm_equals_torch() -> None:
    torch.manual_seed(1)
    T, B, H = 5, 3, 4
    # torch lays gates out as input, forget, candidate, output.
    order = torch.cat([torch.arange(H * i, H * (i + 1)) for i in (0, 1, 3, 2)])
    peer = nn.LSTM(2, H)
    inputs, state, weighting = torch.randn(T, B, 2), torch.randn(2, B, H), torch.randn(T, B, H)
    expected, (h, c) = peer(inputs, (state[:1], state[1:]))
    ((expected * weighting).sum() + h.sum() + (2 * c).sum()).backward()
    weight = peer.weight_hh_l0[order].t().detach().clone().requires_grad_()
    projected = (inputs @ peer.weight_ih_l0[order].t() + (peer.bias_ih_l0 + peer.bias_hh_l0)[order]).detach()
    outputs, h, c = FUSED.lstm_sequence(projected, state[0], state[1], weight)
    ((outputs * weighting).sum() + h.sum() + (2 * c).sum()).backward()
    torch.testing.assert_close(outputs, expected)
    assert peer.weight_hh_l0.grad is not None
    torch.testing.assert_close(weight.grad, peer.weight_hh_l0.grad[order].t())


def test_overwritten_gates_are_not_used_twice() -> None:
    weight = torch.zeros(2, 8, requires_grad=True)
    outputs, _, _ = FUSED.lstm_sequence(torch.ones(3, 2, 8), torch.zeros(2, 2), torch.zeros(2, 2), weight)
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="overwritten"):
        outputs.sum().backward()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=5), min_size=1, max_size=9), st.integers(1, 40))
def test_bags(bags: list[list[int]], width: int) -> None:
    start = np.concatenate(([0], np.cumsum([len(bag) for bag in bags])))
    actions = np.array([action for bag in bags for action in bag], np.int64)
    table = torch.randn(9, width, generator=torch.Generator().manual_seed(width))
    compare(lambda ops, values: ops.sum_bags(start, actions, values), table)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 69), max_size=5), min_size=1, max_size=9), st.integers(70, 100), st.booleans())
def test_loss(labels: list[list[int]], n_actions: int, far: bool) -> None:
    start = np.concatenate(([0], np.cumsum([len(row) for row in labels])))
    actions = np.array([label for row in labels for label in row], np.int64)
    weights = np.random.default_rng(n_actions).uniform(0.5, 2.0, len(labels)).astype(np.float32)
    logits = torch.randn(len(labels), n_actions, generator=torch.Generator().manual_seed(0)) * (40 if far else 2)
    compare(lambda ops, values: ops.set_loss(values, start, actions, weights, 3.0), logits)
    smoothing = torch.rand(n_actions, generator=torch.Generator().manual_seed(1))
    smoothing[3] = 0.0
    smoothing *= 0.2 / smoothing.sum()
    compare(lambda ops, values: ops.set_loss(values, start, actions, weights, 3.0, smoothing), logits, atol=1e-4)


def test_smoothing_of_many_actions_is_exact() -> None:
    """Shares that are far below the rounding of 1 add up, so that the gradients of a moment do to 0."""
    V = 50_000
    logits, labels = torch.zeros(3, V), np.array([1, 2, 5])
    smoothing, ones = torch.full((V,), 0.1 / V), np.ones(3, np.float32)
    for ops in (PLAIN, FUSED):
        leaf = logits.clone().requires_grad_()
        ops.set_loss(leaf * 1.0, np.arange(4), labels, ones, 1.0, smoothing).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert leaf.grad.double().sum(1).abs().max() < 3e-4
        torch.testing.assert_close(leaf.grad[0, 1], torch.tensor(-0.9 + (1 - 0.1) / V), atol=1e-4, rtol=0)


def test_smoothed_labels_are_distributions() -> None:
    """The loss is the cross-entropy of torch with the same distributions as targets."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    smoothing = torch.tensor([0.0, 0.03, 0.02, 0.0, 0.05, 0.0])
    labels = np.array([1, 2, 5, 4])
    targets = torch.eye(6)[torch.from_numpy(labels)] * (1 - smoothing.sum()) + smoothing
    expected = nn.functional.cross_entropy(logits, targets, reduction="sum")
    for ops in (PLAIN, FUSED):
        found = ops.set_loss(logits, np.arange(5), labels, np.ones(4, np.float32), 1.0, smoothing)
        torch.testing.assert_close(found, expected)


def segment_habits(dataset: Dataset, constants: Constants, wanted: np.ndarray | None = None) -> tuple[int, Habits]:
    histories = next(dataset.batches())
    start = histories.visit_start.astype(np.int64)
    batch = Batch(histories, Moments.of(histories, constants), start[:-1], start[1:])
    segment = cut_segment(batch, constants, 2, 30, wanted, habit=True)
    assert segment.habits is not None
    return len(segment.visits), segment.habits


@THREADS
@pytest.mark.parametrize("hidden", [1, 16, 21])
@pytest.mark.parametrize("n_actions", [5, 90])
def test_habits(hidden: int, n_actions: int, n_threads: int) -> None:
    with opened(habit_log(n_customers=6, n_visits=40, n_actions=n_actions)) as dataset:
        constants = measure(dataset, 300 * DAY, n_half_lives=3, visit_spans=(3.0,), strength=2.0)
        wanted = np.random.default_rng(0).random(dataset.n_visits) < 0.7
        for chosen in (None, wanted, np.zeros_like(wanted)):
            n, habits = segment_habits(dataset, constants, chosen)
            V, F = constants.n_actions, constants.n_habits
            torch.manual_seed(0)
            shapes = (n, V), (n, F), (V, F), (hidden, F + 1), (hidden,), (1, hidden)
            inputs = [torch.randn(shape) * 0.3 for shape in shapes]
            popularity = torch.from_numpy(constants.popularity).float().log()
            compare(
                lambda ops, logits, moment, *weights: ops.add_habits(logits, habits, moment, (*weights, popularity)),  # noqa: B023
                *inputs,
                atol=1e-4,
            )


@pytest.mark.parametrize("fused", [False, True])
def test_the_step_is_that_of_torch(fused: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(7, 5) for _ in range(3)]
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    network, average, peer = layers
    optimiser = Optimiser(
        network, average, quick=[network.bias], quick_scale=3.0, decay=0.1, ema_decay=0.9, fused=fused
    )
    slow = torch.optim.AdamW(
        [{"params": [peer.weight], "weight_decay": 0.1}, {"params": [peer.bias], "weight_decay": 0.0}], lr=0.0
    )
    averages = [parameter.detach().clone() for parameter in peer.parameters()]
    for step in range(1, 30):
        inputs = torch.randn(4, 7) * (10 if step % 2 else 0.01)  # clipped, and not
        for layer in (network, peer):
            layer(inputs).square().sum().backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        slow.param_groups[0]["lr"], slow.param_groups[1]["lr"] = 0.01, 0.03
        slow.step()
        slow.zero_grad()
        assert optimiser.step(0.01)
        keep = min(0.9, step / (step + 10))
        for kept, new in zip(averages, peer.parameters(), strict=True):
            kept.lerp_(new.detach(), 1 - keep)
        torch.testing.assert_close(list(network.parameters()), list(peer.parameters()))
        torch.testing.assert_close([p.detach() for p in average.parameters()], averages)
        assert all(not parameter.grad.any() for parameter in network.parameters() if parameter.grad is not None)
    assert network.weight.grad is not None
    network.weight.grad[0, 0] = float("inf")
    before = network.weight.detach().clone()
    assert not optimiser.step(0.01)
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize(("habit", "layers"), [(True, 1), (False, 1), (False, 2), (False, 3)])
@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_both_forms_train_alike(arch: str, habit: bool, layers: int) -> None:
    """Fifty steps from the same weights over the same batches give the same losses."""
    config = ModelConfig(arch=arch, habit=habit, layers=layers, hidden=24, embedding=10)  # type: ignore[arg-type]
    config = replace(config, batch_visits=64, segment_visits=16)
    losses: dict[str, list[float]] = {}
    with opened(habit_log(n_customers=60, n_visits=25)) as dataset:
        constants = measure(dataset, 120 * DAY, n_half_lives=2, visit_spans=(3.0,), strength=2.0)
        for ops in (PLAIN, FUSED):
            losses[type(ops).__name__] = train_steps(dataset, constants, replace(config, seed=1), ops, 50)
    assert len(losses["TwinOps"]) == 50
    assert losses["TwinOps"][-1] < losses["TwinOps"][0]
    np.testing.assert_allclose(losses["FusedOps"], losses["TwinOps"], atol=1e-4)


def weights_of(segment: Segment, power: float) -> tuple[NDArray[np.float32], float]:
    """Of each label of a moment, and of all labels together."""
    n_labels = np.diff(segment.label_start)
    weights = label_weights(n_labels, power)
    return weights, float(weights @ n_labels)


@pytest.fixture(scope="module")
def head_segment() -> Iterator[tuple[Constants, Segment, int]]:
    """A segment in the middle of some histories, of customers of unlike length; and how many steps it has."""
    with opened(habit_log(n_customers=40, n_visits=30, n_actions=80)) as dataset:
        constants = measure(dataset, 300 * DAY, n_half_lives=3, visit_spans=(3.0,), strength=2.0)
        histories = next(dataset.batches())
        start = histories.visit_start.astype(np.int64)
        stop = start[1:] - np.arange(len(start) - 1) // 2
        batch = Batch(histories, Moments.of(histories, constants), start[:-1], stop)
        segment = cut_segment(batch, constants, 4, 20, None, habit=True)
        assert constants.trend is not None
        yield constants, segment, segment.shape[0] * segment.shape[1]


def with_more_actions(constants: Constants, n_actions: int) -> Constants:
    """The same with actions that nobody takes."""
    assert constants.trend is not None
    n_more, trends = n_actions - constants.n_actions, constants.trend.values
    more = np.random.default_rng(5).uniform(-1, 1, (*trends.shape[:2], n_more)).astype(np.float32)
    return replace(
        constants,
        popularity=np.append(constants.popularity, np.full(n_more, 0.01)),
        known=np.append(constants.known, np.ones(n_more, np.bool_)),
        trend=replace(constants.trend, values=np.concatenate((trends, more), axis=2)),
    )


class AtLevel:
    """The engine with the kernels of one instruction set."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(_engine, name), level=self.level)


@THREADS
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize(
    ("habit", "trend", "dropout", "smoothing", "few", "many"),
    [
        (True, True, 0.4, 0.1, False, False),
        (True, True, 0.0, 0.0, True, False),
        (True, False, 0.4, 0.0, True, False),
        (False, True, 0.3, 0.1, True, False),
        (False, False, 0.0, 0.0, False, False),
        (True, True, 0.0, 0.1, True, True),  # the plain form drops other values where it makes blocks
    ],
)
def test_the_head_in_one_call(
    habit: bool,
    trend: bool,
    dropout: float,
    smoothing: float,
    few: bool,
    many: bool,
    level: int,
    n_threads: int,
    head_segment: tuple[Constants, Segment, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loss and every gradient are those of the plain network, whatever parts there are, in small blocks, and of many
    actions too.
    """
    constants, segment, n_steps = head_segment
    constants = with_more_actions(constants, 2100) if many else constants
    constants = replace(constants, trend=constants.trend if trend else None)
    if not trend:
        segment = replace(segment, trend_rows=None)
    if not habit:
        segment = replace(segment, habits=None)
    config = ModelConfig(habit=habit, hidden=19, embedding=13, dropout=dropout, habit_hidden=5)
    monkeypatch.setattr(fused_module, "_engine", AtLevel(level))
    if few:
        monkeypatch.setattr(fused_module, "block_moments", lambda n_actions: 7)
    weights, total = weights_of(segment, 0.25)
    shares = torch.linspace(0.5, 1.5, constants.n_actions) * smoothing / constants.n_actions if smoothing else None
    found: list[dict[str, Tensor]] = []
    for ops in (PLAIN, FUSED):
        torch.manual_seed(4)
        network = build(config, constants, ops=ops)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(std=0.4)
        outputs = torch.randn(n_steps, config.hidden, requires_grad=True)
        loss = ops.head_loss(network, outputs, segment, weights, total, shares)
        (2 * loss).backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        own = {name: own.grad for name, own in network.named_parameters() if own.grad is not None}
        found.append(own | {"loss": loss.detach(), "outputs": outputs.grad})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 7 + 6 * habit + 2 * trend
    for name, plain in found[0].items():
        assert plain.abs().max() > 1e-6, name
        torch.testing.assert_close(
            found[1][name], plain, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 1000])
def test_what_is_dropped_is_a_hash_of_seed_and_place(n: int, level: int) -> None:
    values, dropped = np.arange(1, n + 1, dtype=np.float32), np.empty(n, np.float32)
    for seed in (0, 1, 1 << 31, (1 << 62) - 1):
        _engine.drop(values, dropped, 0.3, seed, level)
        np.testing.assert_allclose(dropped, values * kept_factors(n, 0.3, seed), rtol=1e-6)


def test_as_many_are_dropped_as_shall_be_and_no_two_seeds_are_alike() -> None:
    n, ones = 1 << 20, np.ones(1 << 20, np.float32)
    kept = []
    for seed in (7, 8, 1 << 33):
        dropped = np.empty(n, np.float32)
        _engine.drop(ones, dropped, 0.25, seed)
        kept.append(dropped > 0)
        assert abs(kept[-1].mean() - 0.75) < 5 * (0.25 * 0.75 / n) ** 0.5
        assert abs((kept[-1][1:] & kept[-1][:-1]).mean() - 0.75**2) < 0.003
    for one, other in ((kept[0], kept[1]), (kept[0], kept[2]), (kept[0][1:], kept[1][:-1])):
        assert abs((one & other).mean() - 0.75**2) < 0.003


def train_steps(dataset: Dataset, constants: Constants, config: ModelConfig, ops: Ops, n_steps: int) -> list[float]:
    torch.manual_seed(config.seed)
    network, average = (build(config, constants, ops=ops) for _ in range(2))
    quick = [] if network.residual is None else [network.residual.shared]
    optimiser = Optimiser(
        network, average, quick=quick, quick_scale=3.0, decay=0.01, ema_decay=0.9, fused=isinstance(ops, FusedOps)
    )
    rng, losses = np.random.default_rng(0), []
    torch.manual_seed(5)  # for dropout
    while True:
        for batch in training_batches(dataset, constants, 120 * DAY, config.batch_visits, config.segment_visits, rng):
            state = network.start(len(batch.first))
            for offset in range(0, int((batch.stop - batch.first).max()), config.segment_visits):
                segment = cut_segment(batch, constants, offset, config.segment_visits, None, habit=config.habit)
                state = tuple(part[: segment.shape[1]].detach() for part in state)
                weights, total = weights_of(segment, config.size_power)
                loss, state = network.loss(segment, state, weights, total)
                loss.backward()  # type: ignore[no-untyped-call]
                assert optimiser.step(3e-3)
                losses.append(float(loss.detach()))
                if len(losses) == n_steps:
                    return losses


def test_shares_that_drop_all_are_refused() -> None:
    values = np.ones(4, np.float32)
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="share"):
            _engine.drop(values, values.copy(), share, 0)
    _engine.drop(values, values, 1 - 1e-12, 0)
    assert not values.any()


def test_unlike_arrays_are_refused() -> None:
    values = np.zeros((2, 3, 8), np.float32)
    with pytest.raises(ValueError, match="unlike shapes"):
        _engine.lstm_forward(values, values, values, np.zeros((2, 8), np.float32))
