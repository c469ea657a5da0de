"""How many examples an optimizer step sees is logged and recorded."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from fulgurite.callbacks import BatchSizes
from fulgurite.core.context import current_context

DATA = TensorDataset(torch.zeros(64, 1))
LOADERS = {
    "one": ([DataLoader(DATA, batch_size=32)], 32),
    "a batch sampler": ([DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 16, False))], 16),
    "several loaders": ([DataLoader(DATA, batch_size=8), DataLoader(DATA, batch_size=4)], 12),
}


@pytest.mark.parametrize("case", LOADERS)
def test_two_processes_see_twice_the_batch_of_one(
    case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaders, size = LOADERS[case]
    written: dict[str, object] = {}
    monkeypatch.setattr(current_context(), "record", SimpleNamespace(write=written.update))
    monkeypatch.setattr("fulgurite.callbacks.batch_sizes.train_loaders", lambda _: loaders)
    trainer = SimpleNamespace(distributed_sampler_kwargs={"num_replicas": 2}, accumulate_grad_batches=3)
    with caplog.at_level("INFO"):
        BatchSizes().on_train_start(cast("Trainer", trainer), LightningModule())
    total = {"global": size * 6, "per_process": size, "processes": 2, "accumulate": 3}
    assert written == {"batch_size": total}
    assert f"global batch size {size * 6} = 2 processes x {size}, accumulate 3" in caplog.text
