"""Training steps of one network by several systems: embedded or one-hot actions, an LSTM, a softmax over all actions.

A step is forward, backward, gradients clipped to norm 1, and AdamW, on a batch of sequences where every position has
the next action as its label. All systems begin with the same weights and see the same batches; the losses of 50 steps
must agree. `torch` is what one writes with `torch.nn.LSTM` and `cross_entropy` (and the fused AdamW); `keras` is
Keras 3 with the backend that `KERAS_BACKEND` names. ``python -m luckyfast.bench.tasks.training`` measures the systems
in turn, five steps at a time, each in a process of its own, which other work on the machine disturbs least, and shows
the share of the speed of a large matrix product (2048 x 2048, float32, by torch) that the network's arithmetic reaches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..task import Inputs, Settings, Task

__all__ = ["SHAPES", "TASK", "Shape", "TrainingTask", "main"]

RATE, DECAY = 3e-3, 0.01
N_STEPS, N_QUICK_STEPS, TOLERANCE = 50, 10, 1e-4
_N_BATCHES = 4
# As where it trains: PyTorch's threads that wait by spinning would take the cores that the engine's threads need.
_ENVIRONMENTS: Mapping[str, Mapping[str, str]] = {"luckyfast": {"OMP_WAIT_POLICY": "PASSIVE"}}
_TURN = 5  # steps of a system before it is another's turn
_REST_S = 0.05  # threads of the system before end their spinning: 300,000 pauses, of 140 cycles on some processors


@dataclass(frozen=True)
class Shape:
    """Sizes of a network and of its batches.

    Args:
        batch: sequences side by side.
        steps: their length.
        hidden: units of the LSTM.
        vocabulary: actions.
        embedding: its size; 0 for one-hot actions.
    """

    batch: int
    steps: int
    hidden: int
    vocabulary: int
    embedding: int

    @property
    def name(self) -> str:
        """Its sizes, for tables."""
        inputs = f"embedding {self.embedding}" if self.embedding else "one-hot"
        return f"{self.batch} x {self.steps}, hidden {self.hidden}, {self.vocabulary} actions, {inputs}"

    @property
    def work(self) -> float:
        """Floating-point operations of a step that luckyfast does in matrix products."""
        V, H, E, n = self.vocabulary, self.hidden, self.embedding, self.batch * self.steps
        return 6.0 * (n * H * 4 * H + n * H * V + V * E * 4 * H)


_SIZES = [(256, 32, 128, 300), (64, 32, 128, 300), (256, 32, 64, 300), (64, 100, 256, 300), (512, 64, 128, 2000)]
SHAPES = [Shape(*sizes, embedding) for sizes in _SIZES for embedding in (sizes[2] // 2, 0)]
_SMALL = Shape(16, 8, 16, 30, 8)

Step = Callable[[NDArray[np.int64]], float]
Weights = dict[str, NDArray[np.float32]]


class TrainingTask:
    """See the module's text; the task runs the first shape."""

    name = "training"
    title = "training: steps of an LSTM with a softmax over all actions"
    systems: Mapping[str, tuple[str, ...]] = {"luckyfast": ("torch",), "torch": ("torch",), "keras": ("keras",)}
    default_runs = (3, 1)

    def prepare(self, cache: Path, settings: Settings) -> Inputs:
        """Compute the losses that every system must have, with plain PyTorch."""
        shape, n_steps = SHAPES[0], N_QUICK_STEPS if settings.quick else N_STEPS
        expected = cache / f"losses-{'-'.join(map(str, vars(shape).values()))}-{n_steps}.json"
        if not expected.exists():
            losses = _run("torch", shape, n_steps, settings.n_threads)[0]
            expected.write_text(json.dumps(losses), encoding="utf-8")
        values = {**vars(shape), "n_steps": n_steps, "losses": str(expected), "n_threads": settings.n_threads}
        return Inputs(values=values, warm_up={**values, **vars(_SMALL)}, environments=_ENVIRONMENTS)

    def run(self, system: str, values: Mapping[str, Any], out: Path) -> Mapping[str, float]:
        """Take the steps."""
        shape = Shape(*(values[name] for name in vars(_SMALL)))
        losses, seconds = _run(system, shape, values["n_steps"], values["n_threads"])
        (out / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
        return {"ms_per_step": 1e3 * median(seconds)}

    def check(self, system: str, values: Mapping[str, Any], out: Path) -> str | None:
        """See that the losses are the expected ones."""
        losses, expected = (json.loads(Path(file).read_text()) for file in (out / "losses.json", values["losses"]))
        gap = float(np.abs(np.subtract(losses, expected)).max())
        if not gap <= TOLERANCE:
            raise ValueError(f"the losses of {system} differ by {gap:.1e}")
        return None


def _run(system: str, shape: Shape, n_steps: int, n_threads: int) -> tuple[list[float], list[float]]:
    """Losses of the steps, and the seconds they took, the first three left out."""
    step, batches = _SYSTEMS[system](shape, _weights(shape), n_threads), _batches(shape)
    losses, seconds = [], []
    for number in range(n_steps):
        start = time.perf_counter()
        losses.append(step(batches[number % _N_BATCHES]))
        seconds.append(time.perf_counter() - start)
    return losses, seconds[3:]


def _batches(shape: Shape) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(shape.vocabulary, size=(_N_BATCHES, shape.steps + 1, shape.batch))


def _weights(shape: Shape) -> Weights:
    """Initial weights as torch lays them out: gates are input, forget, candidate, output."""
    rng = np.random.default_rng(1)
    V, H, E = shape.vocabulary, shape.hidden, shape.embedding

    def uniform(*sizes: int) -> NDArray[np.float32]:
        values: NDArray[np.float64] = rng.uniform(-1, 1, sizes) / H**0.5
        return values.astype(np.float32)

    weights = {
        "weight_ih": uniform(4 * H, E or V),
        "weight_hh": uniform(4 * H, H),
        "bias": uniform(4 * H),
        "output": uniform(V, H),
        "output_bias": uniform(V),
    }
    return weights | ({"embedding": uniform(V, E)} if E else {})


def _torch_step(shape: Shape, weights: Weights, n_threads: int) -> Step:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(n_threads)
    V, H, E = shape.vocabulary, shape.hidden, shape.embedding
    lstm, output = nn.LSTM(E or V, H), nn.Linear(H, V)
    arrays = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    with torch.no_grad():
        zeros = torch.zeros(4 * H)
        for weight, start in zip(
            lstm.parameters(), (arrays["weight_ih"], arrays["weight_hh"], arrays["bias"], zeros), strict=True
        ):
            weight.copy_(start)
        output.weight.copy_(arrays["output"])
        output.bias.copy_(arrays["output_bias"])
    lstm.bias_hh_l0.requires_grad_(False)  # two biases would be one that learns twice as fast
    embedding = nn.Embedding(V, E, _weight=arrays["embedding"]) if E else None
    layers = [lstm, output, *([embedding] if embedding else [])]
    parameters = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, fused=True)

    def step(batch: NDArray[np.int64]) -> float:
        ids = torch.from_numpy(batch)
        inputs = embedding(ids[:-1]) if embedding else F.one_hot(ids[:-1], V).float()
        loss = F.cross_entropy(output(lstm(inputs)[0]).view(-1, V), ids[1:].reshape(-1))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return float(loss.detach())

    return step


