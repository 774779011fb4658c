"""The usual way in Keras: one-hot windows of the last actions, one label per window, a plain LSTM."""

from __future__ import annotations

import os
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from numpy.typing import NDArray

from .data import Log, Scores, Targets, main, parts_of

WINDOW = 32
HIDDEN = 128
BATCH = 128
TRAIN_CPU_S = 300.0


def one_hot(log: Log, stops: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The last actions before each place of the log, float32 [n, WINDOW, n_actions], zeros before the history."""
    places = stops[:, None] - WINDOW + np.arange(WINDOW)
    inside = places >= starts[:, None]
    rows = np.zeros((len(stops), WINDOW, log.n_actions), np.float32)
    index = np.nonzero(inside)
    rows[index[0], index[1], log.actions[places[inside]]] = 1.0
    return rows


def predict(log: Log, targets: Targets) -> Scores:
    """Train on every action before validation, each the one label of the window before its visit; score the targets."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.layers.Input((WINDOW, log.n_actions)),
            keras.layers.LSTM(HIDDEN),
            keras.layers.Dense(log.n_actions, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    customer_start = np.repeat(log.action_start[log.visit_start[:-1]], np.diff(log.action_start[log.visit_start]))
    time_of = np.repeat(log.visit_time, np.diff(log.action_start))
    # The order of actions inside a visit means nothing: a window ends where the visit begins.
    window_stop = np.repeat(log.action_start[:-1], np.diff(log.action_start))
    labels = np.flatnonzero((time_of < targets.valid_start) & (window_stop > customer_start))
    began, n_steps = time.process_time(), 0
    while time.process_time() - began < TRAIN_CPU_S:
        for chosen in parts_of(rng.permutation(labels), BATCH):
            loss = model.train_on_batch(one_hot(log, window_stop[chosen], customer_start[chosen]), log.actions[chosen])
            n_steps += 1
            if time.process_time() - began > TRAIN_CPU_S:
                break
    print(f"{n_steps * BATCH / len(labels):.2f} passes, loss {float(loss):.3f}")
    owners = np.searchsorted(log.visit_start, targets.visits, side="right") - 1
    starts = log.action_start[log.visit_start[owners]]
    for index in parts_of(np.arange(len(owners)), 1000):
        visits = targets.visits[index]
        chances = model.predict_on_batch(one_hot(log, log.action_start[visits], starts[index]))
        yield visits, np.log(np.maximum(np.asarray(chances), 1e-12)).astype(np.float32)


if __name__ == "__main__":
    main(predict)
