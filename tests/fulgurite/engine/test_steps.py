"""Schedulers get the length of the training, and lazy modules are counted as not initialized."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.checkpoints.plain import plain_hyperparameters
from fulgurite.compat.hydra import unchecked
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.engine.build import build
from fulgurite.engine.components.steps import ScheduleLength, defer_step_counts
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import read_json
from tests.support.compose import findings
from tests.support.quiet_trainer import quiet_trainer


class Own(LightningModule):
    """A model that makes its scheduler itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return a loss."""
        loss: Tensor = self.layer(batch[0]).sum()
        return loss

    def configure_optimizers(self) -> Any:
        """Make a scheduler that is too short."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


CYCLE = (
    "model.scheduler._target_=torch.optim.lr_scheduler.OneCycleLR",
    "+model.scheduler.max_lr=0.1",
    "model.scheduler_interval=step",
    "callbacks.early_stopping=null",
    "test=false",
)
TOTAL = "+model.scheduler.total_steps=${steps:total}"


def test_a_scheduler_gets_the_steps_of_the_training(small: ComposeSmall) -> None:
    cfg = small(*CYCLE, TOTAL, "trainer.max_epochs=3", "+trainer.accumulate_grad_batches=2")
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert vars(run.trainer.lr_scheduler_configs[0].scheduler)["total_steps"] == run.trainer.global_step == 6
    assert current_context().trainer is None, "its memory is free for the next job"
    assert cfg.model.scheduler._target_ == "torch.optim.lr_scheduler.OneCycleLR"


def test_a_scheduler_gets_the_steps_of_an_epoch(small: ComposeSmall) -> None:
    cfg = small(
        "model.scheduler._target_=torch.optim.lr_scheduler.StepLR",
        "+model.scheduler.step_size=${steps:per_epoch}",
        "+trainer.accumulate_grad_batches=3",
        "test=false",
    )
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert vars(run.trainer.lr_scheduler_configs[0].scheduler)["step_size"] == 2


def test_a_training_without_an_end_has_no_total(small: ComposeSmall) -> None:
    run = build(small(*CYCLE, TOTAL, "trainer.max_epochs=-1"))
    with pytest.raises(
        UserError, match=r"^\$\{steps:total\}: the number of steps is not known\. Set trainer\.max_epochs"
    ):
        run.trainer.fit(run.model, datamodule=run.datamodule)


def test_a_scheduler_that_is_too_short_is_named_before_the_first_batch(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture
) -> None:
    run = build(small(*CYCLE, "+model.scheduler.total_steps=3"))
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="Tried to step 4 times"):
        run.trainer.fit(run.model, datamodule=run.datamodule)
    said = (
        "OneCycleLR has 3 steps and fails after them, the training has 4. Set its total_steps to ${steps:total}, with "
    )
    assert f"{said}model.scheduler_interval=step." in caplog.text


def test_a_model_without_that_argument_sets_the_interval_in_its_code(caplog: pytest.LogCaptureFixture) -> None:
    trainer = quiet_trainer(max_epochs=2, callbacks=[ScheduleLength()], enable_checkpointing=False)
    loader = DataLoader(TensorDataset(torch.zeros(8, 2)), 2)
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="Tried to step"):
        trainer.fit(Own(), loader)
    assert '${steps:total}, with "interval": "step" in what configure_optimizers returns.' in caplog.text


def test_a_run_of_one_step_for_debugging_warns_of_no_missing_checkpoint(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture
) -> None:
    run = build(small("+trainer.fast_dev_run=true", "callbacks.last_checkpoint.every_n_train_steps=1"))
    with caplog.at_level(logging.WARNING):
        run.trainer.fit(run.model, datamodule=run.datamodule)
        assert run.checkpoint_to_test() is None
    assert "no checkpoint was saved" not in caplog.text
    assert "no state can be saved" not in caplog.text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.num_classes=${steps:total}"], "is known only when the model calls a block with _partial_: true"),
        (["model.scheduler.patience=${steps:totl}"], "names no number of steps. Write ${steps:total}"),
        (["model.scheduler.patience='${oc.decode:${steps:total}}'"], "names no number of steps"),
        (
            [
                "model.scheduler._target_=torch.optim.lr_scheduler.MultiStepLR",
                "+model.scheduler.milestones=[${steps:total}]",
            ],
            "model.scheduler.milestones[0]: is known only when the model calls a block",
        ),
    ],
)
def test_a_number_of_steps_elsewhere_is_refused(overrides: list[str], said: str) -> None:
    (line,) = findings(*overrides)
    assert said in line


def test_a_block_in_a_list_gets_a_number_of_steps() -> None:
    block = "{_target_: torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 1, total_steps: ${steps:total}}"
    assert findings(f"+vars.schedulers=[{block}]") == []


def test_a_block_with_a_number_of_steps_is_a_hyperparameter_that_checkpoints_hold() -> None:
    text = "{_target_: torch.optim.lr_scheduler.OneCycleLR, _partial_: true, max_lr: 1, total_steps: '${steps:total}'}"
    block = OmegaConf.create(text)
    assert isinstance(block, DictConfig)
    defer_step_counts(block)
    plain, left_out = plain_hyperparameters({"scheduler": instantiate(block, **unchecked())})
    assert left_out == {}
    assert plain["scheduler"]["total_steps"]["name"] == "total"


def test_a_run_with_lazy_modules_and_steps_is_recorded(small: ComposeSmall, tmp_path: Path) -> None:
    flatten = "{_target_: torch.nn.Flatten}"
    layers = f"[{flatten},{{_target_: torch.nn.LazyLinear, out_features: 10}}]"
    train(small(*CYCLE, TOTAL, "model.net._target_=torch.nn.Sequential", f"+model.net._args_={layers}"))
    record = read_json(tmp_path / "run" / "run.json")
    assert record["status"] == "done"
    assert record["parameters"] == {"total": 0, "trainable": 0, "not_initialized": 2}