def _luckyfast_step(shape: Shape, weights: Weights, n_threads: int) -> Step:
    import copy

    import torch
    from torch import nn

    from luckyfast.models import block_moments
    from luckyfast.models.cores import set_cores
    from luckyfast.models.fused import FusedOps
    from luckyfast.optimiser import Optimiser

    set_cores(n_threads)
    T, B, H, V = shape.steps, shape.batch, shape.hidden, shape.vocabulary
    gates = torch.cat([torch.arange(H * gate, H * (gate + 1)) for gate in (0, 1, 3, 2)])
    arrays = {name: torch.from_numpy(array) for name, array in weights.items()}
    arrays |= {name: arrays[name][gates] for name in ("weight_ih", "weight_hh", "bias")}
    arrays["weight_hh"] = arrays["weight_hh"].t()
    if not shape.embedding:
        arrays["weight_ih"] = arrays["weight_ih"].t()
    network = nn.ParameterDict({name: array.clone().contiguous() for name, array in arrays.items()})
    average = copy.deepcopy(network)
    optimiser = Optimiser(network, average, quick=[], quick_scale=1.0, decay=DECAY, ema_decay=0.0, fused=True)
    ops, state = FusedOps(), torch.zeros(B, H)
    one_each, ones = np.arange(T * B + 1), np.ones(T * B, np.float32)

    def step(batch: NDArray[np.int64]) -> float:
        if shape.embedding:
            table = ops.linear(network["embedding"], network["weight_ih"], network["bias"])
        else:
            table = network["weight_ih"] + network["bias"]
        projected = ops.sum_bags(one_each, np.ascontiguousarray(batch[:-1]).reshape(-1), table)
        outputs, _, _ = ops.lstm_sequence(projected.view(T, B, 4 * H), state, state, network["weight_hh"])
        memory, labels = outputs.reshape(T * B, H), np.ascontiguousarray(batch[1:]).reshape(-1)
        grad, total, block = torch.empty_like(memory), 0.0, block_moments(V)
        for start in range(0, T * B, block):
            part = slice(start, min(start + block, T * B))
            leaf = memory.detach()[part].requires_grad_()
            logits = ops.linear(leaf, network["output"], network["output_bias"])
            n = part.stop - start
            loss = ops.set_loss(logits, one_each[: n + 1], labels[part], ones[part], T * B)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            if leaf.grad is not None:
                grad[part] = leaf.grad
        memory.backward(grad)  # type: ignore[no-untyped-call]
        optimiser.step(RATE)
        return total

    return step


