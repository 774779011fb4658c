"""Commands about models: fit, trials, predict, evaluate."""

from __future__ import annotations

import argparse
from inspect import signature
from pathlib import Path
from typing import Any

from luckyfast.commands.shared import add_command, recall, remember
from luckyfast.errors import ModelError

__all__ = ["add_evaluate", "add_fit", "add_predict", "add_trials"]


def add_fit(commands: Any) -> None:
    """Add ``luckyfast fit``."""
    parser = add_command(
        commands,
        "fit",
        _run_fit,
        "Train a network on a dataset, calibrate it, and measure it beside every baseline.",
        "examples:\n"
        "  luckyfast fit receipts/ --arch lstm-embed --budget 20m\n"
        "  luckyfast fit receipts/ --budget 8h --memory 8GB --resume    go on after whatever ended the last run\n"
        "  luckyfast fit --arch mlp --no-habit --out plain-mlp/",
    )
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="default: the one last written from here")
    parser.add_argument("--arch", choices=("mlp", "lstm", "lstm-embed"), default="lstm-embed", help="(lstm-embed)")
    parser.add_argument("--budget", metavar="TIME", help="wall time of the whole command: 90s, 20m, 8h, 2d")
    parser.add_argument("--memory", metavar="SIZE", help="bound on peak memory (default: most of what is free)")
    parser.add_argument("--out", metavar="MODEL", help="folder of the model to write (default: model-ARCH)")
    parser.add_argument("--overwrite", action="store_true", help="replace MODEL if it is a model")
    parser.add_argument(
        "--no-habit", dest="habit", action="store_false", help="the plain network: no habits, no cadence"
    )
    parser.add_argument(
        "--no-features", dest="features", action="store_false", help="leave the dataset's side columns out"
    )
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all of this process)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train (auto: on a GPU, if any)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier run left")
    search = parser.add_argument_group("search of hyperparameters")
    search.add_argument(
        "--search", choices=("none", "hyperband", "bayes"), help="(hyperband where --budget leaves time for it)"
    )
    search.add_argument("--trials", type=int, metavar="N", help="try N configurations; with a seed it repeats itself")
    search.add_argument("--patience", type=int, metavar="N", help="end after N configurations without a better one")
    search.add_argument("--space", metavar="FILE", help="TOML with the settings to search")
    search.add_argument("--warm-start", metavar="MODEL", help="try the best configurations of an earlier search first")
    search.add_argument(
        "--optimizer",
        metavar="NAME",
        help="in Nevergrad's registry; A+B take turns (DiscreteOnePlusOne+GaussianProcess)",
    )
    network = parser.add_argument_group("settings (good defaults when not given)")
    network.add_argument("--hidden", type=int, metavar="N", help="units of the network")
    network.add_argument("--embedding", type=int, metavar="N", help="size of an action's embedding")
    network.add_argument("--dropout", type=float, metavar="SHARE")
    network.add_argument("--learning-rate", type=float, metavar="RATE")
    network.add_argument("--epochs", type=int, metavar="N", help="most passes over the training visits")
    network.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="any other setting, such as layers=2 or schedule=linear; may be given again",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _setting(text: str) -> tuple[str, Any]:
    """A setting's name and its value, which is a number or a list as TOML has them, or else a word."""
    import tomllib

    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    try:
        return name.strip().replace("-", "_"), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip().replace("-", "_"), value.strip()


def _run_fit(options: argparse.Namespace) -> int:
    from luckyfast.fitting import fit
    from luckyfast.summary import print_metrics
    from luckyfast.terminal import make_progress
    from luckyfast.trial_display import make_search_display

    dataset = options.dataset or recall("dataset", "luckyfast fit DATASET")
    tuned = ("hidden", "embedding", "dropout", "learning_rate", "epochs")
    settings = dict(options.set)
    for name in settings:
        if name in tuned or name in signature(fit).parameters:
            raise ModelError(f"{name} is no setting for --set", hint="see luckyfast fit --help for its own flag")
    settings |= {name: value for name in tuned if (value := getattr(options, name)) is not None}
    model = fit(
        dataset,
        arch=options.arch,
        budget=options.budget,
        memory=options.memory,
        search=options.search,
        out=options.out,
        overwrite=options.overwrite,
        resume=options.resume,
        trials=options.trials,
        patience=options.patience,
        space=options.space,
        warm_start=options.warm_start,
        optimizer=options.optimizer,
        habit=options.habit,
        features=options.features,
        seed=options.seed,
        threads=options.threads,
        device=options.device,
        callbacks=make_search_display(quiet=options.quiet),
        progress=make_progress(quiet=options.quiet),
        **settings,
    )
    remember("model", model.path)
    print_metrics(model.metrics, model.path, as_json=options.json)
    return 0


