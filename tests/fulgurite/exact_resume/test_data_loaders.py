"""A data module that several trainers fit has the loaders of the one that fits it now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

import fulgurite


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
