"""State in objects that a model, a data module or a callback holds, as users write it."""

from __future__ import annotations

import array
import copy
import multiprocessing
import queue
import random
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.support.shapes.models import Net


class ListedTeacher(Net):
    """Keeps a teacher in a list, so that its weights are not trained and not saved by Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self.teachers = [copy.deepcopy(self.net).requires_grad_(False)]

    def teacher(self) -> nn.Module:
        return self.teachers[0]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch) + mse_loss(self.net(batch[0]), self.teacher()(batch[0]))

    def on_train_batch_end(self, *args: Any) -> None:
        for slow, fast in zip(self.teacher().parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.1)


class HiddenTeacher(ListedTeacher):
    """Hides the teacher from `nn.Module`."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "hidden", self.teachers.pop())

    def teacher(self) -> nn.Module:
        hidden: nn.Module = self.__dict__["hidden"]
        return hidden


class OwnOptimizer(Net):
    """Trains a temperature with an optimizer that Lightning does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1))
        self.temperature_optimizer = torch.optim.Adam([self.temperature], lr=0.05)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return cross_entropy(self.net(batch[0]) * self.temperature, batch[1])

    def on_train_batch_end(self, *args: Any) -> None:
        self.temperature_optimizer.step()
        self.temperature_optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=self.lr)


class OwnScheduler(Net):
    """Steps a scheduler that Lightning does not know."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=40)
        return optimizer

    def on_train_batch_end(self, *args: Any) -> None:
        self.scheduler.step()


class KeepsLoader(Net):
    """Reads batches of a loader of its own."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(4)
        examples = TensorDataset(torch.randn(32, 16, generator=draws), torch.arange(32) % 2)
        self.late = DataLoader(examples, 8, shuffle=True, generator=draws)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch) + self.loss(next(iter(self.late)))


class Buffer(Dataset[Any]):
    def __init__(self) -> None:
        self.items: list[Any] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Replay(Net):
    """Trains on batches of the past too."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Buffer()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.memory.items.append((batch[0], batch[1]))
        past = self.memory[int(torch.randint(len(self.memory), (1,)))]
        return self.loss(batch) + self.loss(past)


class Slots:
    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.mean, self.count = 0.0, 0

    def update(self, value: float) -> float:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        return self.mean


class Environment:
    """Holds nested objects, one of which is shared."""

    def __init__(self) -> None:
        self.statistics = Slots()
        self.policy: dict[str, Any] = {"statistics": self.statistics, "draws": torch.Generator().manual_seed(2)}

    def weight(self, loss: float) -> float:
        mean = self.statistics.update(loss)
        assert self.policy["statistics"] is self.statistics
        return mean + float(torch.rand(1, generator=self.policy["draws"]))


def counting_loss() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    seen = [0]

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen[0] += 1
        return cross_entropy(out, target) * (1 + 0.1 * seen[0])

    return loss


