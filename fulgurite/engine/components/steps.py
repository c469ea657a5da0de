"""Give schedulers the length of the training: `${steps:total}` and `${steps:per_epoch}` in a partial block.

The length is known when the model configures its optimizers, once the data module is set up.
"""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.optim.lr_scheduler import OneCycleLR

from fulgurite.config.target_policy import locate
from fulgurite.config.view import STEP_COUNT
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


def count_steps(name: str, trainer: Trainer) -> int:
    """Return the optimizer steps, `total` or `per_epoch`, of a trainer that fits, once the data module is set up.

    Raises:
        UserError: The training or an epoch has no end.
    """
    trainer.fit_loop.setup_data()
    per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
    steps = trainer.estimated_stepping_batches if name == "total" else per_epoch
    if not math.isfinite(steps):
        remedy = "Set trainer.max_epochs or trainer.max_steps" if name == "total" else "Write the number"
        raise UserError(f"${{steps:{name}}}: the number of steps is not known. {remedy}.")
    return math.ceil(steps)


def defer_step_counts(block: DictConfig) -> None:
    """Make a partial block with step counts call its target with numbers, when the model calls it."""
    content: Any = OmegaConf.to_container(block, resolve=False)
    found = {str(name): STEP_COUNT.fullmatch(str(value)) for name, value in content.items()}
    counts = {name: match[1] for name, match in found.items() if match is not None}
    if not counts or not content.get("_partial_"):
        return
    with open_dict(block):
        block["deferred_target"] = block["_target_"]
        block["_target_"] = f"{__name__}.call_with_steps"
        for name, count in counts.items():
            # a partial, which a checkpoint of the model's hyperparameters can describe
            block[name] = {"_target_": f"{__name__}.count_steps", "_partial_": True, "name": count}


def call_with_steps(*args: Any, deferred_target: str, **kwargs: Any) -> Any:
    """Call a target with numbers in place of step counts."""
    trainer = current_context().trainer
    if trainer is None:
        raise UserError("${steps:...}: no training runs, so that there are no steps. Write the number.")
    numbers = {name: value(trainer=trainer) if _is_count(value) else value for name, value in kwargs.items()}
    return locate(deferred_target)(*args, **numbers)


def _is_count(value: Any) -> bool:
    return isinstance(value, partial) and value.func is count_steps


class ScheduleLength(Callback):
    """A callback that gives step counts the trainer, and warns of a scheduler that ends before the training."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the trainer, in each process."""
        current_context().trainer = trainer

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the trainer, whose memory the next job of a sweep needs."""
        current_context().trainer = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the length of each OneCycleLR, which fails after its last step, with that of the training."""
        for config in trainer.lr_scheduler_configs:
            steps = trainer.estimated_stepping_batches if config.interval == "step" else trainer.max_epochs or math.inf
            needed = steps / config.frequency
            length = config.scheduler.total_steps if isinstance(config.scheduler, OneCycleLR) else math.inf
            if needed > length:
                end = int(needed) if math.isfinite(needed) else "no end"
                remedy = f"Set its total_steps to ${{steps:total}}, {_by_step(pl_module)}."
                log.warning(
                    "OneCycleLR has %d steps and fails after them, the training has %s. %s", length, end, remedy
                )


def _by_step(model: LightningModule) -> str:
    """Return how a scheduler steps after each batch: the shipped model has an argument for it."""
    if "scheduler_interval" in inspect.signature(type(model).__init__).parameters:
        return "with model.scheduler_interval=step"
    return 'with "interval": "step" in what configure_optimizers returns'
