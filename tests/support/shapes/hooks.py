"""Hooks that copy, replace or reset what a checkpoint holds, as users write them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.nn.functional import cross_entropy, mse_loss

from tests.support.shapes.models import Net


class StartCopy(Net):
    """BYOL, DQN: a target network that starts as a copy of the trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.target = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_start(self) -> None:
        self.target.load_state_dict(self.net.state_dict())

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        out = self.net(batch[0])
        return self.loss(batch) + mse_loss(out, self.target(batch[0]))

    def on_train_batch_end(self, *args: Any) -> None:
        for slow, fast in zip(self.target.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.05)


class FitStart(Net):
    """Scales the weights by the data, in on_fit_start."""

    def on_fit_start(self) -> None:
        for weight in self.net.parameters():
            weight.data.mul_(2.0)


class LoadWeights(Callback):
    """Loads weights that were trained elsewhere, and gives the optimizer another momentum."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = {name: torch.full_like(value, 0.02) for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(state)
        trainer.optimizers[0].param_groups[0]["betas"] = (0.5, 0.9)
        trainer.optimizers[0].param_groups[0]["lr"] *= 0.5


class ResetOptimizer(Net):
    """Forgets the moments of Adam at each epoch."""

    def on_train_epoch_start(self) -> None:
        optimizer: Any = self.optimizers()
        optimizer.optimizer.state.clear()


class NewOptimizer(Net):
    """Makes another optimizer at each epoch."""

    def on_train_epoch_start(self) -> None:
        self.trainer.strategy.optimizers = [self.configure_optimizers()]


class EpochScheduler(Net):
    """Moves the scheduler by hand at the start of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def on_train_epoch_start(self) -> None:
        scheduler: Any = self.lr_schedulers()
        scheduler.step()
        optimizer: Any = self.optimizers()
        optimizer.param_groups[0]["momentum"] *= 0.9

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class LogFirst(Net):
    """Logs values in the first batch of an epoch only."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        if batch_idx == 0:
            self.log("train/first", loss, on_step=False, on_epoch=True)
            self.log("train/both", 2 * loss, on_step=True, on_epoch=True, reduce_fx="max")
        return loss


class ReadsLogged(Net):
    """Weighs the loss by values that were logged in the step before."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        factor = 1.0 + self.trainer.logged_metrics.get("train/loss_step", torch.tensor(1.0))
        shown = self.trainer.progress_bar_metrics.get("train/shown", 0.0)
        loss = self.loss(batch)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/shown", loss, prog_bar=True)
        return loss * (factor + float(shown))


class SetsTrainer(Callback):
    """Sets an attribute of the trainer when the first epoch ends."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            setattr(trainer, self.name, self.value)


class ShrinkingDelta(EarlyStopping):
    """Asks for less improvement after each validation."""

    def __init__(self) -> None:
        super().__init__("val/loss", min_delta=0.5, patience=2)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.min_delta *= 0.5


class Loosen(Callback):
    """Changes a setting of Lightning's early stopping when the first epoch ends."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopping: Any = trainer.early_stopping_callback
        if trainer.current_epoch == 0:
            stopping.min_delta = -9.0


class ReinitHead(Net):
    """Makes another last layer when the first epoch ends; the optimizer keeps the weights of the old one."""

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.net[4] = torch.nn.Linear(8, 2)


class Extra(Net):
    """Has weights that the optimizer does not have at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = torch.nn.Parameter(torch.zeros(2), requires_grad=False)

    def loss(self, batch: Any) -> torch.Tensor:
        return cross_entropy(self.net(batch[0]) + self.extra, batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


class AddGroup(Callback):
    """Gives the optimizer more weights when the first epoch ends."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            extra: Any = pl_module.extra
            trainer.optimizers[0].add_param_group({"params": [extra.requires_grad_()], "lr": 0.01})


class OtherOptimizer(Net):
    """Replaces Adam by AdamW when the first epoch ends."""

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.trainer.strategy.optimizers = [torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.5)]


class GrowingQueue(Net):
    """A buffer that grows, and one that is None until the first step."""

    queue: torch.Tensor
    center: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("queue", torch.zeros(0, 2))
        self.register_buffer("center", None)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        out = self.net(batch[0])
        self.queue = torch.cat([self.queue, out.detach()])[-150:]
        mean = self.queue.mean(0)
        self.center = mean if self.center is None else 0.9 * self.center + 0.1 * mean
        return cross_entropy(out - self.center, batch[1])


class NewLayer(Net):
    """Has one layer more after the first epoch."""

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.net.append(torch.nn.Linear(2, 2))
            self.trainer.strategy.setup_optimizers(self.trainer)


class FlagOnTrainer(Net):
    """Keeps a number in an attribute of the trainer."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        trainer: Any = self.trainer
        trainer.my_factor = getattr(trainer, "my_factor", 1.0) * 0.9
        return self.loss(batch) * float(trainer.my_factor)


class LogsByNumpy(Callback):
    """Sets the logging to a number of NumPy."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vars(trainer)["log_every_n_steps"] = np.int64(1)


class EvalMode(Net):
    """Keeps batch norm in evaluation mode from the second epoch on."""

    def on_train_epoch_end(self) -> None:
        for module in self.net.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.eval()
