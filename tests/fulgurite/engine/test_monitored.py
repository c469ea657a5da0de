"""Names of monitored metrics are checked before the first step, and plateau schedulers step after validations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

import fulgurite
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.engine.components.kinds import require_steps
from fulgurite.engine.components.missing_metric import explain_missing_metric
from fulgurite.engine.components.monitored import MonitoredMetrics, monitoring_callbacks
from fulgurite.engine.outcome import classify_error
from src.train import train
from tests.conftest import ComposeSmall


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("monitor=val/accc", "monitor=val/accc: the validation logs no such metric. Did you mean 'val/acc'"),
        ("callbacks.early_stopping.monitor=val/los", "callbacks.early_stopping.monitor=val/los: .* 'val/loss'"),
        ("model.scheduler_monitor=valid/loss", "model.scheduler_monitor=valid/loss: .* Did you mean 'val/loss'"),
        ("optimized_metric=val/ac_best", "optimized_metric=val/ac_best: .* Did you mean 'val/acc_best'"),
        ("++trainer.limit_val_batches=0", "monitor=val/acc: the run has no validation .trainer.limit_val_batches=0."),
    ],
)
def test_a_metric_that_validation_does_not_log_is_refused_before_the_first_step(
    override: str, line: str, small: ComposeSmall, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line):
        train(small(override))
    assert not list((tmp_path / "run").glob("**/*.ckpt"))
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 4),
        ({"check_val_every_n_epoch": 2}, 2),
        ({"check_val_every_n_epoch": None, "val_check_interval": 9}, 1),  # epochs of 4 batches: after batch 9 of 16
        ({"val_check_interval": 2}, 4),
    ],
)
def test_a_plateau_scheduler_steps_after_epochs_with_a_validation(settings: dict[str, Any], steps: int) -> None:
    model, trainer = Line(), _trainer(max_epochs=4, **settings)
    trainer.fit(model, _loader(), _loader())
    scheduler = model.lr_schedulers()
    assert isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert scheduler.last_epoch == steps


def test_a_plateau_scheduler_that_watches_the_training_steps_every_epoch() -> None:
    model, trainer = Line(monitor="train/loss"), _trainer(max_epochs=4, check_val_every_n_epoch=2)
    trainer.fit(model, _loader(), _loader())
    scheduler = model.lr_schedulers()
    assert isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert scheduler.last_epoch == 4


def test_a_model_that_logs_less_in_the_sanity_check_is_checked_later() -> None:
    model, trainer = LogsLater(), _trainer(max_epochs=1, names={"monitor": "val/best"})
    trainer.fit(model, _loader(), _loader())
    assert "val/best" in trainer.callback_metrics


def test_lightnings_error_about_a_metric_becomes_one_line() -> None:
    texts = [
        (
            "Early stopping conditioned on metric `acc` which is not available. Pass in or modify your `EarlyStopping` "
            "callback to use any of the following: `train/loss`, `val/acc`"
        ),
        (
            "ReduceLROnPlateau conditioned on metric acc which is not available. Available metrics are: ['train/loss', "
            "'val/acc']. Condition can be set using `monitor` key in lr scheduler dict"
        ),
        (
            "`ModelCheckpoint(monitor='acc')` could not find the monitored key in the returned metrics: ['train/loss', "
            "'val/acc']. HINT: Did you call `log('acc', value)` in the `LightningModule`?"
        ),
    ]
    for text in texts:
        outcome = classify_error(RuntimeError(text))
        assert outcome.exit_code == 2
        assert outcome.reason.startswith("monitor=acc: the run logs no such metric")
        assert outcome.reason.endswith("(logged: train/loss, val/acc)")
    assert explain_missing_metric(RuntimeError("something else")) is None


def test_a_metric_of_the_training_epoch_is_named_with_its_remedy(small: ComposeSmall) -> None:
    with pytest.raises(RuntimeError) as caught:
        train(small("monitor=train/loss", "monitor_mode=min"))
    line = classify_error(caught.value).reason
    assert line.startswith("monitor=train/loss: ")
    assert line.endswith("logged after this check: set callbacks.early_stopping.check_on_train_epoch_end=true")
    train(small("monitor=train/loss", "monitor_mode=min", "callbacks.early_stopping.check_on_train_epoch_end=true"))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("train=true", "test=true"), "test=true: Line has no test_step. Add one, or set test=false."),
        (("train=true", "test=false"), ""),
    ],
)
def test_a_missing_step_is_reported_before_training(overrides: tuple[str, ...], line: str) -> None:
    cfg = fulgurite.compose(overrides)
    if line:
        with pytest.raises(UserError, match=line):
            require_steps(Line(), cfg)
    else:
        require_steps(Line(), cfg)


def test_all_missing_steps_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        require_steps(LightningModule(), fulgurite.compose(["train=true", "test=true"]))
    assert [line.partition(":")[0] for line in caught.value.findings] == ["train=true", "test=true"]


@pytest.mark.parametrize("settings", [{}, {"limit_val_batches": 0}])
def test_all_wrong_names_are_reported_together(settings: dict[str, Any]) -> None:
    names = {"monitor": "val/los", "optimized_metric": "val/ac"}
    with pytest.raises(ConfigError) as caught:
        _trainer(names, max_epochs=1, **settings).fit(Line("train/loss"), _loader(), _loader())
    assert [line.partition(":")[0] for line in caught.value.findings] == ["monitor=val/los", "optimized_metric=val/ac"]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"patience": 2, "min_delta": 9.0}, "stopped early in epoch 2: val/loss has not improved for 2 checks (best "),
        ({"patience": 1, "min_delta": 9.0}, "stopped early in epoch 1: val/loss has not improved for 1 check (best "),
        ({"stopping_threshold": 1e9}, "stopped early in epoch 0: Stopping threshold reached: val/loss = "),
        ({"divergence_threshold": -1.0}, "stopped early in epoch 0: Divergence threshold reached: val/loss = "),
        ({"patience": 3, "min_delta": 9.0}, ""),  # at the last epoch anyway
        ({"patience": 9}, ""),
    ],
)
def test_an_early_stop_says_why(caplog: pytest.LogCaptureFixture, settings: dict[str, Any], line: str) -> None:
    trainer = _trainer(max_epochs=4)
    vars(trainer)["callbacks"].append(EarlyStopping("val/loss", **settings))
    with caplog.at_level("INFO", "fulgurite"):
        trainer.fit(Line(), _loader(), _loader())
    found = [text for text in caplog.messages if "stopped early" in text]
    assert len(found) == bool(line), found
    assert not line or found[0].startswith(line)


def test_a_metric_that_is_not_finite_is_the_reason_of_an_early_stop(caplog: pytest.LogCaptureFixture) -> None:
    trainer, model = _trainer(max_epochs=4), Line()
    vars(trainer)["callbacks"].append(EarlyStopping("val/loss"))
    torch.nn.init.constant_(model.layer.weight, torch.nan)
    with caplog.at_level("INFO", "fulgurite"):
        trainer.fit(model, _loader(), _loader())
    assert [text for text in caplog.messages if "stopped early" in text] == [
        "stopped early in epoch 0: val/loss = nan is not finite. Previous best value was inf"
    ]


def test_a_stop_before_a_resume_is_not_the_reason_of_another_stop(caplog: pytest.LogCaptureFixture) -> None:
    class Stops(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    stopping, trainer = EarlyStopping("val/loss", patience=9), _trainer(max_epochs=4)
    vars(trainer)["callbacks"] += [stopping, Stops()]
    stopping.stopping_reason, stopping.stopping_reason_message = EarlyStoppingReason.PATIENCE_EXHAUSTED, "earlier"
    progress: Any = trainer.fit_loop.epoch_progress.current
    progress.processed = progress.completed = 1
    with caplog.at_level("INFO", "fulgurite"):
        trainer.fit(Line(), _loader(), _loader())
    assert not [text for text in caplog.messages if "stopped early" in text]


class Line(LightningModule):
    """A model with a plateau scheduler and without a test step."""

    def __init__(self, monitor: str = "val/loss") -> None:
        super().__init__()
        self.layer, self.monitor = torch.nn.Linear(1, 1), monitor

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.layer(batch[0]).square().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor}}


class LogsLater(Line):
    """A model that logs a metric outside the sanity check only."""

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if not self.trainer.sanity_checking:
            self.log("val/best", 1.0)


def _loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=2)


def _trainer(names: dict[str, str] | None = None, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
    }
    callback = MonitoredMetrics(names or {}, {"model.scheduler_monitor": "val/loss"})
    return Trainer(callbacks=[callback], enable_model_summary=False, **quiet, **settings)


def test_keys_of_a_config_may_be_numbers() -> None:
    schedule = {"scheduling": {1: 2, 4: {"monitor": "val/acc"}}}
    (callback,) = monitoring_callbacks(OmegaConf.create({"callbacks": {"accumulation": schedule}}))
    assert isinstance(callback, MonitoredMetrics)
    assert callback.names == {"callbacks.accumulation.scheduling.4.monitor": "val/acc"}