def _keras_step(shape: Shape, weights: Weights, n_threads: int) -> Step:
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(n_threads)

    class AdamW(keras.optimizers.AdamW):  # type: ignore[misc]
        """With torch's epsilon, which is added to the root after its bias is corrected, and not before."""

        @property
        def epsilon(self) -> Any:
            return 1e-8 * keras.ops.sqrt(1 - 0.999 ** keras.ops.cast(self.iterations + 1, "float32"))

        @epsilon.setter
        def epsilon(self, value: float) -> None:
            pass

    # With torch, Keras has an optimiser that goes over all weights at once, but not for classes that it does not know.
    own = keras.backend.backend() == "torch"
    optimiser = (keras.optimizers.AdamW if own else AdamW)(RATE, weight_decay=DECAY, epsilon=1e-8, global_clipnorm=1.0)
    V, H, E = shape.vocabulary, shape.hidden, shape.embedding
    ids = keras.Input((shape.steps,), dtype="int32")
    inputs = keras.layers.Embedding(V, E)(ids) if E else keras.ops.one_hot(ids, V)
    lstm, output = keras.layers.LSTM(H, return_sequences=True), keras.layers.Dense(V)
    model = keras.Model(ids, output(lstm(inputs)))
    if E:
        model.layers[1].set_weights([weights["embedding"]])
    lstm.set_weights([weights["weight_ih"].T, weights["weight_hh"].T, weights["bias"]])
    output.set_weights([weights["output"].T, weights["output_bias"]])
    model.compile(
        optimizer=optimiser,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def step(batch: NDArray[np.int64]) -> float:
        model.reset_metrics()  # else the loss is the mean of all steps so far
        x, y = (np.ascontiguousarray(part.T, np.int32) for part in (batch[:-1], batch[1:]))
        return float(model.train_on_batch(x, y))

    return step


_SYSTEMS: dict[str, Callable[[Shape, Weights, int], Step]] = {
    "luckyfast": _luckyfast_step,
    "torch": _torch_step,
    "keras": _keras_step,
}


def _peak(clock: Callable[[], float], n_threads: int) -> float:
    """Operations per second of a large matrix product."""
    import torch

    torch.set_num_threads(n_threads)  # where luckyfast trains, PyTorch has one
    a, b, c = (torch.randn(2048, 2048) for _ in range(3))
    seconds = []
    for _ in range(15):
        start = clock()
        torch.mm(a, b, out=c)
        seconds.append(clock() - start)
    return 2 * 2048.0**3 / min(seconds)


def compare(shape: Shape, systems: Sequence[str], n_steps: int, n_threads: int) -> dict[str, Any]:
    """Take steps of the systems in turn.

    Args:
        shape: of network and batches.
        systems: keys of `TrainingTask.systems`.
        n_steps: of each.
        n_threads: of each. With one, CPU time is measured: other work on the machine counts less.

    Returns:
        ``ms``, median milliseconds of a step by system; ``gap``, the largest difference of two losses; ``share`` of the
        speed of a large product that luckyfast reaches in its median step.
    """
    with _processes(shape, systems, n_threads) as pipes:
        seconds: dict[str, list[float]] = {system: [] for system in systems}
        gap = 0.0
        for start in range(0, n_steps, _TURN):
            losses = []
            for system, pipe in pipes.items():
                time.sleep(_REST_S)
                pipe.send((start, min(start + _TURN, n_steps)))
                found, step_s = pipe.recv()
                losses.append(found)
                seconds[system] += step_s
            gap = max(gap, float(np.ptp(losses, axis=0).max()))
        pipes[systems[0]].send(None)
        peak = pipes[systems[0]].recv()
    ms = {name: 1e3 * median(times[1:]) for name, times in seconds.items()}
    return {"ms": ms, "gap": gap, "share": shape.work / (1e-3 * ms[systems[0]]) / peak}


@contextmanager
def _processes(shape: Shape, systems: Sequence[str], n_threads: int) -> Iterator[dict[str, Connection]]:
    """A process for each system, which takes the steps whose numbers it is sent."""
    spawn, before, pipes, processes = multiprocessing.get_context("spawn"), dict(os.environ), {}, []
    try:
        for system in systems:
            os.environ.update(_ENVIRONMENTS.get(system, {}))
            pipes[system], theirs = spawn.Pipe()
            processes.append(spawn.Process(target=_serve, args=(theirs, system, shape, n_threads), daemon=True))
            processes[-1].start()
            theirs.close()
            os.environ.clear()
            os.environ.update(before)
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(pipe: Connection, system: str, shape: Shape, n_threads: int) -> None:
    clock = time.process_time if n_threads == 1 else time.perf_counter
    step, batches = _SYSTEMS[system](shape, _weights(shape), n_threads), _batches(shape)
    while (turn := pipe.recv()) is not None:
        losses, seconds = [], []
        for number in range(*turn):
            start = clock()
            losses.append(step(batches[number % _N_BATCHES]))
            seconds.append(clock() - start)
        pipe.send((losses, seconds))
    pipe.send(_peak(clock, n_threads))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of all shapes."""
    parser = argparse.ArgumentParser(prog="python -m luckyfast.bench.tasks.training", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=N_STEPS, help="steps of each system (default: 50)")
    parser.add_argument("--systems", nargs="+", choices=_SYSTEMS, default=["luckyfast", "torch"])
    parser.add_argument("--shapes", nargs="+", type=int, default=[*range(len(SHAPES))], help="numbers from 0")
    options = parser.parse_args(arguments)
    names = options.systems
    print(
        f"| {options.threads} thread{'s'[: options.threads > 1]} | {' | '.join(f'{name} ms' for name in names)} | "
        f"{' | '.join(f'x {name}' for name in names[1:])} | share of peak | losses differ by |"
    )
    print(f"| --- |{' ---: |' * (2 * len(names) + 1)}", flush=True)
    for number in options.shapes:
        shape = SHAPES[number]
        found = compare(shape, names, options.steps, options.threads)
        ms = found["ms"]
        ratios = " | ".join(f"{ms[name] / ms[names[0]]:.2f}" for name in names[1:])
        print(
            f"| {shape.name} | {' | '.join(f'{ms[name]:.1f}' for name in names)} | {ratios} | {found['share']:.0%} | "
            f"{found['gap']:.0e} |",
            flush=True,
        )
    return 0


TASK: Task = TrainingTask()

if __name__ == "__main__":
    sys.exit(main())
