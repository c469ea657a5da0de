"""`validate=deep`: one batch through each loop, with names and shapes checked and nothing left behind."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, open_dict
from torch.utils.data import DataLoader, TensorDataset

from fulgurite import build
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.engine.build import _instantiate
from fulgurite.engine.components.arguments import with_attributes
from fulgurite.engine.components.steps import ScheduleLength
from fulgurite.validation.deep.check import Report, check_batches, describe_batch
from fulgurite.validation.deep.memory import Memory
from src.models.classifier import Classifier
from tests.conftest import ComposeSmall
from tests.support.compose import findings
from tests.support.writer import Writer


def check(cfg: DictConfig) -> Report:
    """Run the check alone, as `build` does."""
    return check_batches(cfg, with_attributes(cfg), _instantiate, lambda: [ScheduleLength()])


def test_shapes_metrics_and_memory_of_each_loop_are_reported(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small("scheduler=warmup_cosine", "+trainer.accumulate_grad_batches=4", "trainer.check_val_every_n_epoch=5")
    with caplog.at_level(logging.INFO):
        report = check(cfg)
    batch = f"[{cfg.data.batch_size}, 1, 28, 28] float32, [{cfg.data.batch_size}] int64"
    assert report.shapes == dict.fromkeys(("train", "validate", "test"), batch)
    assert report.metrics["train"] == {"train/loss", "train/acc"}
    assert report.metrics["validate"] == {"val/loss", "val/acc", "val/acc_best"}
    assert report.metrics["test"] == {"test/loss", "test/acc"}
    memory = report.memory
    assert memory is not None
    weights = memory.gradients
    assert memory.parameters >= weights  # buffers of batch norm
    assert 2 * weights <= memory.optimizer <= 2 * weights + 1000  # Adam has two moments and a counter
    assert memory.activations is not None
    assert memory.activations > cfg.data.batch_size * 28 * 28 * 4 / 2
    assert f"validate=deep: training batch {batch}, logs train/acc, train/loss" in caplog.text
    assert "validate=deep: memory" in caplog.text


def test_the_run_has_the_weights_and_random_numbers_that_it_has_without(small: ComposeSmall, tmp_path: Path) -> None:
    runs = []
    for words in ((), ("validate=deep",)):
        cfg = small(*words, "seed=3")
        weights = build(cfg).model.state_dict()
        runs.append((weights, random.random(), np.random.rand(), torch.rand(3)))  # noqa: NPY002
    (plain, *numbers), (deep, *same) = runs
    assert all(torch.equal(plain[name], deep[name]) for name in plain)
    assert [str(number) for number in numbers] == [str(number) for number in same]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"metrics.csv"}
    assert torch.is_grad_enabled()


def test_no_callback_is_called_and_no_logger_writes(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "effects").mkdir()
    writer = {"_target_": "tests.support.writer.Writer", "folder": str(tmp_path / "effects")}
    logged: list[float] = []

    def log_by_itself(self: Classifier, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.trainer.checkpoint_callback is not None
        logger: Any = self.logger
        logger.experiment.add_scalar("mine", 1.0, batch_idx)
        logger.log_metrics({"mine": 1.0}, batch_idx)
        logged.append(1.0)

    cfg = small("validate=deep", "logger=csv")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with open_dict(cfg):
        cfg.callbacks.mine = writer
    monkeypatch.setattr(Classifier, "configure_callbacks", lambda self: [Writer(writer["folder"])])
    monkeypatch.setattr(Classifier, "on_train_batch_end", log_by_itself)
    check(cfg)
    assert logged
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_wrong_shape_is_one_line_with_the_projects_own_line_and_the_batch(small: ComposeSmall) -> None:
    with pytest.raises(ConfigError) as caught:
        check(small("model.net.input_size=100"))
    [line] = caught.value.findings
    assert line.startswith("src/models/")
    assert "one batch of the training raises RuntimeError: mat1 and mat2 shapes cannot be multiplied" in line
    assert "with the batch [64, 1, 28, 28] float32" in line


def test_metrics_that_no_loop_logs_are_refused_together(small: ComposeSmall) -> None:
    with pytest.raises(ConfigError) as caught:
        check(small("monitor=val/accu", "optimized_metric=[val/acc,test/los]"))
    lines = caught.value.findings
    assert [line.partition(":")[0] for line in lines] == [
        "optimized_metric=test/los",
        "callbacks.model_checkpoint.monitor=val/accu",
        "callbacks.early_stopping.monitor=val/accu",
    ]
    assert "Did you mean 'test/loss'?" in lines[0]
    assert all("Did you mean 'val/acc'?" in line for line in lines[1:])


def test_a_metric_that_a_callback_of_the_project_may_log_is_a_warning(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small("optimized_metric=val/mine")
    cfg.callbacks = {"mine": {"_target_": "src.callbacks.Mine"}}
    check(cfg)
    assert "optimized_metric=val/mine" in caplog.text
    assert "A callback may log it" in caplog.text


def test_more_memory_than_is_free_is_a_warning(
    small: ComposeSmall, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulgurite.validation.deep.check.free_bytes", lambda device: 1000)
    check(small("test=false"))
    assert "needs more memory than is free. Lower data.batch_size" in caplog.text
    assert Memory(1, 2, 3, 4, None, None).needed == 10
    assert Memory(1, 2, 3, 4, 25, None).needed == 25


class LazyClassifier(Classifier):
    """Has a layer whose shape the first batch sets."""

    def __init__(self, net: torch.nn.Module, **arguments: Any) -> None:
        super().__init__(torch.nn.Sequential(net, torch.nn.LazyLinear(10)), **arguments)


def test_a_lazy_module_has_no_memory_before_the_first_batch(small: ComposeSmall) -> None:
    cfg = small("test=false")
    with open_dict(cfg):
        cfg.model._target_ = f"{__name__}.LazyClassifier"
    memory = check(cfg).memory
    assert memory is not None
    assert memory.parameters > 0


@pytest.mark.parametrize("devices", [1, 2])
def test_missing_memory_is_an_error_only_where_one_process_has_the_whole_batch(
    devices: int, small: ComposeSmall, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, batch: object, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("src.models.classifier.Classifier.training_step", fail)
    cfg = small(f"trainer.devices={devices}")
    if devices == 1:
        with pytest.raises(ConfigError, match=r"raises OutOfMemoryError: CUDA out of memory.*Lower data.batch_size\."):
            check(cfg)
        return
    check(cfg)
    assert "The check has the whole batch on one device" in caplog.text


def test_nested_batches_are_described() -> None:
    batch = {"ids": torch.zeros(2, 3, dtype=torch.int64), "more": [torch.zeros(1), "text"]}
    assert describe_batch(batch) == "{ids: [2, 3] int64, more: [1] float32, str}"


def test_other_values_of_the_key_are_refused() -> None:
    [line] = findings("validate=deap")
    assert line.startswith("command line: validate=deap: must be")
    assert "'deep'" in line


@pytest.mark.filterwarnings("ignore:Total length of")
def test_a_training_loader_without_a_batch_is_named_and_no_metric(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(1, 1, 28, 28), torch.zeros(1)), batch_size=4, drop_last=True)
    monkeypatch.setattr("src.data.mnist.MNISTDataModule.train_dataloader", lambda self: loader)
    with pytest.raises(
        UserError, match=r"the training loader yields no batch \(1 examples for a batch of 4, drop_last"
    ):
        build(small("validate=deep"))
