"""The plain operations, with the engine's dropout written down again in NumPy, so that both forms drop the same."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luckyfast.models.plain import PlainOps

__all__ = ["TwinOps", "kept_factors"]


def mixed(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def kept_factors(n: int, share: float, seed: int) -> NDArray[np.float32]:
    """What each of n numbers is multiplied by."""
    key = (seed + 0x9E3779B97F4A7C15) % 2**64
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB % 2**64
    key ^= key >> 31
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    with np.errstate(over="ignore"):
        hashes = mixed(mixed(np.arange(n, dtype=np.uint32) ^ low) + high)
    threshold = np.uint32(share * 2.0**32)
    return np.where(hashes >= threshold, np.float32(1 / (1 - share)), np.float32(0))


class TwinOps(PlainOps):
    """Takes its seeds from torch's generator as the engine's form does."""

    def drop(self, values: Tensor, share: float) -> Tensor:
        """Drop some values."""
        seed = int(torch.randint(1 << 62, ()))
        return values * torch.from_numpy(kept_factors(values.numel(), share, seed)).view(values.shape)
