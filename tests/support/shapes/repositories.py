"""Code as it stands in public repositories: lazy generators, criteria by epoch, saved means of weights, warm-ups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from tests.support.shapes.loaders import ROWS, Data, Points
from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use


class LazyGenerator(Points):
    """Makes its generator where it is used first."""

    def __init__(self) -> None:
        super().__init__(noise=0.0)
        self.g: torch.Generator | None = None

    def __getitem__(self, i: int) -> Any:
        if self.g is None:
            self.g = torch.Generator().manual_seed(torch.initial_seed() % 1000)
        return self.x[i] + torch.randn(16, generator=self.g), self.y[i], i


class Strong(Points):
    """Augments once an attribute says so, whose default is that of the class."""

    strong = False

    def __getitem__(self, i: int) -> Any:
        x, y, number = super().__getitem__(i)
        return (x + torch.randn(16) if self.strong else x), y, number


class Given(Data):
    """Trains on a data set of a class."""

    def setup(self, stage: str) -> None:
        self.ds = {"lazy": LazyGenerator, "strong": Strong, "steps": ReadsSteps}[self.kind]()
        if self.kind == "steps":
            self.ds.owner = self

    def train_dataloader(self) -> Any:
        return self.load(self.ds, shuffle=True)


class Strengthens(Callback):
    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 18:
            trainer.train_dataloader.dataset.strong = True


class ReadsSteps(Points):
    owner: Any

    def __getitem__(self, i: int) -> Any:
        x, y, number = super().__getitem__(i)
        return x / (1 + self.owner.trainer.global_step), y, number


class ByProgress(Data):
    """Makes its loaders of the progress of the training."""

    trainer: Any

    def train_dataloader(self) -> Any:
        noise = 0.1 + self.trainer.current_epoch + self.trainer.global_step / 100
        return self.load(Points(noise=noise), shuffle=True)

    def val_dataloader(self) -> Any:
        return self.load(Points(24, 1 + self.trainer.current_epoch, 0.0))


class Prefetches:
    """A loader that is no DataLoader, with a generator of its own."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.rng = loader, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for x, y, i in self.loader:
            yield x + self.rng.random(), y, i


class PrefetchedValidation(Data):
    def val_dataloader(self) -> Any:
        return Prefetches(self.load(Points(24, 1, 0.0)))


class InBatchSampler(Data):
    def train_dataloader(self) -> Any:
        ds = Points()
        inner = WeightedRandomSampler([1.0] * ROWS, ROWS) if self.kind == "weighted" else RandomSampler(ds)
        return DataLoader(ds, batch_sampler=BatchSampler(inner, 8, drop_last=False), **self.kw)


class ChangesBatches(Callback):
    """Changes the batch sampler that the loader has, after a look at it."""

    def __init__(self, form: str) -> None:
        self.form = form

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        batches: Any = trainer.train_dataloader.batch_sampler
        assert isinstance(batches, BatchSampler)
        assert {type(index) for index in next(iter(batches))} == {int}
        if self.form == "weights":
            sampler: Any = batches.sampler
            sampler.weights = (torch.arange(ROWS) == 3).double()
        elif self.form == "size":
            batches.batch_size, batches.drop_last = 6, True
        else:
            batches.sampler = RandomSampler(trainer.train_dataloader.dataset)

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch > 0:
            assert self.form != "weights" or set(batch[2].tolist()) == {3}
            assert self.form != "size" or len(batch[2]) == 6


class ByEpoch(Net):
    """Switches to another of its modules after the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.smooth = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.3)
        self.soft, self.hard = nn.Softplus(), nn.ReLU6()
        self.criterion: nn.Module = self.plain
        self.activation: nn.Module = self.soft

    def loss(self, batch: Any) -> torch.Tensor:
        return self.criterion(self.activation(self.net(batch[0])), batch[1])  # type: ignore[no-any-return]

    def on_train_epoch_end(self) -> None:
        self.criterion, self.activation = self.smooth, self.hard


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))


class SavesOther(Net):
    """Saves something else than its weights and states."""

    mean: dict[str, torch.Tensor]

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        object.__setattr__(self, "mean", {name: value.clone() for name, value in self.net.state_dict().items()})

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for name, value in self.net.state_dict().items():
            self.mean[name] = torch.lerp(self.mean[name].float(), value.float(), 0.1).to(value.dtype)

    def state_dict(self, *args: Any, **more: Any) -> Any:
        state = super().state_dict(*args, **more)
        return {f"net.{name}": value for name, value in self.mean.items()} if self.form == "state_dict" else state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.form == "mean":
            checkpoint["state_dict"] = {f"net.{name}": value for name, value in self.mean.items()}
        elif self.form == "half":
            state = checkpoint["state_dict"].items()
            checkpoint["state_dict"] = {k: v.half() if v.is_floating_point() else v for k, v in state}
        elif self.form == "no states":
            for state in checkpoint["optimizer_states"]:
                state["state"] = {}


class Warmup(LRScheduler):
    """Warms up, and then follows another scheduler that it keeps in an attribute."""

    def __init__(self, optimizer: Any, steps: int, after: LRScheduler) -> None:
        self.steps, self.after = steps, after
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        return [rate * min(1.0, (self.last_epoch + 1) / self.steps) for rate in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.steps:
            super().step()
        else:
            self.after.step()
            self._last_lr = self.after.get_last_lr()


class WarmsUp(Net):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = Warmup(optimizer, 5, CosineAnnealingLR(optimizer, 20))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class AtMilestones(LearningRateFinder):
    """Searches the learning rate at the start of some epochs, as Lightning's documentation has it."""

    def __init__(self) -> None:
        super().__init__(num_training_steps=5)

    def on_fit_start(self, *args: Any) -> None: ...

    def on_train_epoch_start(self, trainer: Any, model: Any) -> None:
        if trainer.current_epoch < 2:
            self.lr_find(trainer, model)


