"""Commands that read raw logs: ingest, inspect, rejects."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from luckyfast.commands.shared import add_command, comma_separated, recall, remember
from luckyfast.errors import SchemaError, UserError

__all__ = ["add_ingest", "add_inspect", "add_rejects"]


def add_ingest(commands: Any) -> None:
    """Add ``luckyfast ingest``."""
    parser = add_command(
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
    roles.add_argument("--customer", metavar="COLUMN", help="who acts")
    roles.add_argument("--time", metavar="COLUMN", help="when")
    roles.add_argument("--action", metavar="COLUMN", help="what is done: the class to predict")
    roles.add_argument("--visit", metavar="COLUMN", help="basket, ticket or session id")
    roles.add_argument("--lookup", metavar="FILE", help="table that holds the action, such as products.csv")
    roles.add_argument("--on", metavar="COLUMN", help="column shared by the logs and the lookup table")
    roles.add_argument(
        "--feature",
        type=comma_separated,
        action="extend",
        metavar="COLUMN[:KIND]",
        help="side columns for the models to use, of kind number or category (found when not given)",
    )
    roles.add_argument("--schema", metavar="FILE", help="a schema.toml that an earlier run wrote")
    form = parser.add_argument_group("format (inferred when not given)")
    form.add_argument("--columns", type=comma_separated, metavar="NAMES", help="column names of files without a header")
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
    remember("dataset", options.out)
    print_ingest_summary(summary, as_json=options.json)
    return 0


def add_inspect(commands: Any) -> None:
    """Add ``luckyfast inspect``."""
    parser = add_command(
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


def add_rejects(commands: Any) -> None:
    """Add ``luckyfast rejects``."""
    parser = add_command(
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

    dataset = options.dataset or recall("dataset", "luckyfast rejects DATASET")
    if options.out is None:
        found = list_rejects(dataset, reasons=options.reason, examples=options.examples)
        print_reject_list(found, as_json=options.json)
    else:
        files = export_rejects(dataset, options.out, reasons=options.reason, overwrite=options.overwrite)
        print_exported_rejects(files, dataset, as_json=options.json)
    return 0
