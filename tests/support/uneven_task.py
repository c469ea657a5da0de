"""The same training on one and on several processes: what each of them saw, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from fulgurite.data.batch_size import device_batch_size
from fulgurite.exact_resume.setup import apply_exact_resume
from fulgurite.exact_resume.uneven_batches import install_uneven_batches
from src.models.metrics import ExampleMean

CLASSES = 5


class PlainData(LightningDataModule):
    """Numbered examples in plain loaders.

    Args:
        train: Examples to train on.
        held_out: Examples to validate on, and again to test and to predict.
        batch_size: Over all processes.
    """

    def __init__(self, train: int, held_out: int, batch_size: int) -> None:
        super().__init__()
        self.train, self.held_out, self.batch_size = train, held_out, batch_size

    def _loader(self, examples: int, **settings: Any) -> DataLoader[Any]:
        made = torch.Generator().manual_seed(examples)
        inputs = torch.randn(examples, 12, generator=made)
        labels = torch.randint(CLASSES, (examples,), generator=made)
        size = device_batch_size(self.batch_size, self.trainer)
        return DataLoader(TensorDataset(torch.arange(examples), inputs, labels), batch_size=size, **settings)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return them in another order each epoch."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return them in order."""
        return self._loader(self.held_out)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return them in order."""
        return self._loader(self.held_out)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return them in order."""
        return self.test_dataloader()


class PlainModel(LightningModule):
    """Logs by `self.log` and by metrics, at steps and epochs, and writes down what it saw.

    Args:
        folder: Gets `seen-<rank>.pt` and `numbers.pt`.
        batch_norm: Whether the net has one, whose buffers DDP hands on at each forward pass.
    """

    def __init__(self, folder: Path, *, batch_norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        norm = nn.BatchNorm1d(32) if batch_norm else nn.Tanh()
        self.net = nn.Sequential(nn.Linear(12, 32), norm, nn.ReLU(), nn.Linear(32, CLASSES))
        self.folder = folder
        self.seen: dict[str, list[list[int]]] = {"train": [], "val": [], "test": [], "predict": []}
        self.accuracy, self.mean = MulticlassAccuracy(CLASSES, average="micro"), ExampleMean()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the loss, scalar."""
        numbers, inputs, labels = batch
        self.seen["train"].append(numbers.tolist())
        loss = cross_entropy(self.net(inputs), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(labels))
        return loss

    def _evaluate(self, split: str, batch: Any) -> None:
        numbers, inputs, labels = batch
        self.seen[split].append(numbers.tolist())
        losses = cross_entropy(self.net(inputs), labels, reduction="none")
        self.mean.update(losses)
        self.accuracy.update(self.net(inputs), labels)
        self.log(f"{split}/mean", self.mean, on_epoch=True)
        self.log(f"{split}/acc", self.accuracy, on_epoch=True)
        both: dict[str, Any] = {"on_step": True, "on_epoch": True, "sync_dist": True, "batch_size": len(labels)}
        self.log(f"{split}/loss", losses.mean(), **both)
        self.log(f"{split}/highest", losses.max(), **{**both, "on_step": False}, reduce_fx="max")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log."""
        self._evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return scores `[B, CLASSES]`."""
        self.seen["predict"].append(batch[0].tolist())
        scores: torch.Tensor = self.net(batch[1])
        return scores

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.5)

    def on_train_end(self) -> None:
        """Write the weights."""
        if self.global_rank == 0:
            torch.save(self.net.state_dict(), self.folder / "weights.pt")

    def teardown(self, stage: str) -> None:
        """Write what this process saw, and what it logged."""
        stage = str(self.trainer.state.fn.value)  # type: ignore[union-attr]
        torch.save(self.seen, self.folder / f"{stage}-seen-{self.global_rank}.pt")
        if self.global_rank == 0:
            logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
            torch.save(logged, self.folder / f"{stage}-numbers.pt")


def run(folder: Path, ranks: int, data: PlainData, *, method: str = "fit", **settings: Any) -> None:
    """Run it on so many processes.

    Args:
        folder: Gets what came of it.
        ranks: Processes.
        data: What on.
        method: Of the trainer.
        settings: Of the trainer and, `batch_norm`, of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    several = {"strategy": "ddp_fork", "devices": ranks} if ranks > 1 else {"devices": 1}
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    model = PlainModel(folder, batch_norm=settings.pop("batch_norm", False))
    trainer = Trainer(accelerator="cpu", **several, **quiet, **settings)  # type: ignore[arg-type]
    apply_exact_resume(trainer, 7, enabled=True, resumes=False)
    install_uneven_batches(trainer)
    quietly = {} if method in {"fit", "predict"} else {"verbose": False}
    getattr(trainer, method)(model, datamodule=data, **quietly)


def seen(folder: Path, stage: str, split: str, ranks: int) -> list[list[int]]:
    """Return the numbers of the examples of each step, of all processes together, sorted."""
    each = [torch.load(folder / f"{stage}-seen-{rank}.pt")[split] for rank in range(ranks)]
    return [sorted(number for part in together for number in part) for together in zip(*each, strict=True)]


def numbers(folder: Path, stage: str) -> dict[str, float]:
    """Return what was logged."""
    logged: dict[str, float] = torch.load(folder / f"{stage}-numbers.pt")
    return logged