class Squares(Net):
    def loss(self, batch: Any) -> torch.Tensor:
        return cross_entropy(self.net(batch[0].double()), batch[1])


def _data(name: str, kind: str, group: str, data: str = "Given", **more: Any) -> Shape:
    node = use(f"repositories.{data}", kind=kind, num_workers=more.pop("workers", 0))
    return Shape(name, group, data=node, **more)


def _calls(name: str, **arguments: Any) -> dict[str, Any]:
    return {"added": use(f"repositories.{name}", **arguments)}


IN_WORKERS: dict[str, Any] = {"workers": 1, "expect": "named"}
STATE, LOOKING, SAVED = "state in attributes", "code that looks at loaders", "content of checkpoints"
REPOSITORIES = [
    _data("data set: a torch generator made at its first use", "lazy", STATE),
    _data(
        "data set: a torch generator made at its first use, in workers",
        "lazy",
        STATE,
        line="LazyGenerator.g: DataLoader workers change it",
        **IN_WORKERS,
    ),
    *(
        _data(f"data set: a default of its class that a callback overrides{text}", "strong", STATE, **more)
        for text, more in (
            ("", {"callbacks": _calls("Strengthens")}),
            (", in workers", {"callbacks": _calls("Strengthens"), "workers": 1}),
        )
    ),
    _data("data set: trainer.global_step", "steps", STATE),
    _data("data set: trainer.global_step, in workers", "steps", STATE, line="trainer.global_step", **IN_WORKERS),
    *(
        _data(f"loaders made of current_epoch and global_step{text}", "", LOOKING, data="ByProgress", overrides=more)
        for text, more in (
            ("", ()),
            (", reload_dataloaders_every_n_epochs=2", ("+trainer.reload_dataloaders_every_n_epochs=2",)),
        )
    ),
    _data("a validation loader of a class of your own", "shuffle", LOOKING, data="PrefetchedValidation"),
    *(
        _data(
            f"batch_sampler.{text}, set after an epoch",
            kind,
            LOOKING,
            data="InBatchSampler",
            callbacks=_calls("ChangesBatches", form=form),
            **more,
        )
        for text, kind, form, more in (
            ("sampler.weights", "weighted", "weights", {}),
            ("batch_size and drop_last", "random", "size", {}),
            ("sampler", "random", "sampler", {"expect": "named", "line": "it was replaced"}),
        )
    ),
    Shape("a criterion that is switched to another module", "objects in attributes", model=use("repositories.ByEpoch")),
    Shape("LazyLinear and LazyBatchNorm1d", "optimization", model=use("repositories.Lazy")),
    *(
        Shape(text, SAVED, model=use("repositories.SavesOther", form=form), expect="named", line=line)
        for text, form, line in (
            ("on_save_checkpoint that saves a mean of the weights", "mean", "saves other values"),
            ("state_dict() that returns a mean of the weights", "state_dict", "saves other values"),
            ("on_save_checkpoint that rounds the weights", "half", "saves other values"),
            ("on_save_checkpoint that empties states of optimizers", "no states", "leaves out states of optimizers"),
        )
    ),
    Shape("a scheduler that keeps another one", "schedulers by step", model=use("repositories.WarmsUp")),
    Shape("precision=64-true", "trainer", model=use("repositories.Squares"), overrides=("+trainer.precision=64-true",)),
    Shape("LearningRateFinder at milestones", "Lightning's callbacks", callbacks=_calls("AtMilestones")),
]
