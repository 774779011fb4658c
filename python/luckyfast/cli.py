"""The command line: reads flags, calls the library, and is the only place that prints.

Standard output carries results; progress, notes and errors go to standard error. Exit codes: 0 done, 1 a defect or
a failure of the machine, 2 something the user can mend, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from luckyfast import __version__
from luckyfast.errors import LuckyfastError, ModelError, SchemaError, UserError

__all__ = ["main"]

_EPILOG = """\
examples:
  luckyfast ingest raw/ receipts/                       dirty logs -> sorted histories
  luckyfast inspect raw/                                what ingest would do
  luckyfast fit receipts/ --arch lstm-embed --budget 20m
  luckyfast predict model-lstm-embed/ --top 5
  luckyfast demo                                        all of it on real receipts

exit codes: 0 done, 1 failure, 2 something you can mend, 130 stopped by Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``luckyfast``; those of this process if None.

    Returns:
        The exit code.
    """
    with _signals():
        code = _run(_parser().parse_args(arguments))
    if arguments is None and threading.current_thread() is threading.main_thread():
        # All is said and done: a signal while the interpreter ends changes nothing about it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return code


def _run(options: argparse.Namespace) -> int:
    """Run one command; whatever goes wrong becomes a sentence and an exit code."""
    from luckyfast.terminal import print_error

    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except UserError as error:
        print_error(error.message, error.hint)
        return 2
    except LuckyfastError as error:
        print_error(str(error), "this is a defect of luckyfast: please report it with the command you ran")
        return 1
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, _Terminated)
        print_error("stopped by SIGTERM" if is_terminated else "stopped by Ctrl-C", str(error) or None)
        return 143 if is_terminated else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{error.strerror or error}", "check the path, its permissions and the free disk space")
        return 1


class _Terminated(KeyboardInterrupt):
    """SIGTERM, handled as Ctrl-C is."""


@contextmanager
def _signals() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the command in order, and a second one at once."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        code = 128 + number
        if seen:
            os.write(2, b"\nerror: stopped at once, before everything was put in order\n")
            os._exit(code)
        if _is_loading(frame):
            send_again(number)
            return
        seen = True
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def send_again(number: int) -> None:
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def hear(unraisable: sys.UnraisableHookArgs) -> None:
        nonlocal seen
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        # It came up in a callback of the compiler, which cannot pass it on: the signal is sent again a little later.
        seen = False
        send_again(signal.SIGTERM if issubclass(unraisable.exc_type, _Terminated) else signal.SIGINT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, hear
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_loading(frame: FrameType | None) -> bool:
    """Whether a module or a compiled kernel is being loaded: native code that an exception may leave half done."""
    while frame is not None:
        if "importlib" in frame.f_code.co_filename or "llvmlite" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="luckyfast",
        description="From raw purchase logs larger than memory to a calibrated next-action predictor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"luckyfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_ingest,
        _add_inspect,
        _add_rejects,
        _add_fit,
        _add_trials,
        _add_predict,
        _add_evaluate,
        _add_bench,
        _add_demo,
    ):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


# ---- ingest ---------------------------------------------------------------------------------------------------------


def _add_ingest(commands: Any) -> None:
    parser = _command(
        commands,
        "ingest",
        _run_ingest,
        "Turn raw logs into a dataset of sorted histories.",
        "examples:\n"
        "  luckyfast ingest raw/ out/\n"
        "  luckyfast ingest 'logs/*.csv.gz' out/ --lookup products.csv --on product_id --action product_category\n"
        "  luckyfast ingest clicks.tsv out/ --customer user --time ts --action page --memory 1GB",
    )
    parser.add_argument("raw", nargs="+", metavar="RAW", help="files, folders or globs; plain, gzip, zstd, bz2 or zip")
    parser.add_argument("out", metavar="OUT", help="folder of the dataset to write; must not exist, or see --append")
    parser.add_argument("--append", action="store_true", help="add the files to the dataset OUT, read as it was")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted, if there is one")
    _add_reading(parser)
    limits = parser.add_argument_group("limits")
    limits.add_argument("--memory", metavar="SIZE", help="bound on peak memory (default: half of what is free)")
    limits.add_argument("--workers", type=int, metavar="N", help="parallel workers (default: the cores)")
    limits.add_argument("--temp", metavar="DIR", help="folder for spilled runs (default: beside OUT)")
    limits.add_argument(
        "--max-reject", type=float, default=0.05, metavar="SHARE", help="stop above this share of rejects (0.05)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    roles = parser.add_argument_group("roles (inferred when not given; several columns joined by commas)")
    roles.add_argument("--customer", type=_columns, metavar="COLUMN", help="who acts")
    roles.add_argument("--time", type=_columns, metavar="COLUMN", help="when")
    roles.add_argument("--action", type=_columns, metavar="COLUMN", help="what is done: the class to predict")
    roles.add_argument("--visit", type=_columns, metavar="COLUMN", help="basket, ticket or session id")
    roles.add_argument("--lookup", metavar="FILE", help="table that holds the action, such as products.csv")
    roles.add_argument("--on", metavar="COLUMN", help="column shared by the logs and the lookup table")
    roles.add_argument(
        "--feature",
        type=_columns,
        action="extend",
        metavar="COLUMN[:KIND]",
        help="side columns for the models to use, of kind number or category (found when not given)",
    )
    roles.add_argument("--schema", metavar="FILE", help="a schema.toml that an earlier run wrote")
    form = parser.add_argument_group("format (inferred when not given)")
    form.add_argument("--columns", type=_columns, metavar="NAMES", help="column names of files without a header")
    form.add_argument(
        "--filename-pattern", metavar="REGEX", help="what of a path a role named filename takes: 'client_(\\d+)'"
    )
    form.add_argument("--delimiter", metavar="CHAR", help="one character, or tab")
    form.add_argument("--quote", metavar="CHAR", help='one character, or none when " is data')
    form.add_argument("--encoding", metavar="NAME", help="text encoding of the files: cp1252, utf-16, ...")
    form.add_argument(
        "--time-format", metavar="FORMAT", help="iso, epoch-s, epoch-ms, ymd, dmy, mdy, named, order, gaps"
    )
    form.add_argument(
        "--null",
        action="append",
        metavar="COLUMN=LITERAL",
        help="text that means no value in a column; may be repeated",
    )
    rules = parser.add_argument_group("cleaning by rule (each counted; nothing is left out unasked)")
    rules.add_argument(
        "--where", action="append", metavar="RULE", help="rows to keep: 'quantity > 0 and store != online'; repeatable"
    )
    rules.add_argument("--since", metavar="TIME", help="keep rows from this moment on")
    rules.add_argument("--until", metavar="TIME", help="keep rows before this moment")
    rules.add_argument(
        "--drop-duplicates", action="store_true", default=None, help="keep one of equal raw rows in a visit"
    )
    rules.add_argument("--min-visits", type=int, metavar="N", help="leave out customers with fewer visits")
    rules.add_argument("--top-actions", type=int, metavar="N", help="the N most frequent; the rest become <other>")


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    names = ("customer", "time", "action", "visit", "lookup", "on", "delimiter", "quote", "encoding", "columns", "null")
    more = (
        "feature",
        "filename_pattern",
        "time_format",
        "schema",
        "where",
        "since",
        "until",
        "drop_duplicates",
        "min_visits",
        "top_actions",
    )
    return {name: getattr(options, name) for name in (*names, *more)}


def _run_ingest(options: argparse.Namespace) -> int:
    from luckyfast.ingest_report import print_ingest_summary
    from luckyfast.ingestion import ingest
    from luckyfast.terminal import make_progress

    summary = ingest(
        options.raw,
        options.out,
        **_reading(options),
        memory=options.memory,
        workers=options.workers,
        temp=options.temp,
        max_reject=options.max_reject,
        append=options.append,
        resume=options.resume,
        progress=make_progress(quiet=options.quiet),
    )
    _remember("dataset", options.out)
    print_ingest_summary(summary, as_json=options.json)
    return 0


# ---- inspect --------------------------------------------------------------------------------------------------------


def _add_inspect(commands: Any) -> None:
    parser = _command(
        commands,
        "inspect",
        _run_inspect,
        "Say what ingest would do with raw logs, or what a dataset holds.",
        "examples:\n"
        "  luckyfast inspect raw/ --where 'quantity > 0'         a sample is read, nothing is written\n"
        "  luckyfast inspect receipts/                           what the dataset holds and was made of",
    )
    parser.add_argument("path", nargs="+", metavar="RAW|DATASET", help="files, folders or globs of logs, or a dataset")
    _add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _run_inspect(options: argparse.Namespace) -> int:
    from luckyfast.ingest_report import print_dataset_inspection, print_raw_columns, print_raw_inspection
    from luckyfast.inspection import inspect_columns, inspect_dataset, inspect_raw, is_dataset

    if len(options.path) == 1 and is_dataset(options.path[0]):
        print_dataset_inspection(inspect_dataset(options.path[0]), as_json=options.json)
        return 0
    settings = _reading(options)
    try:
        print_raw_inspection(inspect_raw(options.path, **settings), as_json=options.json)
    except SchemaError:
        # roles that cannot be told: show what there is to choose from, then say so
        if not options.json:
            form = {name: settings[name] for name in ("delimiter", "quote", "encoding", "columns")}
            with suppress(UserError):
                print_raw_columns(inspect_columns(options.path, **form))
        raise
    return 0


# ---- rejects --------------------------------------------------------------------------------------------------------


def _add_rejects(commands: Any) -> None:
    parser = _command(
        commands,
        "rejects",
        _run_rejects,
        "List the rejected rows of a dataset by reason, or write them to a file to be mended.",
        "examples:\n"
        "  luckyfast rejects receipts/\n"
        "  luckyfast rejects receipts/ --reason bad_time --out mended.csv\n"
        "  luckyfast ingest mended.csv receipts/ --append        after mending",
    )
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="default: the one last written from here")
    parser.add_argument("--reason", action="append", default=[], metavar="REASON", help="only these; repeatable")
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="rows to show of each reason (3)")
    parser.add_argument("--out", metavar="FILE", help="write the raw rows below their header to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _run_rejects(options: argparse.Namespace) -> int:
    from luckyfast.ingest_report import print_exported_rejects, print_reject_list
    from luckyfast.ingestion.mending import export_rejects, list_rejects

    dataset = options.dataset or _recall("dataset", "luckyfast rejects DATASET")
    if options.out is None:
        found = list_rejects(dataset, reasons=options.reason, examples=options.examples)
        print_reject_list(found, as_json=options.json)
    else:
        files = export_rejects(dataset, options.out, reasons=options.reason, overwrite=options.overwrite)
        print_exported_rejects(files, dataset, as_json=options.json)
    return 0


# ---- fit ------------------------------------------------------------------------------------------------------------


def _add_fit(commands: Any) -> None:
    parser = _command(
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
    parser.add_argument("--overwrite", action="store_true", help="replace MODEL if it exists")
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

    dataset = options.dataset or _recall("dataset", "luckyfast fit DATASET")
    tuned = ("hidden", "embedding", "dropout", "learning_rate", "epochs")
    settings = dict(options.set)
    for name in ("arch", "habit", "features", "seed", *tuned):
        if name in settings:
            raise ModelError(
                f"{name} cannot be given by --set", hint=f"see luckyfast fit --help for the flag of {name}"
            )
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
    _remember("model", model.path)
    print_metrics(model.metrics, model.path, as_json=options.json)
    return 0


# ---- trials ---------------------------------------------------------------------------------------------------------


def _add_trials(commands: Any) -> None:
    parser = _command(
        commands,
        "trials",
        _run_trials,
        "Show what a search has tried: trials, the best of them, and which settings mattered.",
        "examples:\n"
        "  luckyfast trials model-lstm-embed/\n"
        "  luckyfast trials model-lstm-embed.search/             a search that still runs, or waits to be resumed\n"
        "  luckyfast trials model-lstm-embed/ --out trials.csv",
    )
    parser.add_argument("model", metavar="MODEL", help="folder that luckyfast fit wrote")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many to print (10)")
    parser.add_argument("--out", metavar="FILE", help="write all of them: .parquet, .csv or .jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print all of them as JSON")


def _run_trials(options: argparse.Namespace) -> int:
    from luckyfast.search.results import read_results, write_results
    from luckyfast.summary import print_trials

    results = read_results(Path(options.model))
    if options.out is not None:
        write_results(results, Path(options.out), overwrite=options.overwrite)
    print_trials(results, options.model, top=options.top, as_json=options.json, out=options.out)
    return 0


# ---- predict --------------------------------------------------------------------------------------------------------


def _add_predict(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        _run_predict,
        "Write calibrated next-visit chances for every customer.",
        "examples:\n"
        "  luckyfast predict model-lstm-embed/ --top 5 --out offers.csv\n"
        "  luckyfast predict model-lstm-embed/ receipts/ --at 2017-12-01 --out chances.parquet",
    )
    parser.add_argument("model", metavar="MODEL", help="folder that luckyfast fit wrote")
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="default: the one the model was trained on")
    parser.add_argument("--at", metavar="TIME", help="prediction moment, ISO 8601 (default: the end of the log)")
    parser.add_argument("--top", type=int, metavar="K", help="only the K most probable actions of each customer")
    parser.add_argument("--out", metavar="FILE", help=".parquet, .csv or .jsonl (default: MODEL/predictions.parquet)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _run_predict(options: argparse.Namespace) -> int:
    from luckyfast.prediction import predict
    from luckyfast.summary import print_predict_summary
    from luckyfast.terminal import make_progress

    summary = predict(
        options.model,
        options.dataset,
        at=options.at,
        top=options.top,
        out=options.out,
        overwrite=options.overwrite,
        progress=make_progress(quiet=options.quiet),
    )
    print_predict_summary(summary, as_json=options.json)
    return 0


# ---- evaluate -------------------------------------------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    parser = _command(
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

    dataset = options.dataset or _recall("dataset", "luckyfast evaluate DATASET")
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


# ---- bench ----------------------------------------------------------------------------------------------------------


def _add_bench(commands: Any) -> None:
    parser = _command(
        commands,
        "bench",
        _run_bench,
        "Measure luckyfast beside its peers: time, CPU, peak memory of the process tree, checksum.",
        "examples:\n  luckyfast bench --quick\n  luckyfast bench ingest --runs 5 --systems luckyfast,polars",
    )
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="ingest, scan, parse, jsonlines, gzip, training, quality, search (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="small inputs: under 3 minutes")
    parser.add_argument("--systems", type=_columns, metavar="NAMES", help="only these systems")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each system (default: 3, quick: 1)")
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="size of the ingest log, times 208 MB (1)")
    parser.add_argument("--memory", metavar="SIZE", help="limit for the systems that take one")
    parser.add_argument("--out", metavar="DIR", default=".bench", help="folder for results and inputs (.bench)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _run_bench(options: argparse.Namespace) -> int:
    from luckyfast.bench.runner import run_bench
    from luckyfast.config import parse_size
    from luckyfast.summary import print_bench_report
    from luckyfast.terminal import make_progress

    report = run_bench(
        options.tasks,
        quick=options.quick,
        systems=options.systems,
        runs=options.runs,
        scale=options.scale,
        memory_bytes=None if options.memory is None else parse_size(options.memory),
        out=Path(options.out),
        progress=make_progress(quiet=options.quiet),
    )
    return print_bench_report(report, as_json=options.json)


# ---- demo -----------------------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _run_demo,
        "Real receipts from dirty raw logs to predictions and a report, in about three minutes.",
        "example:\n  luckyfast demo --out demo/",
    )
    parser.add_argument("--out", metavar="DIR", default="demo", help="folder to write; its demo files are replaced")
    parser.add_argument("--budget", metavar="TIME", default="3m", help="time for fit (3m)")
    parser.add_argument("--seed", type=int, default=0, help="of the dirt and of the training (0)")


def _run_demo(options: argparse.Namespace) -> int:
    from luckyfast.demo import run_demo
    from luckyfast.summary import print_demo_summary
    from luckyfast.terminal import make_progress

    summary = run_demo(
        options.out, budget=options.budget, seed=options.seed, progress=make_progress(quiet=options.quiet)
    )
    _remember("dataset", summary.dataset)
    _remember("model", summary.model.path)
    return print_demo_summary(summary)


# ---- what was last written from this folder -------------------------------------------------------------------------

_MEMORY = Path(".luckyfast") / "last.json"


def _remember(kind: str, path: str | Path) -> None:
    known = _known()
    known[kind] = str(Path(path).resolve())
    try:
        _MEMORY.parent.mkdir(exist_ok=True)
        _MEMORY.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except OSError:
        return  # a folder that cannot be written costs the convenience, not the run


def _recall(kind: str, command: str) -> str:
    known = _known()
    if kind not in known:
        raise UserError(f"no {kind} was given, and none was written from this folder yet", hint=f"name it: {command}")
    print(f"using the {kind} last written from here: {known[kind]}", file=sys.stderr)
    return known[kind]


def _known() -> dict[str, str]:
    try:
        known = json.loads(_MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(kind): str(path) for kind, path in known.items()} if isinstance(known, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
