"""Rank all actions by score and find out where the right ones are, with ties broken at random, in expectation."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["bin_pairs", "mark_repeats", "rank_targets", "rate_best"]


@njit(cache=True, nogil=True)
def rank_targets(
    scores: NDArray[np.float32],
    target_start: NDArray[np.int64],
    target_actions: NDArray[np.int32],
    metrics: NDArray[np.float64],
) -> None:
    """Write hit@1, hit@3, recall@10 and NDCG@10 of each row into ``metrics``, float64 [n, 4].

    Every column of ``scores`` float32 [n, n_actions] but 0 is ranked. Row ``i`` has the right actions
    ``target_actions[target_start[i]:target_start[i + 1]]``; a 0 among them can never be hit and still counts in the
    denominators. Rows without right actions become NaN.
    """
    n_rows, n_actions = scores.shape
    discount = np.zeros(11)
    for rank in range(1, 11):
        discount[rank] = discount[rank - 1] + 1.0 / np.log2(rank + 1.0)
    for row in range(n_rows):
        start, stop = target_start[row], target_start[row + 1]
        if start == stop:
            metrics[row, :] = np.nan
            continue
        recall = 0.0
        gain = 0.0
        best = np.float32(-np.inf)
        best_above = n_actions
        best_tied = 1
        n_best = 0
        for position in range(start, stop):
            action = target_actions[position]
            if action == 0:
                continue
            score = scores[row, action]
            if n_best > 0 and score == best:
                above, tied = best_above, best_tied
            else:
                above = 0
                tied = 0
                for other in range(1, n_actions):
                    above += scores[row, other] > score
                    tied += scores[row, other] == score
            if n_best == 0 or score > best:
                best, best_above, best_tied, n_best = score, above, tied, 1
            elif score == best:
                n_best += 1
            if above < 10:
                last = min(above + tied, 10)
                recall += (last - above) / tied
                gain += (discount[last] - discount[above]) / tied
        size = stop - start
        for column in range(2):
            slots = 1 + 2 * column - best_above
            # The best right action decides: with `slots` places for `best_tied` tied actions, the chance that none of
            # the n_best right ones gets a place is hypergeometric.
            missed = 1.0
            if n_best > 0 and slots > 0:
                if best_tied - n_best < slots:
                    missed = 0.0
                else:
                    for drawn in range(slots):
                        missed *= (best_tied - n_best - drawn) / (best_tied - drawn)
            metrics[row, column] = 1.0 - missed
        metrics[row, 2] = recall / size
        metrics[row, 3] = gain / discount[min(size, 10)]


@njit(cache=True, nogil=True)
def rate_best(
    scores: NDArray[np.float32],
    chances: NDArray[np.float32],
    target_start: NDArray[np.int64],
    target_actions: NDArray[np.int32],
    rated: NDArray[np.float64],
) -> None:
    """Write the chance of the action that each row ranks first, and its squared error, into ``rated``, float64 [n, 2].

    Of actions that share the first place each is as likely to be taken: both numbers are means over them. Row ``i`` of
    ``scores`` and ``chances``, float32 [n, n_actions], has the right actions
    ``target_actions[target_start[i]:target_start[i + 1]]``; column 0 is left out.
    """
    n_rows, n_actions = scores.shape
    for row in range(n_rows):
        best = scores[row, 1]
        for action in range(2, n_actions):
            best = max(best, scores[row, action])
        n_best = 0
        chance = 0.0
        square = 0.0
        for action in range(1, n_actions):
            if scores[row, action] == best:
                own = np.float64(chances[row, action])
                n_best += 1
                chance += own
                square += own * own
        for position in range(target_start[row], target_start[row + 1]):
            action = target_actions[position]
            if action > 0 and scores[row, action] == best:
                # (1 - chance)^2 in place of chance^2
                square += 1.0 - 2.0 * np.float64(chances[row, action])
        rated[row, 0] = chance / n_best
        rated[row, 1] = square / n_best


@njit(cache=True, nogil=True)
def mark_repeats(
    first: NDArray[np.int64],
    targets: NDArray[np.int64],
    action_start: NDArray[np.int32],
    actions: NDArray[np.int32],
    n_actions: int,
    repeated: NDArray[np.bool_],
) -> None:
    """Mark each action of each target visit that its customer took in an earlier visit.

    ``targets`` int64 [n] are ascending visits and ``first`` int64 [n] the first visit of their customers; ``repeated``
    has one place per action of the targets, target after target.
    """
    seen = np.full(n_actions, -1, np.int64)
    position = 0
    visit = 0
    for index in range(len(targets)):
        if index == 0 or first[index] != first[index - 1]:
            visit = first[index]
        while visit < targets[index]:
            for pair in range(action_start[visit], action_start[visit + 1]):
                seen[actions[pair]] = first[index]
            visit += 1
        for pair in range(action_start[visit], action_start[visit + 1]):
            repeated[position] = seen[actions[pair]] == first[index]
            position += 1


@njit(cache=True, nogil=True)
def bin_pairs(
    chances: NDArray[np.float32],
    target_start: NDArray[np.int64],
    target_actions: NDArray[np.int32],
    groups: NDArray[np.int64],
    edges: NDArray[np.float32],
    gaps: NDArray[np.float64],
    totals: NDArray[np.float64],
) -> None:
    """Add every pair of row and action to the bin of its chance.

    Row ``i`` of ``chances`` float32 [n, n_actions] has the right actions
    ``target_actions[target_start[i]:target_start[i + 1]]``; column 0 is left out. Bin ``b`` holds the chances from
    ``edges[b - 1]`` to less than ``edges[b]``. ``gaps`` float64 [n_groups, n_edges + 1] gets chance minus outcome in
    row ``groups[i]``, ``totals`` float64 [n_edges + 1, 3] the number, the chances and the outcomes.
    """
    n_actions = chances.shape[1]
    came = np.zeros(n_actions, np.bool_)
    for row in range(len(groups)):
        start, stop = target_start[row], target_start[row + 1]
        for position in range(start, stop):
            came[target_actions[position]] = True
        for action in range(1, n_actions):
            chance = chances[row, action]
            bin_ = 0
            while bin_ < len(edges) and chance >= edges[bin_]:
                bin_ += 1
            outcome = 1.0 if came[action] else 0.0
            gaps[groups[row], bin_] += chance - outcome
            totals[bin_, 0] += 1.0
            totals[bin_, 1] += chance
            totals[bin_, 2] += outcome
        for position in range(start, stop):
            came[target_actions[position]] = False
