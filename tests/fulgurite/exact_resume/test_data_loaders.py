"""A data module that several trainers fit has the loaders of the one that fits it now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, RandomSampler

import fulgurite
from fulgurite.core.errors import UserError
from fulgurite.exact_resume.loader import ShardSpec, make_exact


class Noisy(Dataset[torch.Tensor]):
    """Numbered examples with noise."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), float(torch.rand((), generator=self.generator))])


class Data(LightningDataModule):
    """Loaders that are made once, or anew for each trainer."""

    def __init__(self, *, cached: bool) -> None:
        super().__init__()
        self.cached = cached
        self.loaders = (DataLoader(Noisy(), 2, shuffle=True), DataLoader(Noisy(), 2))

    def train_dataloader(self) -> Any:
        """Return shuffled batches."""
        return self.loaders[0] if self.cached else DataLoader(Noisy(), 2, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return noisy batches in order."""
        return self.loaders[1] if self.cached else DataLoader(Noisy(), 2)


class Seen(LightningModule):
    """Keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return a loss, scalar."""
        self.seen.append(batch.tolist())
        loss: torch.Tensor = self.net(batch).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Note the batch."""
        self.seen.append(batch.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: Data, seed: int, folder: Path) -> list[Any]:
    """Train two epochs and return the batches."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=2, accelerator="cpu", num_sanity_val_steps=0, **quiet)  # type: ignore[arg-type]
    fulgurite.harden(trainer, data, run_dir=folder, seed=seed, handle_signals=False)
    model = Seen()
    trainer.fit(model, datamodule=data)
    return model.seen


@pytest.mark.parametrize("cached", [False, True])
def test_a_second_trainer_gets_loaders_of_its_own_seed(cached: bool, tmp_path: Path) -> None:
    data = Data(cached=cached)
    first, second = fit(data, 1, tmp_path), fit(data, 2, tmp_path)
    assert first != second
    assert second == fit(Data(cached=cached), 2, tmp_path)


def test_lightning_gets_a_distributed_sampler_also_of_a_single_shard() -> None:
    loader: DataLoader[int] = DataLoader(range(8), batch_size=2)  # type: ignore[arg-type]  # a data set, as torch takes it
    for shard, is_distributed in ((None, False), ((0, 1), True), ((1, 2), True)):
        exact, _ = make_exact(loader, ShardSpec(7, lambda: True, shard=shard))
        assert isinstance(exact.sampler, DistributedSampler) == is_distributed
    assert make_exact(loader, ShardSpec(7, lambda: True))[0].sampler is loader.sampler


def test_own_batches_are_refused_where_lightning_would_split_them_also_in_one_shard() -> None:
    class Own:
        def __iter__(self) -> Any:
            return iter(BatchSampler(RandomSampler(range(8)), 2, drop_last=False))

    loader: DataLoader[int] = DataLoader(range(8), batch_sampler=Own())  # type: ignore[arg-type]  # as above
    make_exact(loader, ShardSpec(7, lambda: True))
    with pytest.raises(UserError, match=r"trainer.use_distributed_sampler=true: Lightning cannot split the batches"):
        make_exact(loader, ShardSpec(7, lambda: True, shard=(0, 1)))
