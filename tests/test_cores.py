"""How many cores networks use, for whoever asks."""

from __future__ import annotations

import threading

import pytest
import torch

from luckyfast.models.cores import n_cores, use_cores


def test_cores_are_those_of_whoever_asks_and_are_given_back() -> None:
    """Trainings in several threads, of which none ends as it began; PyTorch gets its own number back at the end."""
    before, found = torch.get_num_threads(), list[int]()
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        found.append(n_cores())
        with use_cores(5):
            begun.set()
            ended.wait(10)
            found.append(n_cores())

    thread = threading.Thread(target=other)
    with use_cores(3):
        thread.start()
        assert begun.wait(10)
        assert n_cores() == 3
    ended.set()
    thread.join()
    assert found == [before, 5]
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="0 cores"), use_cores(0):
        pass
