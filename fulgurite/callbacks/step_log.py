"""Log the training loss and the learning rates amid an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from torch import Tensor
from torch.optim import Optimizer

from fulgurite.compat.lightning import call_after_batch, is_accumulating, steps_before_batch

LOSS = "train/loss_step"
NO_HOOKS = dict.fromkeys(("on_train_batch_start", "on_train_batch_end"))


class StepLog(Callback):
    """Logs the loss of a batch and the learning rates every `trainer.log_every_n_steps` optimizer steps.

    The loss is `train/loss_step`, that of rank 0; models that log a metric of this name keep theirs. The learning rates
    have the names that Lightning's LearningRateMonitor gives them: `lr-Adam`, and `lr-Adam/pg1` for several groups. A
    run with a LearningRateMonitor leaves them to it.
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] | None = None  # of the batch whose values are logged; None for all others
        self._has_monitor = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note whether another callback logs the learning rates; the hooks of the first batch are called."""
        self._has_monitor = any(isinstance(callback, LearningRateMonitor) for callback in vars(trainer)["callbacks"])
        if type(self) is StepLog:  # the hooks of a subclass may do more
            call_after_batch(trainer, self, partial(self._set_hooks, trainer))
            for name in NO_HOOKS:  # a resume restores the settings of the trainer later
                vars(self).pop(name, None)

    def _set_hooks(self, trainer: Trainer) -> None:
        """Let Lightning call the hooks in logged steps only: it opens a profiler context at each call."""
        if is_logged_step(trainer):
            for name in NO_HOOKS:
                vars(self).pop(name, None)
        else:
            vars(self).update(NO_HOOKS)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the learning rates before the schedulers step."""
        self._rates = None
        if is_logged_step(trainer):
            self._rates = {} if self._has_monitor else learning_rates(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the values of the batch that ends an optimizer step."""
        if self._rates is None or is_accumulating(trainer):
            return
        values = {**self._rates, "epoch": trainer.current_epoch}
        if (loss := batch_loss(trainer, outputs)) is not None and LOSS not in trainer.callback_metrics:
            values[LOSS] = float(loss)
        for logger in trainer.loggers:
            logger.log_metrics(values, steps_before_batch(trainer))
        self._rates = None


def is_logged_step(trainer: Trainer) -> bool:
    """Return whether the values of the step to come are logged; a stop adds none: a resumed run would lack them."""
    every: int = vars(trainer)["log_every_n_steps"]
    return every > 0 and (steps_before_batch(trainer) + 1) % every == 0


def learning_rates(optimizers: Sequence[Optimizer]) -> dict[str, float]:
    """Return the learning rate of each parameter group of each optimizer by its name."""
    rates: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for optimizer in optimizers:
        kind = type(optimizer).__name__
        name = f"lr-{kind}-{seen[kind]}" if seen[kind] else f"lr-{kind}"
        seen[kind] += 1
        groups = optimizer.param_groups
        for number, group in enumerate(groups, start=1):
            rates[f"{name}/pg{number}" if len(groups) > 1 else name] = float(group["lr"])
    return rates


def batch_loss(trainer: Trainer, outputs: Any) -> Tensor | None:
    """Return the loss of a training batch as the model returned it; None without one, as in manual optimization."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        return None
    is_divided = trainer.lightning_module.automatic_optimization  # Lightning divides it by the accumulated batches
    return loss.detach() * trainer.accumulate_grad_batches if is_divided else loss.detach()
