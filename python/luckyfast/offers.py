"""The order of a list of offers: who gets one offer gets the likeliest, who gets several gets some that go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["offer_order"]


def offer_order(scores: NDArray[np.float32], chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put the action with the highest chance of being in the visit first, and leave the others in the order of scores.

    That first place is right most often. Where it is wrong the visit was more likely a small one, and what is bought
    in small visits has its weight in the distribution of the next action, not in the chances: so a list ordered by
    chances throughout holds a right action less often. It is the greedy rule for the chance that one of several offers
    is right (Nemhauser, Wolsey & Fisher, 1978), with the distribution in place of chances given that the first failed.

    Args:
        scores: float32 [n, n_actions], rising with the probability of being the next action; at least one action.
        chances: float32 [n, n_actions], of being in the next visit.

    Returns:
        float32 [n, n_actions], the scores, but infinite for the first: the highest of each row comes first. Of equal
        chances the one with the highest score comes first, and of equal scores all do.

    Example:
        >>> scores, chances = np.array([[0.3, 0.5, 0.2]], np.float32), np.array([[0.7, 0.6, 0.1]], np.float32)
        >>> offer_order(scores, chances)
        array([[inf, 0.5, 0.2]], dtype=float32)
    """
    likeliest = chances == chances.max(axis=1, keepdims=True)
    best = np.where(likeliest, scores, np.float32(-np.inf))
    first = likeliest & (best == best.max(axis=1, keepdims=True))
    return np.where(first, np.float32(np.inf), scores)
