"""LightGBM lambdarank over habit and calendar features of each (visit, action)."""

from __future__ import annotations

import lightgbm
import numpy as np
from numpy.typing import NDArray

from .data import DAY_US, Log, Scores, Targets, main

N_TRAINING_VISITS = 20_000
N_ROUNDS = 300
HALF_LIVES = (10.0, 30.0, 90.0, 360.0)
BLOCK_VISITS = 2000
FEATURES = (
    *(f"share at half-life {days:.0f}" for days in HALF_LIVES),
    "share of visits",
    "visits",
    "days since",
    "visits since",
    "mean gap",
    "days since / mean gap",
    "days since / last gap",
    "in last visit",
    "popularity",
    "earlier visits",
    "mean size",
    "days since last visit",
    "weekday",
    "hour",
    "action",
)


def features(log: Log, wanted: NDArray[np.int64], popularity: NDArray[np.float32]) -> Scores:
    """Blocks of visits with their features, float32 [n_visits, n_actions - 1, n_features]."""
    V = log.n_actions
    rates = np.log(2.0) / np.array(HALF_LIVES)[:, None]
    block: list[NDArray[np.float32]] = []
    visits: list[int] = []
    chosen = np.zeros(len(log.visit_time), np.bool_)
    chosen[wanted] = True
    last_wanted = {
        int(c): int(v) for c, v in zip(np.searchsorted(log.visit_start, wanted, "right") - 1, wanted, strict=True)
    }
    for customer, last in last_wanted.items():
        begin = int(log.visit_start[customer])
        decayed, weight = np.zeros((len(HALF_LIVES), V)), np.zeros((len(HALF_LIVES), 1))
        count = np.zeros(V)
        first_day, last_day, last_visit, last_gap = (np.full(V, np.nan) for _ in range(4))
        day = 0.0
        for visit in range(begin, last + 1):
            now = log.visit_time[visit] / DAY_US
            n_earlier = visit - begin
            if n_earlier:
                fade = np.exp(-rates * (now - day))
                decayed *= fade
                weight *= fade
            if chosen[visit]:
                row = np.empty((V, len(FEATURES)), np.float32)
                n = len(HALF_LIVES)
                row[:, :n] = (decayed / np.maximum(weight, 1e-12)).T
                since = now - last_day
                with np.errstate(invalid="ignore", divide="ignore"):
                    gap = np.where(count > 1, (last_day - first_day) / (count - 1), np.nan)
                    columns = (
                        count / max(n_earlier, 1),
                        count,
                        since,
                        visit - last_visit,
                        gap,
                        since / gap,
                        since / last_gap,
                        last_visit == visit - 1,
                        popularity,
                        n_earlier,
                        count.sum() / max(n_earlier, 1),
                        now - day,
                        (int(now) + 3) % 7,
                        24 * (now % 1.0),
                        np.arange(V),
                    )
                for column, values in enumerate(columns, start=n):
                    row[:, column] = values
                block.append(row[1:])
                visits.append(visit)
                if len(visits) == BLOCK_VISITS:
                    yield np.array(visits), np.stack(block)
                    block, visits = [], []
            actions = log.of(visit)
            decayed[:, actions] += 1.0
            weight += 1.0
            count[actions] += 1.0
            first_day[actions] = np.where(np.isnan(first_day[actions]), now, first_day[actions])
            last_gap[actions] = now - last_day[actions]
            last_day[actions], last_visit[actions] = now, visit
            day = now
    if visits:
        yield np.array(visits), np.stack(block)


def predict(log: Log, targets: Targets) -> Scores:
    """Train on a sample of the visits before validation and score the targets."""
    early = log.visit_time < targets.valid_start
    popularity = np.log1p(
        np.bincount(log.actions[np.repeat(early, np.diff(log.action_start))], minlength=log.n_actions)
    ).astype(np.float32)
    n_earlier = np.arange(len(early)) - np.repeat(log.visit_start[:-1], np.diff(log.visit_start))
    usable = np.flatnonzero(early & (n_earlier >= 3))
    # The later half is the more like the test.
    usable = usable[log.visit_time[usable] >= np.median(log.visit_time[usable])]
    sample = np.sort(np.random.default_rng(0).permutation(usable)[:N_TRAINING_VISITS])
    rows, labels = [], []
    for visits, block in features(log, sample, popularity):
        rows.append(block.reshape(-1, block.shape[-1]))
        for visit in visits:
            label = np.zeros(log.n_actions, np.int8)
            label[log.of(visit)] = 1
            labels.append(label[1:])
    data = lightgbm.Dataset(
        np.concatenate(rows),
        np.concatenate(labels),
        group=np.full(len(labels), log.n_actions - 1),
        feature_name=[name.replace(" ", "_") for name in FEATURES],
        categorical_feature=[len(FEATURES) - 1],
    )
    del rows
    settings = {
        "objective": "lambdarank",
        "lambdarank_truncation_level": 10,
        "learning_rate": 0.05,
        "num_leaves": 63,
        "min_data_in_leaf": 100,
        "num_threads": 1,
        "verbose": -1,
        "seed": 0,
        "deterministic": True,
    }
    booster = lightgbm.train(settings, data, N_ROUNDS)
    for visits, block in features(log, targets.visits, popularity):
        scores = np.zeros((len(visits), log.n_actions), np.float32)
        scores[:, 1:] = booster.predict(block.reshape(-1, block.shape[-1]), num_threads=1).reshape(len(visits), -1)
        yield visits, scores


if __name__ == "__main__":
    main(predict)
