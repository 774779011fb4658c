"""Raw logs in, a dataset folder out: everything from the first byte to the manifest.

In the order of the data: encodings, foreign, sources, sampling, records, dialect, jsonlines, filenames, layout, times,
roles, lookup, choosing, nulls and planning decide from samples (`plan` holds the decision, `schema` writes and reads
it); run and the modules it drives carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luckyfast.ingestion.planning import make_plan

if TYPE_CHECKING:
    from luckyfast.ingestion.run import IngestSummary
    from luckyfast.progress import Progress

__all__ = ["ingest", "make_plan"]


def ingest(
    raw: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    customer: str | Sequence[str] | None = None,
    time: str | Sequence[str] | None = None,
    action: str | Sequence[str] | None = None,
    visit: str | Sequence[str] | None = None,
    lookup: str | Path | None = None,
    on: str | None = None,
    feature: str | Sequence[str] | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    encoding: str | None = None,
    columns: str | Sequence[str] | None = None,
    filename_pattern: str | None = None,
    null: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    time_format: str | None = None,
    where: str | Sequence[str] | None = None,
    since: str | int | None = None,
    until: str | int | None = None,
    drop_duplicates: bool | None = None,
    min_visits: int | None = None,
    top_actions: int | None = None,
    memory: str | int | None = None,
    workers: int | None = None,
    temp: str | Path | None = None,
    max_reject: float = 0.05,
    schema: str | Path | None = None,
    append: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    """Turn raw purchase logs into a dataset of histories sorted by customer and time.

    Whatever is not given is found from samples of the files; what cannot be told apart is an error that names the
    candidates. A role is one column, or several as a sequence or joined by commas.

    Args:
        raw: files, folders or globs of delimited text or JSON lines, plain or compressed by gzip, zstd, bz2 or zip.
        out: the dataset folder to write; it must not exist, except with `append`.
        customer: who acts.
        time: when.
        action: what is done, the class to predict; with `lookup` a column of that table.
        visit: basket, ticket or session id; "none" makes all rows of one customer with one time a visit.
        lookup: a CSV, TSV or Parquet table that holds the action of each product, or features, of customers say.
        on: the column shared by the logs and the lookup table.
        feature: side columns to keep for the models, of the logs or the lookup table: "price,store_id". What a column
            holds is found from its values, or said: "store_id:category", "price:number". At a visit a number is the sum
            of its rows and their number, a category the most frequent one. What cannot be read is counted as no value.
        delimiter: one byte, or tab, comma, semicolon, pipe.
        quote: one byte, or none where quotes are data.
        encoding: of the text, any that Python knows; what cannot be decoded is rejected row by row.
        columns: the column names of files without a header.
        filename_pattern: for a role that is "filename", the regular expression whose first group is the value; the
            file's name without its endings if None.
        null: texts COLUMN=LITERAL that mean "no value" besides the empty field, instead of what is found there.
        time_format: iso, ymd, dmy, mdy, named (months in letters), order, gaps (a number in order and the days since
            the one before), epoch-s, epoch-ms, epoch-us or epoch-ns.
        where: rows to keep, such as "quantity > 0 and store != 'online'"; of several, each is counted by itself. It is
            looked at before the roles are, so a row that is left out is never a reject for their sake.
        since: keep rows from this moment on.
        until: keep rows before this moment.
        drop_duplicates: of equal raw rows in a visit keep one.
        min_visits: leave out customers with fewer visits.
        top_actions: give names to so many of the most frequent actions; the others become `<other>`. They are chosen
            from the whole log.
        memory: bound on peak memory, such as "512MB"; half of what the process may use if None.
        workers: parallel workers; the cores of this process if None.
        temp: folder for spilled runs; beside `out` if None.
        max_reject: stop when more than this share of the rows is rejected.
        schema: a schema.toml that an earlier run wrote; arguments given here win over it.
        append: add the files to the dataset `out`, with its roles and rules, as if all had been read at once; visits
            that go on in the new files become one.
        resume: go on with a run that was interrupted, if there is one.
        progress: told how far the work is.

    Returns:
        What was read, kept and rejected, and why.

    Raises:
        InputError: a file is missing, unreadable or no delimited text, or too many rows are rejected.
        SchemaError: roles, times or arguments that do not fit or cannot be told apart.
        OutputExistsError: `out` exists, or an interrupted run is in the way.
        DatasetError: with `append` or `resume`, what is there cannot be gone on with.
        BudgetError: the work cannot be done in `memory`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "client;date;rayon;ticket\\n7;2024-05-01;FROMAGE;1\\n7;2024-05-02;PAIN;2\\n"
        >>> _ = (folder / "log.csv").write_text(rows)
        >>> summary = ingest(folder / "log.csv", folder / "dataset", workers=1)
        >>> summary.counts["events"], summary.counts["visits"]
        (2, 2)
    """
    from luckyfast.ingestion.run import run_plan
    from luckyfast.progress import NullProgress

    plan = make_plan(
        raw,
        out,
        customer=customer,
        time=time,
        action=action,
        visit=visit,
        lookup=lookup,
        on=on,
        feature=feature,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        columns=columns,
        filename_pattern=filename_pattern,
        null=null,
        time_format=time_format,
        where=where,
        since=since,
        until=until,
        drop_duplicates=drop_duplicates,
        min_visits=min_visits,
        top_actions=top_actions,
        memory=memory,
        workers=workers,
        temp=temp,
        max_reject=max_reject,
        schema=schema,
        append=append,
        resume=resume,
    )
    return run_plan(plan, progress=progress or NullProgress())
