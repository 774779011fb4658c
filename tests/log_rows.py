"""Small logs: random ones for Hypothesis, and one that has habits to be learnt."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from naive_ingest import Row, write_dataset

from luckyfast.dataset import Dataset, Histories

DAY = 86_400_000_000


@st.composite
def logs(draw: st.DrawFn, *, max_customers: int = 4, max_visits: int = 8, n_actions: int = 6) -> list[Row]:
    """Logs of a few customers whose visits may share times and repeat actions."""
    rows: list[Row] = []
    for customer in range(draw(st.integers(1, max_customers))):
        for visit in range(draw(st.integers(1, max_visits))):
            time = draw(st.integers(0, 30)) * DAY
            actions = draw(st.lists(st.integers(0, n_actions - 1), min_size=1, max_size=4))
            rows += [(f"c{customer}", time, f"a{action}", f"v{customer}-{visit}") for action in actions]
    return rows


def habit_log(*, n_customers: int = 40, n_visits: int = 20, n_actions: int = 12, seed: int = 0) -> list[Row]:
    """Customers who mostly take one of two favourite actions, and sometimes any."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for customer in range(n_customers):
        favourites = rng.integers(n_actions, size=2)
        for visit in range(n_visits):
            time = int((visit * 5 + rng.integers(3)) * DAY)
            actions = [int(rng.choice(favourites) if rng.random() < 0.7 else rng.integers(n_actions)) for _ in range(3)]
            rows += [(f"customer {customer}", time, f"action {action}", f"{customer}/{visit}") for action in actions]
    return rows


@contextmanager
def opened(rows: Sequence[Row], **settings: int | str) -> Iterator[Dataset]:
    """A dataset of these rows in a folder that goes away again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Dataset.open(write_dataset(rows, Path(folder) / "dataset", **settings))  # type: ignore[arg-type]


def visits_of(histories: Histories) -> list[list[tuple[int, list[int]]]]:
    """Each customer's visits as (time, actions), in plain Python."""
    start, actions = histories.action_start.tolist(), histories.actions.tolist()
    times = histories.visit_time.tolist()
    bounds = histories.visit_start.tolist()
    return [
        [(times[v], actions[start[v] : start[v + 1]]) for v in range(first, stop)]
        for first, stop in itertools.pairwise(bounds)
    ]