def _scaled_loss(seen: list[int], out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    seen[0] += 1
    return cross_entropy(out, target) * (1 + 0.1 * seen[0])


class Counted(nn.Module):
    calls = 0  # of all objects of the class

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            Counted.calls += 1
        return x * (1 + 0.05 * Counted.calls)


class Holds(Net):
    """Weights its loss by state of some kind.

    Args:
        kind: What the state is.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.holder: Any = None
        draws = torch.Generator().manual_seed(1)
        self.bank = torch.zeros(24, 2)
        self.views = {"bank": self.bank, "row": self.bank[3]}
        if kind == "class of a submodule":
            self.net.append(Counted())
        elif kind == "forward hook":
            calls = {"count": 0}

            def scale(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
                calls["count"] += module.training
                return out * (1 + 0.1 * calls["count"])

            self.net[0].register_forward_hook(scale)
        else:
            make: dict[str, Callable[[], Any]] = {
                "long list": lambda: [0.0] * 20_000,
                "slots": Slots,
                "environment": Environment,
                "queue": lambda: queue.Queue(4),
                "weak dict": lambda: weakref.WeakKeyDictionary({self.net: 1.0}),
                "array": lambda: array.array("d"),
                "bytearray": lambda: bytearray(64),
                "shared value": lambda: multiprocessing.Value("d", 1.0),
                "sparse": lambda: torch.eye(2).to_sparse(),
                "closure": counting_loss,
                "partial": lambda: partial(_scaled_loss, [0]),
                "bound method": lambda: random.Random(3).random,
                "metrics": lambda: {"f1": [torchmetrics.MeanMetric()]},
                "large": lambda: torch.randn(1_500_000, generator=draws),
            }
            self.holder = make[kind]() if kind in make else None

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        out = self.net(batch[0])
        if self.kind in ("closure", "partial"):
            loss: torch.Tensor = self.holder(out, batch[1])
            return loss
        loss = cross_entropy(out, batch[1])
        weight: torch.Tensor = loss * self.weight(loss.item(), out.detach())
        return weight

    def weight(self, loss: float, out: torch.Tensor) -> Any:  # noqa: C901, PLR0912 - one case for each kind
        held, step = self.holder, self.trainer.global_step
        match self.kind:
            case "long list":
                held[step] = loss
                weight: Any = 1 + sum(held)
            case "slots":
                weight = held.update(loss)
            case "environment":
                weight = held.weight(loss)
            case "queue":
                if held.full():
                    held.get()
                held.put(loss)
                weight = sum(held.queue)
            case "weak dict":
                held[self.net] *= 1.03
                weight = held[self.net]
            case "array":
                held.append(loss)
                weight = sum(held)
            case "bytearray":
                held[step % 64] = int(loss * 100) % 256
                weight = 1 + sum(held) / 1000
            case "shared value":
                held.value *= 0.95
                weight = held.value
            case "bound method":
                weight = 1 + held()
            case "sparse":
                self.holder = (held * 0.97).coalesce()
                weight = torch.sparse.sum(self.holder)
            case "metrics":
                held["f1"][0].update(loss)
                weight = held["f1"][0].compute()
            case "large":
                held[step * 1000] = 9.0 + loss
                weight = held.abs().max()
            case "alias":
                self.bank[step % 24] = out.mean(0)
                weight = 1 + self.views["bank"].sum().abs() + self.views["row"].sum().abs()
            case _:
                weight = 1.0
        return weight


class ReadsHparams(Callback):
    """Weights the learning rate by a counter in the hyperparameters of the data module."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        held: Any = trainer.datamodule.hparams  # type: ignore[attr-defined]
        held["seen"] = held.get("seen", 0) + 1
        trainer.optimizers[0].param_groups[0]["lr"] = 0.05 / held["seen"]


class UnsavedBuffer(Net):
    """Counts in a buffer that is no part of its state_dict, in place or by a new tensor.

    Args:
        in_place: Whether the buffer stays the same tensor.
    """

    seen: torch.Tensor

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("seen", torch.tensor(0.0), persistent=False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.in_place:
            self.seen.add_(1)
        else:
            self.seen = self.seen + 1
        weighted: torch.Tensor = self.loss(batch) * (1 + 0.1 * self.seen)
        return weighted


class LateLayer(Net):
    """Makes a layer in `configure_model`."""

    def __init__(self) -> None:
        super().__init__()
        self.late: nn.Module | None = None

    def configure_model(self) -> None:
        if self.late is None:
            self.late = nn.Linear(2, 2)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        assert self.late is not None
        return cross_entropy(self.late(self.net(batch[0])), batch[1])


class DropsAttribute(Net):
    """Deletes an attribute after the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.bonus = 5.0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        weighted: torch.Tensor = self.loss(batch) * getattr(self, "bonus", 1.0)
        return weighted

    def on_train_epoch_end(self) -> None:
        vars(self).pop("bonus", None)


class Restructures(Net):
    """Changes its structure after the first epoch.

    Args:
        kind: What changes.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.twin = nn.Linear(16, 8)

    def loss(self, batch: Any) -> torch.Tensor:
        total: torch.Tensor = super().loss(batch) + self.twin(batch[0]).square().mean()
        return total

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            if self.kind == "activation":
                self.net[2] = nn.GELU()
            elif self.kind == "hook":
                self.net[0].register_forward_hook(_halve)
            elif self.kind == "weight hook":
                next(self.net.parameters()).register_hook(lambda gradient: gradient * 0.5)  # type: ignore[no-untyped-call]
            else:
                self.twin.weight = self.net[0].weight  # type: ignore[assignment]


def _halve(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
    return out * 0.5
