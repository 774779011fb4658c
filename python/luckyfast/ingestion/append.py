"""The dataset that new files are added to, and what must fit for that to be as if all had been read at once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.errors import DatasetError, InputError, SchemaError
from luckyfast.ingestion.format import read_manifest, read_vocabulary
from luckyfast.ingestion.manifest import time_kind

if TYPE_CHECKING:
    from luckyfast.ingestion.plan import FilePlan, IngestPlan

__all__ = ["Base", "content_id", "content_ids", "open_base"]

_SAMPLE_BYTES = 1 << 20
_N_PIECES = 128


def content_id(path: Path) -> str:
    """A digest that tells files of other content apart, whatever they are called.

    Files of up to 1 MiB are read whole; of larger ones the size, both ends and 128 pieces between count, so that it
    takes no time; files that differ in a few bytes alone may be taken for one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = path.write_text("a,b\\n")
        >>> other = path.with_name("the same.csv")
        >>> _ = other.write_text("a,b\\n")
        >>> content_id(path) == content_id(other)
        True
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest = hashlib.blake2b(str(size).encode(), digest_size=16)
            whole = size <= _SAMPLE_BYTES
            end_bytes = _SAMPLE_BYTES // 4
            piece_bytes = _SAMPLE_BYTES // 2 // _N_PIECES
            places = [(0, size)] if whole else [(0, end_bytes), (size - end_bytes, end_bytes)]
            if not whole:
                places += [(size * i // (_N_PIECES + 1), piece_bytes) for i in range(1, _N_PIECES + 1)]
            for start, n_bytes in places:
                file.seek(start)
                digest.update(file.read(n_bytes))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="it has gone or changed: give it again"
        ) from error
    return digest.hexdigest()


def content_ids(files: Sequence[FilePlan]) -> list[str]:
    """The `content_id` of each file; names take part where they count, of zip entries and as values of rows."""
    of_path = {path: content_id(path) for path in dict.fromkeys(file.source.path for file in files)}
    found = []
    for file in files:
        content = of_path[file.source.path]
        if file.source.member is not None or file.constants:
            told = [content.encode(), (file.source.member or "").encode(), *file.constants]
            content = hashlib.blake2b(b"/".join(told), digest_size=16).hexdigest()
        found.append(content)
    return found


@dataclass(frozen=True)
class Base:
    """The dataset that new files are added to: its folder, its manifest, its actions and their events."""

    folder: Path
    manifest: dict[str, Any]
    texts: list[bytes]
    events: list[int]

    def widen(self, times: tuple[int, int]) -> tuple[int, int]:
        """The range of the dataset's times and others."""
        return min(times[0], self.manifest["time"]["min"]), max(times[1], self.manifest["time"]["max"])

    def copy_rejects(self, folder: Path) -> int:
        """Copy the files of rejects; returns how many there are."""
        parts = sorted((self.folder / "rejects").glob("part-*.parquet"))
        for part in parts:
            shutil.copy(part, folder / part.name)
        return len(parts)

    def add_duplicates(self, found: dict[str, Any]) -> dict[str, Any]:
        """The measure of duplicates of old and new rows; an old row that comes again in a new file is not seen."""
        before = self.manifest.get("duplicates", {"rows_sampled": 0, "repeated": 0})
        n = before["rows_sampled"] + found["rows_sampled"]
        repeated = before["repeated"] + found["repeated"]
        return {
            "share": round(repeated / n, 6) if n else 0.0,
            "rows_sampled": n,
            "repeated": repeated,
            "complete": False,
        }


def open_base(plan: IngestPlan, contents: Sequence[str]) -> Base:
    """Read the dataset that a plan adds to, and check that adding gives what reading everything at once would give.

    Args:
        plan: whose `out` is the dataset.
        contents: the `content_id` of each file of the plan.

    Raises:
        DatasetError: the dataset is missing, damaged, or was cleaned by rules that need all rows at once.
        SchemaError: roles, rules or kind of time differ.
        InputError: a file is part of it already.
    """
    manifest = read_manifest(plan.out)
    if manifest["time"]["kind"] != time_kind(plan):
        raise SchemaError(
            f"the times of {plan.out} are of kind {manifest['time']['kind']}, those of the new files are not",
            hint="leave --time and --time-format out",
        )
    rules = plan.rules
    for asked, flag in (
        (rules.drop_duplicates, "--drop-duplicates"),
        (rules.min_visits > 1, "--min-visits"),
        (rules.top_actions is not None, "--top-actions"),
    ):
        if asked:
            raise DatasetError(
                f"{plan.out} was made with {flag}, which needs all rows at once: nothing can be added to it",
                hint="ingest all raw files again",
            )
    for role, names in manifest["roles"].items():
        if list(names or ()) != list(getattr(plan.roles, role) or ()):
            raise SchemaError(f"the {role} of {plan.out} is {names}", hint=f"leave --{role} out")
    own = [(feature["name"], feature["kind"]) for feature in manifest.get("features", [])]
    if own != [(feature.name, feature.kind) for feature in plan.features]:
        names = ", ".join(f"{name}:{kind}" for name, kind in own) or "none"
        raise SchemaError(f"the features of {plan.out} are {names}", hint="leave --feature out")
    known = {source.get("content"): source["path"] for source in manifest["sources"]}
    for file, content in zip(plan.files, contents, strict=True):
        if content in known:
            raise InputError(
                f"{file.source.label} is part of {plan.out} already: it has the content of {known[content]}",
                hint="leave it out, and give only new files",
            )
    texts, events = read_vocabulary(plan.out)
    return Base(plan.out, manifest, texts, events)
