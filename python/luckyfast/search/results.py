"""What a search has tried, as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luckyfast.errors import InputError, ModelError, OutputExistsError
from luckyfast.files import completed
from luckyfast.search.importance import importance
from luckyfast.search.journal import read_events
from luckyfast.search.space import Dimension, Space

__all__ = ["Results", "read_results", "write_results"]

_FIGURES = ("valid_hit1", "valid_hit3", "peak_bytes")


@dataclass(frozen=True)
class Results:
    """The finished trials of a search.

    Args:
        header: what the search was.
        rows: one per trial and rung, in the order in which they ended: trial, rung, customers, passes, status,
            valid_loss, valid_hit1, valid_hit3, seconds, peak_bytes, at_s, and all settings.
        searched: names of the settings that were searched.
        stopped: why the search ended; empty where it has not.
        trained: settings, rung and loss of what has a loss.
    """

    header: dict[str, Any]
    rows: list[dict[str, Any]]
    searched: list[str]
    stopped: str
    trained: list[tuple[dict[str, Any], int, float]]

    @property
    def importance(self) -> dict[str, float]:
        """See :func:`luckyfast.search.importance.importance`."""
        dimensions = self.header["space"]["dimensions"]
        space = Space(
            tuple(
                Dimension(name, kind, tuple(values))
                for name, form in dimensions.items()
                for kind, values in form.items()
            ),
            self.header["space"]["start"],
        )
        return importance(space, self.trained)


def read_results(folder: Path) -> Results:
    """Read the trials of a model folder, or of the folder of a search that is not over.

    Raises:
        ModelError: there is no journal, or it is damaged.
    """
    if not (folder / "trials.jsonl").is_file():
        raise ModelError(f"{folder} has no trials.jsonl", hint="name a folder that luckyfast fit wrote")
    events = list(read_events(folder / "trials.jsonl"))
    if not events:
        raise ModelError(f"{folder / 'trials.jsonl'} is empty", hint="name a folder that luckyfast fit wrote")
    header, rows, stopped = events[0], [], ""
    trained = []
    for event in events[1:]:
        if event["event"] == "stop":
            stopped = event["reason"]
        elif event["event"] == "end":
            customers, passes = header["rungs"][event["rung"]]
            if event["valid_loss"] is not None:
                trained.append((event["settings"], event["rung"], event["valid_loss"]))
            rows.append(
                {
                    "trial": event["trial"],
                    "rung": event["rung"],
                    "customers": customers,
                    "passes": max(round(passes * event["settings"]["epochs"]), 1),
                    "status": event["status"],
                    "valid_loss": event["valid_loss"],
                    **{name: event["figures"].get(name) for name in _FIGURES},
                    "seconds": event["seconds"],
                    "at_s": event["at_s"],
                    **event["settings"],
                }
            )
    return Results(header, rows, list(header["space"]["dimensions"]), stopped, trained)


def write_results(results: Results, path: Path, *, overwrite: bool = False) -> None:
    """Write the table as Parquet, CSV or JSON lines, by the file's ending.

    Raises:
        InputError: the file has another ending.
        OutputExistsError: the file exists.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise InputError(f"no format for {path.name!r}", hint="let the file end in .parquet, .csv or .jsonl")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists already", hint="choose another file with --out, or add --overwrite")
    with completed(path) as partial:
        if path.suffix == ".jsonl":
            partial.write_text("".join(json.dumps(row) + "\n" for row in results.rows), encoding="utf-8")
            return
        names = list(results.rows[0]) if results.rows else ["trial", "rung"]
        columns = {
            name: [json.dumps(row[name]) if isinstance(row[name], list) else row[name] for row in results.rows]
            for name in names
        }
        table = pa.table(columns)
        if path.suffix == ".csv":
            pa_csv.write_csv(table, partial)
        else:
            pq.write_table(table, partial)
