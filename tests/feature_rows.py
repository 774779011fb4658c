"""Logs with side columns, and the naive twin of what ingest keeps of them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from luckyfast.dataset import Dataset
from luckyfast.ingestion import ingest

HEADER = "card,when,shelf,ticket,price,store_id,brand,age\n"
FEATURES = "price,store_id,brand,age"
KINDS = {"price": "number", "store_id": "category", "brand": "category", "age": "number"}
ROLES: dict[str, Any] = {"customer": "card", "time": "when", "action": "shelf", "visit": "ticket", "memory": "8GB"}


class Line(NamedTuple):
    """A row of such a log; `values` are those of `KINDS`, as text."""

    customer: str
    day: int
    action: str
    visit: str
    values: tuple[str, ...]

    def text(self) -> str:
        """As CSV."""
        when = f"2024-{1 + self.day // 28:02d}-{1 + self.day % 28:02d} 10:00"
        fields = [self.customer, when, self.action, self.visit, *self.values]
        return ",".join(_quote(field) for field in fields) + "\n"


def _quote(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if set(field) & set('",\n') else field


def draw_lines(seed: int, n_rows: int, *, n_customers: int = 60, mixed: bool = True) -> list[Line]:
    """Rows with dirt in their side columns; the store is one per visit and, unless `mixed`, so is the brand."""
    draw = random.Random(seed)
    lines = []
    for _ in range(n_rows):
        customer, visit = draw.randrange(n_customers), draw.randrange(9)
        price = draw.choice(["1", "2.5", "-0.25", "0.1000004", "1e2", "3,75", "", "NA", " 4 "])
        price = "free" if draw.random() < 0.02 else price
        store = str(100 + (customer + visit) % 7) if visit % 4 else ""
        brand = draw.choice(["own", 'a "big" one', "x, y", "two\nlines", "ÉPI", ""]) if mixed else f"b{visit % 3}"
        age = str(20 + customer % 50) if customer % 5 else ""
        lines.append(
            Line(
                f"c{customer}",
                (customer * 3 + visit * 7) % 300,
                draw.choice(["MILK", "BREAD", "TEA"]),
                f"{customer}-{visit}",
                (price, store, brand, age),
            )
        )
    return lines


def write_log(path: Path, lines: Sequence[Line]) -> Path:
    """Write a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(line.text() for line in lines), encoding="utf-8")
    return path


def naive_number(text: str) -> Decimal | None:
    """A number in millionths as ingest reads it; None for none."""
    try:
        return Decimal(text.strip().replace(",", ".")).quantize(Decimal("0.000001"), ROUND_HALF_UP)
    except InvalidOperation:
        return None


def naive_features(lines: Sequence[Line]) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    """Per customer and visit, for each of `KINDS`: (sum, rows), or (category, rows, others)."""
    visits: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        visits[line.customer, line.visit].append(line)
    found: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for key, own in visits.items():
        found[key] = []
        for k, kind in enumerate(KINDS.values()):
            texts = [line.values[k] for line in own]
            if kind == "number":
                numbers = [number for text in texts if (number := naive_number(text)) is not None]
                found[key].append((sum(numbers, Decimal(0)), len(numbers)))
            else:
                counts = Counter(text for text in texts if text.strip())
                best = min(counts, key=lambda name: (-counts[name], name.encode()), default=None)
                n = counts[best] if best is not None else 0
                found[key].append((best, n, counts.total() - n))
    return found


def read_features(path: Path) -> dict[str, list[list[tuple[Any, ...]]]]:
    """The side columns of a dataset, per customer and visit, as plain readers of Arrow see them."""
    manifest = Dataset.open(path).manifest
    found: dict[str, list[list[tuple[Any, ...]]]] = {}
    for shard in sorted((path / "shards").iterdir()):
        table = pa.ipc.open_file(str(shard)).read_all()
        table.validate(full=True)
        for row in table.to_pylist():
            columns: list[list[tuple[Any, ...]]] = []
            for feature in manifest["features"]:
                own = [row[name] for name in row if name.startswith(f"feature.{feature['name']}.")]
                if feature["kind"] == "category":
                    own[0] = [[None, *feature["categories"]][i] for i in own[0]]
                columns.append(list(zip(*own, strict=True)))
            found[row["customer"]] = [list(visit) for visit in zip(*columns, strict=True)]
    return found


def make_side_dataset(folder: Path, *, seed: int = 0, n_customers: int = 30) -> Dataset:
    """A dataset of customers with 1 to 20 visits, all of whose side columns matter to a network with random weights."""
    rng = np.random.default_rng(seed)
    lines = []
    for customer in range(n_customers):
        for visit in range(int(rng.integers(1, 21))):
            day, store = visit * 10 + int(rng.integers(5)), str(rng.choice(["north", "south", ""]))
            for _ in range(int(rng.integers(1, 5))):
                price = f"{rng.normal(3, 20):.2f}" if rng.random() < 0.6 else ""
                action = str(rng.choice(["MILK", "BREAD", "TEA", "RICE"]))
                brand = str(rng.choice(["own", "other", "third"]))
                lines.append(
                    Line(f"c{customer}", day, action, f"{customer}-{visit}", (price, store, brand, str(customer)))
                )
    log = write_log(folder / "log.csv", lines)
    ingest(log, folder / "data", feature=FEATURES, workers=1, **ROLES)
    return Dataset.open(folder / "data")