def add_trials(commands: Any) -> None:
    """Add ``luckyfast trials``."""
    parser = add_command(
        commands,
        "trials",
        _run_trials,
        "Show what a search has tried: trials, the best of them, and which settings mattered.",
        "examples:\n"
        "  luckyfast trials model-lstm-embed/\n"
        "  luckyfast trials model-lstm-embed.search/             a search that still runs, or waits to be resumed\n"
        "  luckyfast trials model-lstm-embed/ --out trials.csv",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: the one last written from here")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many to print (10)")
    parser.add_argument("--out", metavar="FILE", help="write all of them: .parquet, .csv or .jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print all of them as JSON")


def _run_trials(options: argparse.Namespace) -> int:
    from luckyfast.search.results import read_results, write_results
    from luckyfast.summary import print_trials

    model = options.model or recall("model", "luckyfast trials MODEL")
    results = read_results(Path(model))
    if options.out is not None:
        write_results(results, Path(options.out), overwrite=options.overwrite)
    print_trials(results, model, top=options.top, as_json=options.json, out=options.out)
    return 0


def add_predict(commands: Any) -> None:
    """Add ``luckyfast predict``."""
    parser = add_command(
        commands,
        "predict",
        _run_predict,
        "Write calibrated next-visit chances for every customer.",
        "examples:\n"
        "  luckyfast predict model-lstm-embed/ --top 5 --out offers.csv\n"
        "  luckyfast predict model-lstm-embed/ receipts/ --at 2017-12-01 --out chances.parquet",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: the one last written from here")
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="default: the one the model was trained on")
    parser.add_argument("--at", metavar="TIME", help="ISO 8601 (default: the end of the log, or the next visit)")
    parser.add_argument(
        "--top", type=int, metavar="K", help="only K actions per customer: the likeliest, then the most probable next"
    )
    parser.add_argument("--out", metavar="FILE", help=".parquet, .csv or .jsonl (default: MODEL/predictions.parquet)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _run_predict(options: argparse.Namespace) -> int:
    from luckyfast.prediction import predict
    from luckyfast.summary import print_predict_summary
    from luckyfast.terminal import make_progress

    summary = predict(
        options.model or recall("model", "luckyfast predict MODEL"),
        options.dataset,
        at=options.at,
        top=options.top,
        out=options.out,
        overwrite=options.overwrite,
        progress=make_progress(quiet=options.quiet),
    )
    print_predict_summary(summary, as_json=options.json)
    return 0


def add_evaluate(commands: Any) -> None:
    """Add ``luckyfast evaluate``."""
    parser = add_command(
        commands,
        "evaluate",
        _run_evaluate,
        "Measure models and anybody's predictions beside every baseline, on the same test visits.",
        "examples:\n"
        "  luckyfast evaluate receipts/ --targets targets.parquet\n"
        "  luckyfast evaluate receipts/ --predictions mine.parquet --model model-lstm-embed/\n"
        "\n"
        "A file of predictions is Parquet with one row per visit and action, in any order:\n"
        "  customer\n"
        "  visit or time   visit: the key that --targets wrote, or the visit's own id as text\n"
        "  action          its name; actions that are not named rank last\n"
        "  score, probability or chance\n"
        "                  any number; of being the next action; of being in the next visit\n"
        "or with one row per visit: customer, visit or time, and a list 'actions', best first, with a list of\n"
        "scores, probabilities or chances beside it if you have them, in a column of one of these three names.\n"
        "Actions are ranked by these numbers, or as the list has them.\n"
        "Test visits without a prediction count as misses. Where the file covers visits of the part 'valid' too,\n"
        "its probabilities are calibrated on them, as luckyfast's own are.",
    )
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="default: the one last written from here")
    parser.add_argument(
        "--predictions", action="append", default=[], metavar="FILE", help="Parquet file; may be repeated"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help="folder that luckyfast fit wrote; may be repeated"
    )
    parser.add_argument("--targets", metavar="FILE", help="only write which visits are to be predicted (.parquet)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of targets if it exists")
    parser.add_argument("--no-baselines", dest="baselines", action="store_false", help="leave the baselines out")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _run_evaluate(options: argparse.Namespace) -> int:
    from luckyfast.comparison import evaluate, write_targets
    from luckyfast.summary import print_comparison, print_targets
    from luckyfast.terminal import make_progress

    dataset = options.dataset or recall("dataset", "luckyfast evaluate DATASET")
    if options.targets is not None:
        n_visits = write_targets(dataset, options.targets, models=options.model, overwrite=options.overwrite)
        print_targets(options.targets, n_visits, as_json=options.json)
        return 0
    comparison = evaluate(
        dataset,
        predictions=options.predictions,
        models=options.model,
        baselines=options.baselines,
        progress=make_progress(quiet=options.quiet),
    )
    print_comparison(comparison, as_json=options.json)
    return 0
