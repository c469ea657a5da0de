"""Loaders that define their own order resume where they were, on each rank, or are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

import fulgurite
from fulgurite.callbacks import LastCheckpoint

EXAMPLES, BATCH = 40, 4  # 10 batches an epoch
EPOCHS = 3


class Numbers(IterableDataset[torch.Tensor]):
    """Noisy numbers in a shuffled order; workers share them."""

    def __init__(self, size: int = EXAMPLES) -> None:
        self.size = size

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        order = torch.randperm(self.size).tolist() if worker is None else list(range(self.size))
        for number in order if worker is None else order[worker.id :: worker.num_workers]:
            yield torch.tensor([float(number), float(torch.rand(()))])


class CountedNumbers(Numbers):
    """Numbers whose position can be saved: the order is that of a generator which lives on from epoch to epoch."""

    def __init__(self, size: int = EXAMPLES) -> None:
        super().__init__(size)
        self.generator = torch.Generator().manual_seed(5)
        self.order: list[int] = []
        self.done = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.done == len(self.order):
            self.order, self.done = torch.randperm(self.size, generator=self.generator).tolist(), 0
        for number in self.order[self.done :]:
            self.done += 1
            yield torch.tensor([float(number), float(torch.rand(()))])

    def state_dict(self) -> dict[str, Any]:
        """Return the order, the position in it and what the next order depends on."""
        return {"order": self.order, "done": self.done, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.order, self.done = state["order"], state["done"]
        self.generator.set_state(state["generator"])


class OwnLoader:
    """A loader that is no DataLoader, with the protocol of torchdata's and litdata's."""

    def __init__(self) -> None:
        self.numbers = CountedNumbers()

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from DataLoader(self.numbers, batch_size=BATCH)

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return self.numbers.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.numbers.load_state_dict(state)


class SizedOwnLoader(OwnLoader):
    """One that has a length: Lightning then fetches no batch ahead."""

    def __len__(self) -> int:
        return EXAMPLES // BATCH


class Listed(Dataset[torch.Tensor]):
    """Ten noisy examples with a length."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), float(torch.rand(()))])


class Data(LightningDataModule):
    """Whatever loaders a function makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make

    def train_dataloader(self) -> Any:
        """Make the loaders."""
        return self.make()


class Model(LightningModule):
    """Keeps what it saw; draws from the global generator at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
        self.seen: list[tuple[int, int, Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return a loss, scalar, that depends on all batches."""
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        self.seen.append((self.current_epoch, batch_idx, [None if part is None else part.tolist() for part in parts]))
        values = torch.cat([part for part in parts if part is not None])
        loss: torch.Tensor = (self.net(values / 40) - torch.rand(())).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Kill(Callback):
    """Ends the process, as far as one test can, after a step was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Raise what Lightning does not catch."""
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def _fit(folder: Path, make: Callable[[], Any], kill_at: int = -1, save_every: int = 1, **settings: Any) -> Model:
    """Train from the last checkpoint, if there is one, and return the model."""
    torch.manual_seed(3)
    last = LastCheckpoint(folder, every_n_train_steps=save_every)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[last, Kill(kill_at)],
    )
    model, data = Model(), Data(make)
    fulgurite.harden(trainer, data, run_dir=folder, seed=1, handle_signals=False, supervise_ranks=False, **settings)
    path = folder / "last.ckpt"
    ckpt_path = str(path) if path.exists() else None
    try:
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit:
        assert kill_at > 0
    return model


def _interrupted(folder: Path, make: Callable[[], Any], kills: tuple[int, ...], save_every: int = 1) -> tuple[Any, Any]:
    """Return the batches of a run that is killed several times, each by its last training, and its weights."""
    seen: dict[tuple[int, int], Any] = {}
    models = [_fit(folder, make, kill_at, save_every) for kill_at in (*kills, -1)]
    for model in models:
        seen |= {(epoch, batch): values for epoch, batch, values in model.seen}
    return seen, models[-1].net.weight.tolist()
