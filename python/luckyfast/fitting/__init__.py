"""From a dataset to a model folder: search or train, calibrate, measure beside every baseline, export, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from luckyfast.config import available_cores, available_memory, parse_duration, parse_size
from luckyfast.errors import BudgetError, DatasetError, ModelError
from luckyfast.fitting.folders import JOURNAL, find_place, publish, read_header, study_folder
from luckyfast.fitting.run import FitRun, SearchKind
from luckyfast.models import Device
from luckyfast.progress import NullProgress, Progress

if TYPE_CHECKING:
    from luckyfast.model import Model
    from luckyfast.search.study import Status

__all__ = ["fit"]


def fit(
    dataset: str | Path,
    *,
    arch: str = "lstm-embed",
    budget: str | float | None = None,
    memory: str | int | None = None,
    search: SearchKind | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    habit: bool = True,
    features: bool = True,
    seed: int = 0,
    threads: int | None = None,
    device: Device = "auto",
    trials: int | None = None,
    patience: int | None = None,
    space: str | Path | None = None,
    optimizer: str | None = None,
    warm_start: str | Path | None = None,
    executor: Executor | None = None,
    callbacks: Sequence[Callable[[Status], None]] = (),
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Train a network on a dataset, calibrate it on validation visits, and measure it on test visits beside baselines.

    With time for more than one training, hyperparameters are searched: Nevergrad proposes configurations, and
    successive halving decides how many customers and passes each gets. Everything ends within the budget. While a
    search runs, its journal and best weights lie in ``OUT.search``; whatever ends it, ``resume`` goes on from there.
    A second run with the same seed and ``trials`` proposes the same configurations on the same number of cores; under a
    budget the clock decides what is promoted when, and no two runs are the same.

    Args:
        dataset: folder that ``luckyfast ingest`` wrote.
        arch: ``mlp``, ``lstm`` or ``lstm-embed``.
        budget: wall time of the whole call, in seconds or as text such as ``20m``, together with that of the runs it
            resumes; None trains one configuration, ``epochs`` passes or fewer where validation gets worse.
        memory: bound on the resident size of all processes together, in bytes or as text such as ``2GB``; most of what
            is free if None.
        search: ``none``, ``hyperband``, or ``bayes`` (all proposals from a Gaussian process); None searches
            where the budget leaves time for it.
        out: model folder to write; ``model-ARCH`` if None.
        overwrite: replace the folder if it is a model, and an unfinished search.
        resume: go on with what an earlier run left, if there is anything: with its search, and within a training or the
            refit from a checkpoint that is at most half a minute old.
        habit: add the habit residual (decayed personal frequency, cadence); False gives the plain network.
        features: read the side columns of the dataset, if it has any.
        seed: of initial weights, batch order and proposals; the same seed gives the same model on one machine.
        threads: cores to use; all that this process may use if None.
        device: where networks are trained: ``cpu``, ``cuda``, or ``auto``, which is CUDA where there is a GPU. A GPU
            trains one network at a time; measuring and predicting are done on the CPU.
        trials: try so many configurations, instead of or beside a budget.
        patience: end the search after so many configurations in a row without a better model; what is left of the
            budget is given back.
        space: TOML file with the settings to search, see :func:`luckyfast.search.space.read_space`.
        optimizer: who proposes: any name in Nevergrad's registry, or several, joined by +, that take turns.
        warm_start: a model folder whose search has tried configurations: its best ones are tried first.
        executor: runs the trials in place of processes on this machine; it must reach the same files. Memory is not
            watched then.
        callbacks: each receives a :class:`luckyfast.search.study.Status` whenever something happened.
        progress: listener for progress.
        **settings: fields of :class:`luckyfast.models.ModelConfig`, such as ``hidden`` or ``learning_rate``; they keep
            the value given here.

    Returns:
        The fitted model, opened from its folder.

    Raises:
        DatasetError: the dataset cannot be read or is too short to be split by time.
        ModelError: a setting is unknown or out of range, the earlier run was another one, or there is no such device.
        BudgetError: the budget is too short to train anything, or the memory too small.
        OutputExistsError: the model folder or an unfinished search exists.

    Example:
        >>> model = luckyfast.fit(dataset_path, arch="mlp", out=model_path, epochs=1)
        >>> model.metrics["systems"][0]["name"]
        'mlp'
    """
    started = time.monotonic()
    if search is not None and search not in get_args(SearchKind):
        raise ModelError(f"unknown search: {search!r}", hint=f"choose one of {', '.join(get_args(SearchKind))}")
    if device not in get_args(Device):
        raise ModelError(f"unknown device: {device!r}", hint=f"choose one of {', '.join(get_args(Device))}")
    for name, number in (("threads", threads), ("trials", trials), ("patience", patience)):
        if number is not None and number < 1:
            raise ModelError(f"{name} is {number}", hint=f"give --{name} a whole number of at least 1, or leave it out")
    if warm_start is not None and not (Path(warm_start) / JOURNAL).is_file():
        raise ModelError(f"{warm_start} has no {JOURNAL}", hint="name a model that a search made, for --warm-start")
    budget_s = None if budget is None else parse_duration(budget)
    memory_bytes = int(0.9 * available_memory()) if memory is None else parse_size(memory)
    folder = find_place(Path(f"model-{arch}" if out is None else out), overwrite=overwrite)

    from luckyfast.dataset import Dataset
    from luckyfast.model import load
    from luckyfast.models import ModelConfig
    from luckyfast.search.proposer import DEFAULT_OPTIMIZER, GP_OPTIMIZER
    from luckyfast.search.space import default_space, read_space

    config = ModelConfig.from_dict({"arch": arch, "habit": habit, "features": features, "seed": seed, **settings})
    fixed = tuple(settings)
    data = Dataset.open(dataset)
    if data.n_visits == 0:
        raise DatasetError(f"{data.path} has no visits", hint="ingest a log with accepted rows")
    made = default_space(config, fixed) if space is None else read_space(space, config, fixed)
    earlier = (read_header(folder) if resume else None) or {}
    has_end = budget_s is not None or trials is not None or patience is not None
    if search is None and budget_s is None:
        search = earlier.get("search") if earlier else "hyperband" if has_end else "none"
    if trials is None and budget_s is None:
        trials = earlier.get("trials")
    if search in ("hyperband", "bayes") and not has_end and not (earlier.get("budget_s") or trials):
        raise BudgetError("a search needs an end", hint="give --budget, --trials or --patience")
    if search == "none":
        _refuse(trials=trials, patience=patience, optimizer=optimizer, warm_start=warm_start)
    plan = {
        "dataset": str(data.path.resolve()),
        "counts": data.counts,
        "seed": seed,
        "search": search,
        "space": made.to_dict(),
        "optimizer": optimizer or (GP_OPTIMIZER if search == "bayes" else DEFAULT_OPTIMIZER),
        "trials": trials,
    }
    with study_folder(folder, plan, resume=resume, overwrite=overwrite) as study:
        work = FitRun(
            data=data,
            space=made,
            plan=plan,
            study_folder=study,
            started=started,
            budget_s=budget_s,
            memory_bytes=memory_bytes,
            n_cores=threads or available_cores(),
            device=device,
            patience=patience,
            warm_start=None if warm_start is None else Path(warm_start),
            executor=executor,
            callbacks=callbacks,
            listener=progress or NullProgress(),
        ).run()
        publish(work, study, folder, overwrite=overwrite)
    return load(folder)


def _refuse(**flags: object) -> None:
    """Settings of a search have no use without one."""
    for name, value in flags.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ModelError(
                f"{flag} has no use where nothing is searched", hint=f"add --budget 20m, or leave {flag} out"
            )
