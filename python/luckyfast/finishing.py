"""From the weights that were chosen to a model folder: calibrate, refit, measure beside every baseline, export."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from luckyfast import __version__
from luckyfast.baselines import BASELINES, DecayedFrequency, fit_baseline
from luckyfast.calibration import calibrate, n_calibrated
from luckyfast.dataset import Dataset
from luckyfast.evaluation import evaluate
from luckyfast.explorer import write_explorer
from luckyfast.export import export_onnx
from luckyfast.inference import MODEL_FORMAT, MODEL_FORMAT_VERSION
from luckyfast.models.cores import set_cores
from luckyfast.report import write_report
from luckyfast.search import jobs
from luckyfast.search.clock import MEASURING, READING_S
from luckyfast.search.trial import count_visits, load_trial
from luckyfast.training import refit
from luckyfast.windows import Split, split_by_time

__all__ = ["finish_model", "measure_baselines"]

WRITING_S = 2.5
"""Seconds for the explorer, the export and the report."""


def measure_baselines(dataset_path: str) -> dict[str, Any]:
    """Fit and measure every baseline on the test.

    Returns:
        ``systems``, a result each as JSON-able values; ``habit_valid_hit1``, hit@1 of decayed personal frequency on
        validation, for comparison while a search runs.
    """
    data = Dataset.open(dataset_path)
    split = split_by_time(data)
    jobs.listener.start("Measuring baselines", len(BASELINES), "baselines")
    systems, habit = [], None
    for kind in BASELINES:
        baseline, calibration = fit_baseline(kind, data, split)
        systems.append(evaluate(baseline, data, split, calibration).to_dict())
        if kind is DecayedFrequency:
            early = baseline.fit(data, split, before=split.valid_start)
            habit = evaluate(early, data, split, calibration, part="valid").figures["hit@1"].value
        jobs.listener.advance(1)
    jobs.listener.finish()
    return {"systems": systems, "habit_valid_hit1": habit}


def finish_model(
    dataset_path: str,
    split_values: list[int],
    trial_folder: str,
    work_folder: str,
    baselines: list[dict[str, Any]],
    about: dict[str, Any],
    threads: int,
    device: str,
    checkpoint: str,
    deadline: float | None,
) -> None:
    """Calibrate, refit on everything before the test, measure, and write the model folder.

    The refit gets the time that measuring and writing leave of the deadline, told from how long calibration took; with
    none left the model stays as validation chose it. Ctrl-C ends the refit where it is, or before it begins.

    Args:
        dataset_path, split_values: what was trained on, and how it was split.
        trial_folder: weights that a trial left.
        work_folder: an existing folder to write into.
        baselines: results to stand beside the model's.
        about: further content of ``config.json``.
        threads: cores to use; the process keeps that number.
        device: of torch, for the refit.
        checkpoint: file to keep the refit in; it is left there.
        deadline: time of the machine's monotonic clock by which all must be written; None for no bound.
    """
    began = time.monotonic()
    steps: dict[str, float] = {}
    ctrl_c = _CtrlC()  # once means: finish with the best so far, and that is what is done here
    listener, work = jobs.listener, Path(work_folder)
    data, split = Dataset.open(dataset_path), Split(*split_values)
    blind, curve = load_trial(Path(trial_folder))

    set_cores(threads)  # also for what follows the refit: its time is told from how long calibration takes
    listener.start("Calibrating", 1, "steps")
    # What is loaded once shall not be counted for what follows.
    calibrate(blind, data.sample(0.01), split, earlier=True)
    loading_s = time.monotonic() - began
    # Honest only with a model that has not trained on the validation visits.
    calibration = calibrate(blind, data, split, earlier=True)
    steps |= {"load": loading_s, "calibrate": time.monotonic() - began - loading_s}
    n = count_visits(data, split)
    measuring_s = MEASURING * steps["calibrate"] * n["test"] / max(n_calibrated(data.n_actions, n["valid"]), 1)
    rest_s = measuring_s + WRITING_S + READING_S * data.n_visits
    left_s = None if deadline is None else deadline - time.monotonic() - rest_s
    trained = blind
    if left_s is None or left_s > 0.5:
        try:
            ctrl_c.let_through()
            trained = refit(
                blind,
                data,
                split,
                threads=threads,
                device=device,
                checkpoint=Path(checkpoint),
                progress=listener,
                **_bounded(left_s),
            )
        except KeyboardInterrupt:  # before the refit began, or when it had just ended
            trained = replace(blind, interrupted=True)
        finally:
            ctrl_c.hold_back()
    steps["refit"] = time.monotonic() - began - sum(steps.values())

    listener.start("Measuring", 1, "steps")
    result = evaluate(trained, data, split, calibration, offers=True)
    steps["measure"] = time.monotonic() - began - sum(steps.values())

    listener.start("Writing the model", 3, "files")
    best = min(curve, key=lambda epoch: epoch["valid_loss"] or math.inf, default=None)
    config = {
        "format": MODEL_FORMAT,
        "format_version": MODEL_FORMAT_VERSION,
        "luckyfast_version": __version__,
        "arch": trained.config.arch,
        "habit": trained.config.habit,
        "seed": trained.config.seed,
        **trained.save(work),
        "best_epoch": best and best["epoch"],
        "split": asdict(split),
        "calibration": calibration.to_dict(),
        "dataset": _about(data),
        "refit": {"passes": round(trained.refit_passes, 3), "of": trained.config.refit_epochs},
        "seconds": {name: round(seconds, 2) for name, seconds in steps.items()},
        **about,
        "interrupted": trained.interrupted or about.get("interrupted", False),
    }
    config["elapsed_s"] = round(about.get("elapsed_s", 0.0) + time.monotonic() - began, 2)
    write_json(work / "config.json", config)
    write_json(work / "metrics.json", {"systems": [result.to_dict(), *baselines]})
    write_json(work / "reliability.json", {"bins": [asdict(entry) for entry in result.reliability]})
    write_lines(work / "curve.jsonl", curve)
    shutil.copyfile(data.path / "vocabulary.parquet", work / "vocabulary.parquet")
    write_explorer(work / "explorer.json", trained, calibration, data, split)
    listener.advance(1)
    export_onnx(trained, calibration, work / "model.onnx", vocabulary=data.vocabulary)
    listener.advance(1)
    write_report(work)
    listener.finish()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one JSON object for people and machines."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


class _CtrlC:
    """Holds Ctrl-C back until it may end something; in a job's own process, and not in a thread of another."""

    def __init__(self) -> None:
        self._through = self._heard = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._hear)

    def let_through(self) -> None:
        """From now on it raises KeyboardInterrupt; at once, where it came before."""
        self._through = True
        if self._heard:
            raise KeyboardInterrupt

    def hold_back(self) -> None:
        """From now on it does nothing."""
        self._through = False

    def _hear(self, number: int, frame: object) -> None:
        self._heard = True
        if self._through:
            raise KeyboardInterrupt


def _bounded(left_s: float | None) -> dict[str, Any]:
    # A refit stops between two batches, and a batch may take a while.
    return {} if left_s is None else {"budget_s": 0.95 * left_s}


def _about(data: Dataset) -> dict[str, Any]:
    names = ("counts", "rejects_by_reason", "filtered_by_rule", "other_actions", "time", "roles", "order_leak")
    return {"path": str(data.path.resolve()), **{name: data.manifest.get(name) for name in names}}
