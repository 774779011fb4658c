"""Refuse scorers that see what they are to predict, or whose scores cannot be measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from luckyfast.calibration import log_softmax
from luckyfast.dataset import FeatureColumn, Histories
from luckyfast.errors import ModelError
from luckyfast.windows import Scorer, first_visits

__all__ = ["assert_blind", "checked_blocks"]

_N_CUSTOMERS = 32


def assert_blind(scorer: Scorer, histories: Histories, targets: NDArray[np.int64], *, seed: int = 0) -> None:
    """Check that scores for a visit do not depend on what it holds nor on anything after it.

    Some customers are scored twice at their first target: as they are, and with that visit's actions and side columns
    replaced at random and all later visits removed. A scorer that peeks gives different scores.

    Args:
        scorer: a fitted model or baseline.
        histories: one batch of histories.
        targets: int64 [n], target visits local to the batch.
        seed: of the replacement.

    Raises:
        ModelError: the scores differ.
    """
    rng = np.random.default_rng(seed)
    first = first_visits(histories, targets)
    # The first target of each customer: the most of a future to hide.
    chosen = np.flatnonzero(np.append(True, first[1:] != first[:-1]))[:_N_CUSTOMERS]
    visits, starts = targets[chosen], first[chosen]
    scores = np.concatenate([block.copy() for _, block in checked_blocks(scorer, histories, visits)])
    hidden = _hide(histories, starts, visits, scores.shape[1], rng)
    blind_targets = hidden.visit_start[1:].astype(np.int64) - 1
    blind = np.concatenate([block.copy() for _, block in checked_blocks(scorer, hidden, blind_targets)])
    # Blocks of other shapes may add up floats in another order.
    if not np.allclose(log_softmax(scores)[:, 1:], log_softmax(blind)[:, 1:], rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"{scorer.name} sees the future: its scores for a visit change with what that visit holds or what follows",
            hint="of a history use the earlier visits and the time of the visit only",
        )


def _hide(
    histories: Histories,
    starts: NDArray[np.int64],
    visits: NDArray[np.int64],
    n_actions: int,
    rng: np.random.Generator,
) -> Histories:
    """Copy some histories up to a visit whose actions, counts, key and side columns are replaced at random."""
    kept = [np.arange(start, visit + 1) for start, visit in zip(starts, visits, strict=True)]
    sets = []
    counts = []
    for run in kept:
        for visit in run:
            pairs = slice(histories.action_start[visit], histories.action_start[visit + 1])
            if visit != run[-1]:
                sets.append(histories.actions[pairs])
                counts.append(histories.counts[pairs])
                continue
            size = int(rng.integers(1, min(n_actions - 1, 12) + 1))
            sets.append(np.sort(rng.choice(np.arange(1, n_actions), size, replace=False)).astype(np.int32))
            counts.append(rng.integers(1, 9, size).astype(np.int32))
    order = np.concatenate(kept)
    keys = histories.visit_key[order]
    stops = np.cumsum([len(run) for run in kept])
    keys[stops - 1] = rng.integers(0, 2**63, len(kept)).astype(np.uint64)
    customers = np.searchsorted(histories.visit_start, visits, side="right") - 1
    return Histories(
        customers=histories.customers.take(pa.array(customers)),
        visit_start=np.concatenate(([0], stops)).astype(np.int32),
        visit_time=histories.visit_time[order],
        visit_key=keys,
        action_start=np.concatenate(([0], np.cumsum([len(actions) for actions in sets]))).astype(np.int32),
        actions=np.concatenate(sets),
        counts=np.concatenate(counts),
        features=tuple(_hide_feature(column.take(order), stops - 1, rng) for column in histories.features),
    )


def _hide_feature(column: FeatureColumn, visits: NDArray[np.int64], rng: np.random.Generator) -> FeatureColumn:
    """A side column with other values of the batch, or none, at some visits."""
    values, rows = column.values.copy(), column.rows.copy()
    others = rng.integers(len(values), size=len(visits))
    values[visits], rows[visits] = column.values[others], column.rows[others]
    # a column in which all values are equal would hide nothing
    unchanged = visits[(values[visits] == column.values[visits]) & (rows[visits] == column.rows[visits])]
    values[unchanged] = rows[unchanged] = 0
    return FeatureColumn(values, rows)


def checked_blocks(
    scorer: Scorer, histories: Histories, targets: NDArray[np.int64], n_actions: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield a scorer's blocks, refusing what could not be measured."""
    n_scored = 0
    if len(targets) == 0:
        return
    for block, scores in scorer.score(histories, targets):
        expected = targets[n_scored : n_scored + len(block)]
        n_scored += len(block)
        if scores.shape != (len(block), n_actions or scores.shape[-1]) or not np.array_equal(block, expected):
            raise ModelError(
                f"{scorer.name} did not score each target in order, one row of all actions each",
                hint="a scorer yields (targets [m], scores [m, n_actions]) that cover the targets in order",
            )
        if not np.isfinite(scores[:, 1:]).all() or np.isnan(scores[:, 0]).any():
            raise ModelError(f"{scorer.name} gave scores that are no numbers", hint="lower its learning rate")
        yield block, scores
    if n_scored != len(targets):
        raise ModelError(
            f"{scorer.name} scored {n_scored} of {len(targets)} targets", hint="a scorer yields a row per target"
        )
