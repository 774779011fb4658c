"""A whole training elsewhere than on the CPU, where there is no GPU: PyTorch's ``meta`` device holds no values, and
refuses what a GPU refuses. What it lets pass, a watch on every operation does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_rows import make_side_dataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from luckyfast import checkpoint as checkpoint_module
from luckyfast import training
from luckyfast.checkpoint import Checkpoint, read_share
from luckyfast.models import ModelConfig
from luckyfast.models import plain as plain_module
from luckyfast.training import train
from luckyfast.windows import split_by_time

CONFIG = ModelConfig(layers=2, hidden=6, embedding=5, label_smoothing=0.1, epochs=2, refit_epochs=2, batch_visits=128)


class Watch(TorchDispatchMode):
    """No operation takes tensors from both devices but copies; a value that is fetched from there is made up."""

    n_there = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = {tensor.is_meta for tensor in given if tensor.ndim or tensor.is_meta}  # a CPU's scalar may go with any
        if name == "aten::_local_scalar_dense" and given[0].is_meta:
            return given[0].dtype == torch.bool or 1.0
        if name in {"aten::to", "aten::_to_copy"} and given[0].is_meta:
            wanted = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.device)]
            if wanted and wanted[0].type == "cpu":
                return torch.full(given[0].shape, 0.01, dtype=given[0].dtype)
        assert len(there) < 2 or name == "aten::copy_", f"{name} takes tensors of two devices"
        self.n_there += True in there
        return func(*args, **kwargs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which is tested itself")
@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize("arch", ["mlp", "lstm", "lstm-embed"])
def test_a_training_elsewhere_mixes_no_devices(arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_random_numbers = training._own_random_numbers
    monkeypatch.setattr(training, "choose_device", lambda name: "meta")
    monkeypatch.setattr(training, "_own_random_numbers", lambda device: own_random_numbers("cpu"))
    monkeypatch.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    monkeypatch.setattr(checkpoint_module, "INTERVAL_S", 0.0)
    monkeypatch.setattr(plain_module, "block_moments", lambda n_actions: 20)
    dataset = make_side_dataset(tmp_path)
    split, config = split_by_time(dataset), replace(CONFIG, arch=arch)  # type: ignore[arg-type]
    kept, save = tmp_path / "kept", Checkpoint.save_in_time
    monkeypatch.setattr(Checkpoint, "save_in_time", lambda self, state: self.path.exists() or save(self, state))
    with Watch() as watch:
        model = train(dataset, split, config, checkpoint=kept)
    shares = [read_share(path) for path in (kept, tmp_path / "refit-kept")]
    assert all(0 < share < 1 for share in shares)  # the first batch of each, and no later one
    with Watch() as again:
        went_on = train(dataset, split, config, checkpoint=kept)
    assert 0.4 * watch.n_there < again.n_there < watch.n_there
    assert model.state.keys() == went_on.state.keys()
