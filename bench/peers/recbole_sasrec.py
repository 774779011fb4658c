"""SASRec (Kang and McAuley, 2018) as RecBole has it, on the flattened sequence of actions."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.model.sequential_recommender import SASRec

from .data import Log, Scores, Targets, main, parts_of

WINDOW = 50
BATCH = 256
TRAIN_CPU_S = 300.0


def windows(log: Log, visits: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """The last actions before each visit, padded with 0 on the right, and how many they are."""
    owners = np.searchsorted(log.visit_start, visits, side="right") - 1
    stop = log.action_start[visits]
    start = np.maximum(log.action_start[log.visit_start[owners]], stop - WINDOW)
    places = start[:, None] + np.arange(WINDOW)
    inside = places < stop[:, None]
    items = np.where(inside, log.actions[np.minimum(places, len(log.actions) - 1)], 0)
    return {
        "item_id_list": torch.from_numpy(items.astype(np.int64)),
        "item_length": torch.from_numpy(np.maximum(inside.sum(axis=1), 1)),  # a first visit has padding before it
    }


def build(n_actions: int) -> Any:
    """RecBole's model with its own default settings but for dropout, which 0.5 would be too much of here."""
    logging.disable(logging.WARNING)
    settings = {
        "MAX_ITEM_LIST_LENGTH": WINDOW,
        "hidden_dropout_prob": 0.2,
        "attn_dropout_prob": 0.2,
        "train_neg_sample_args": None,
        "use_gpu": False,
        "data_path": ".",
    }
    config = Config(model="SASRec", dataset="log", config_dict=settings)
    return SASRec(config, SimpleNamespace(num=lambda field: n_actions))


def predict(log: Log, targets: Targets) -> Scores:
    """Train on the visits before validation, one action of each visit per pass, and score the targets."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build(log.n_actions)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = np.zeros(len(log.visit_time), np.bool_)
    first[log.visit_start[:-1]] = True
    usable = np.flatnonzero((log.visit_time < targets.valid_start) & ~first)
    began, n_steps = time.process_time(), 0
    model.train()
    while time.process_time() - began < TRAIN_CPU_S:
        for visits in parts_of(rng.permutation(usable), BATCH):
            sizes = log.action_start[visits + 1] - log.action_start[visits]
            drawn = log.actions[log.action_start[visits] + (rng.random(len(visits)) * sizes).astype(np.int64)]
            batch = windows(log, visits) | {"item_id": torch.from_numpy(drawn.astype(np.int64))}
            loss = model.calculate_loss(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            n_steps += 1
            if time.process_time() - began > TRAIN_CPU_S:
                break
    print(f"{n_steps * BATCH / len(usable):.1f} passes, last loss {loss.item():.3f}")
    model.eval()
    for visits in parts_of(targets.visits, 1000):
        with torch.no_grad():
            yield visits, model.full_sort_predict(windows(log, visits)).numpy()


if __name__ == "__main__":
    main(predict)
