"""State in plain attributes of models, data sets, data modules and callbacks."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.support.shapes.loaders import Data, Points
from tests.support.shapes.models import Net


class Bank:
    """A user's own class."""

    def __init__(self) -> None:
        self.rows: list[torch.Tensor] = []


class Keeps(Net):
    """Keeps something in an attribute, on which its loss depends."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.losses: list[Any] = []
        self.temperature = 1.0
        self.count = 0
        self.center = torch.zeros(16)
        self.rng = np.random.default_rng(0)
        self.torch_rng = torch.Generator().manual_seed(0)
        self.python_rng = random.Random(0)
        self.recent: deque[float] = deque(maxlen=3)
        self.by_class: dict[int, torch.Tensor] = {}
        self.seen: set[int] = set()
        self.bank = Bank()
        self.large = torch.zeros(0)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        factor = float(getattr(self, f"_{self.kind}")(batch, float(loss)))
        self.log("train/loss", loss)
        self.log("train/factor", factor)
        return loss * factor

    def _list(self, batch: Any, loss: float) -> float:
        self.losses.append(loss)
        return float(np.mean(self.losses))

    def _tensors(self, batch: Any, loss: float) -> float:
        self.losses.append(torch.tensor(loss))
        return float(torch.stack(self.losses).mean())

    def _float(self, batch: Any, loss: float) -> float:
        self.temperature *= 0.9
        return self.temperature

    def _count(self, batch: Any, loss: float) -> float:
        self.count += 1
        return 1.0 / self.count

    def _tensor(self, batch: Any, loss: float) -> float:
        self.center = 0.9 * self.center + 0.1 * batch[0].mean(0)
        return 1 + float(self.center.mean())

    def _numpy(self, batch: Any, loss: float) -> float:
        return float(self.rng.random())

    def _torch(self, batch: Any, loss: float) -> float:
        return float(torch.rand(1, generator=self.torch_rng))

    def _python(self, batch: Any, loss: float) -> float:
        return self.python_rng.random()

    def _deque(self, batch: Any, loss: float) -> float:
        self.recent.append(loss)
        return sum(self.recent) / len(self.recent)

    def _dict(self, batch: Any, loss: float) -> float:
        for label in batch[1].tolist():
            self.by_class[label] = self.by_class.get(label, torch.zeros(())) + 1
        return 1.0 / float(self.by_class[int(batch[1][0])])

    def _set(self, batch: Any, loss: float) -> float:
        self.seen.update(batch[1].tolist())
        self.seen.add(int(self.global_step))
        return 1.0 / len(self.seen)

    def _own_class(self, batch: Any, loss: float) -> float:
        self.bank.rows.append(batch[0][0])
        return 1 + float(torch.stack(self.bank.rows).mean())

    def _too_large(self, batch: Any, loss: float) -> float:
        self.large = torch.full((3_000_000,), loss) + (float(self.large[0]) if len(self.large) else 0.0)
        return float(self.large[0])


class EpochLosses(Net):
    """The old outputs of training_step: a list that on_train_epoch_end reads and clears."""

    def __init__(self) -> None:
        super().__init__()
        self.outs: list[torch.Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.outs.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/epoch", torch.stack(self.outs).mean())
        self.outs.clear()


class Noisy(Points):
    """Changes its examples by generators of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__(noise=0.0)
        self.kind = kind
        self.numpy_rng = np.random.default_rng(0)
        self.torch_rng = torch.Generator().manual_seed(0)
        self.python_rng = random.Random(0)
        self.level = 0.0

    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        if self.kind == "numpy":
            x = x + torch.from_numpy(self.numpy_rng.normal(size=16)).float()
        elif self.kind == "torch":
            x = x + torch.randn(16, generator=self.torch_rng)
        elif self.kind == "python":
            x = x + self.python_rng.gauss(0, 1)
        elif self.kind == "level":
            x = x * (1 + self.level)
        return x, self.y[i], i


class Keeping(Points):
    """Keeps changed examples, or counts its reads."""

    def __init__(self, kind: str) -> None:
        super().__init__(noise=0.0)
        self.kind = kind
        self.cache: dict[int, torch.Tensor] = {}
        self.count = 0

    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        if self.kind == "count":
            self.count += 1
            return x * (1 + self.count / 100), self.y[i], i
        if i not in self.cache:
            self.cache[i] = x + torch.randn(16)
        return self.cache[i], self.y[i], i


class NoisyData(Data):
    def __init__(self, kind: str, num_workers: int = 0, persistent: bool = False) -> None:
        super().__init__("shuffle", num_workers, persistent)
        self.noise = kind

    def train_dataloader(self) -> Any:
        kind = Keeping if self.noise in ("cache", "count") else Noisy
        return self.load(kind(self.noise), shuffle=True)


class Mixup(Data):
    """Mixes a batch after it was moved, with a generator of the data module."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(3)
        self.mixed = 0

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is None or not self.trainer.training:
            return batch
        self.mixed += 1
        share = float(self.rng.beta(1.0, 1.0))
        return share * batch[0] + (1 - share) * batch[0].flip(0), batch[1], batch[2]


class NewSetEachEpoch(Data):
    """Makes another training set at each call, of a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def train_dataloader(self) -> Any:
        self.calls += 1
        return self.load(Points(seed=self.calls), shuffle=True)


class Level(Callback):
    """A curriculum: makes the examples of the next epoch larger, in the data set."""

    def __init__(self, add: bool = False) -> None:
        self.add = add

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        loader.dataset.level = loader.dataset.level + 0.5 if self.add else 0.5 * trainer.current_epoch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        ds: Any = trainer.train_dataloader.dataset  # type: ignore[union-attr]
        assert torch.equal(batch[0], ds.x[batch[2]] * (1 + ds.level)), "the level was ignored"


class Weights(Callback):
    """Draws examples with a high loss more often, by the sampler's weights."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sampler: Any = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        sampler.weights = sampler.weights * torch.linspace(0.1, 1.0, len(sampler.weights), dtype=torch.double)


class Decay(Callback):
    """Counts the steps without a better loss and then halves the learning rate, without a state_dict."""

    def __init__(self) -> None:
        self.best, self.waited = float("inf"), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        loss = float(outputs["loss"])
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(loss, self.best)
        if self.waited >= 2:
            self.waited = 0
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= 0.5
