"""Errors of torch and Lightning that a setting or an argument prevents are one line with that key, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from lightning.pytorch import LightningModule
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import prepare_environment
from fulgurite.engine.build import build
from fulgurite.engine.components.causes import first_cause
from fulgurite.engine.components.trials import rejected_optimizers
from fulgurite.engine.outcome import Outcome, classify_error
from tests.conftest import ComposeSmall
from tests.support.compose import with_file
from tests.support.project import ROOT
from tests.support.quiet_trainer import quiet_trainer


@contextmanager
def composed(*overrides: str, folder: Path) -> Iterator[DictConfig]:
    """Yield a config as an entry point has it: Hydra is still initialized, and knows where each key was set."""
    prepare_environment()
    guard_configs()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
        with open_dict(cfg):
            cfg.paths.output_dir = cfg.paths.work_dir = str(folder)
        yield cfg


DATA = TensorDataset(torch.zeros(8, 2))


class Lit(LightningModule):
    """A model whose second layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return a loss."""
        loss: Tensor = self.used(batch[0]).sum()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Do nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make an optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Batches:
    """A batch sampler that is no BatchSampler."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0, 1], [2, 3])

    def __len__(self) -> int:
        return 2


@pytest.fixture
def group() -> Iterator[None]:
    """Leave no process group behind."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def outcome(train: Callable[[], object], cfg: Any = None) -> Outcome:
    """Return what is recorded of the error that a training raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the outcome is what is tested
        train()
    found = classify_error(caught.value, cfg)
    assert (found.status, found.exit_code) == ("failed", 2), found
    return found


def fit(loader: Any, val: Any = None, **settings: Any) -> None:
    """Train one epoch."""
    quiet_trainer(max_epochs=1, enable_checkpointing=False, **settings).fit(Lit(), loader, val or DataLoader(DATA, 2))


@pytest.mark.usefixtures("group")
def test_parameters_that_the_loss_does_not_use_under_ddp(small: ComposeSmall) -> None:
    def train() -> None:
        fit(DataLoader(DATA, 2), strategy="ddp", devices=1, num_sanity_val_steps=0)

    said = "the loss does not depend on all parameters, whose gradients DDP waits for. Set "
    assert outcome(train).reason == f"{said}trainer.strategy=ddp_find_unused_parameters_true"
    cfg = small()
    strategy = {"_target_": "lightning.pytorch.strategies.DDPStrategy"}
    OmegaConf.update(cfg, "trainer.strategy", strategy, force_add=True)
    error = RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")
    assert classify_error(error, cfg).reason == f"{said}+trainer.strategy.find_unused_parameters=true"
    shipped = small("trainer=ddp_sim")  # its strategy has the key
    assert classify_error(error, shipped).reason == f"{said}trainer.strategy.find_unused_parameters=true"


@pytest.mark.usefixtures("group")
def test_a_batch_sampler_of_the_users_own_under_ddp() -> None:
    loader: Any = DataLoader(DATA, batch_sampler=Batches())
    found = outcome(lambda: fit(loader, strategy="ddp", devices=1))
    assert found.reason.startswith("trainer.use_distributed_sampler: Lightning cannot divide the batches of your batch")
    assert found.reason.endswith("set +trainer.use_distributed_sampler=false")


def test_two_validation_loaders_and_a_step_without_dataloader_idx() -> None:
    found = outcome(lambda: fit(DataLoader(DATA, 2), [DataLoader(DATA, 2), DataLoader(DATA, 2)]))
    said = "Lit.validation_step: there are several loaders. Add the argument dataloader_idx=0 to it"
    assert found.reason == said


class Indexed(Lit):
    """A model whose step wants the number of the loader."""

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
        """Do nothing."""


def test_one_validation_loader_and_a_step_that_wants_its_number() -> None:
    trainer = quiet_trainer(max_epochs=1, enable_checkpointing=False)
    found = outcome(lambda: trainer.fit(Indexed(), DataLoader(DATA, 2), DataLoader(DATA, 2)))
    said = "there is one loader only. Give its argument dataloader_idx the default 0"
    assert found.reason == f"Indexed.validation_step: {said}"


class OwnSGD(torch.optim.SGD):
    """An optimizer of the user's own, whose base checks the arguments."""


def test_an_optimizer_of_ones_own_is_named_by_its_key(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.optimizer = {"_target_": f"{__name__}.OwnSGD", "_partial_": True, "lr": 0.1, "momentum": -3.0}
    said = "model.optimizer.momentum=-3.0: Invalid momentum value: -3.0"
    assert outcome(lambda: OwnSGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=-3.0), cfg).reason == said


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "range": ({"min_lr": [0.1, 0.2]}, "model.scheduler: ValueError: expected 1 min_lrs, got 2"),
    "missing": (
        {"_target_": "torch.optim.lr_scheduler.StepLR"},
        "model.scheduler: TypeError: StepLR.__init__() missing 1 required positional argument: 'step_size'",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_an_argument_that_a_scheduler_rejects_when_the_model_makes_it(name: str, small: ComposeSmall) -> None:
    changed, said = REJECTED[name]
    cfg = small()
    if "_target_" in changed:
        cfg.model.scheduler = {**changed, "_partial_": True}
    else:
        cfg.model.scheduler = {**cfg.model.scheduler, **changed}
    run = build(cfg)
    assert outcome(lambda: run.trainer.fit(run.model, datamodule=run.datamodule), cfg).reason == said


def test_an_argument_that_a_callback_rejects(small: ComposeSmall) -> None:
    cfg = small("callbacks.early_stopping.mode=mxa")
    with pytest.raises(ConfigError, match=r"^callbacks\.early_stopping\.mode=mxa: `mode` can be min, max, got mxa$"):
        build(cfg)


def create_model(model_name: str, depth: str = "deep") -> nn.Module:
    """Look a name up, as timm does."""
    if model_name == "unknown_net":
        raise RuntimeError(f"Unknown model ({model_name})")
    raise {"deep": OSError("no file for deep_net")}[depth]


NAMES = {
    "a registry": ({"model_name": "unknown_net"}, "model.net.model_name=unknown_net: RuntimeError: Unknown model (unk"),
    "a dictionary": ({"model_name": "net", "depth": "shallow"}, "model.net.depth=shallow: KeyError: 'shallow'"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_a_registry_lacks_has_its_key(name: str, small: ComposeSmall) -> None:
    given, said = NAMES[name]
    cfg = small()
    cfg.model.net = {"_target_": f"{__name__}.create_model", **given}
    with pytest.raises(ConfigError) as caught:
        build(cfg)
    assert caught.value.findings[0].startswith(said)


def test_an_error_that_only_mentions_a_value_keeps_its_traceback(small: ComposeSmall) -> None:
    cfg = small()
    cfg.model.net = {"_target_": f"{__name__}.create_model", "model_name": "deep_net"}
    with pytest.raises(OSError, match="no file for deep_net"):
        build(cfg)


def test_an_error_of_the_users_own_code_keeps_its_traceback(small: ComposeSmall) -> None:
    assert classify_error(ValueError("Factor should be < 1.0."), small()).exit_code == 1


def test_the_value_of_a_secret_is_masked() -> None:
    node = OmegaConf.create({"_target_": "owncode.Logger", "api_key": "abc"})
    error = InstantiationException("raised while instantiating")
    error.__cause__ = ValueError("api_key has no account")
    assert str(first_cause(error, "logger.mine", node)) == "logger.mine.api_key=***: api_key has no account"


REJECTIONS = """
callbacks:
  early_stopping: {patience: 3}
  model_checkpoint:
    every_n_train_steps: -3
  timer:
    _target_: lightning.pytorch.callbacks.Timer
    duration: 3 days
model:
  optimizer:
    betas: [1.5, 0.9]
  scheduler:
    _target_: torch.optim.lr_scheduler.ConstantLR
    factor: 3
trainer:
  gradient_clip_algorithm: foo
"""
# key and line of the value, what the class says of it
SAID = {
    ("callbacks.model_checkpoint.every_n_train_steps=-3", 5): "Invalid value for every_n_train_steps=-3. Must be >= 0",
    ("callbacks.timer.duration=3 days", 8): "`Timer(duration='3 days')` is not a valid duration",
    ("model.optimizer.betas[0]=1.5", 11): "Invalid beta parameter at index 0: 1.5",
    ("model.scheduler.factor=3", 14): "Constant multiplicative factor expected to be between 0 and 1.",
    ("trainer.gradient_clip_algorithm=foo", 16): "`gradient_clip_algorithm` foo is invalid.",
}


def test_what_constructors_reject_comes_together_with_file_and_line_before_the_config(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = with_file(tmp_path, "experiment/ours.yaml", f"# @package _global_{REJECTIONS}")
    with composed(*search, "experiment=ours", folder=tmp_path) as cfg, pytest.raises(ConfigError) as caught:
        build(cfg)
    expected = [f"{tmp_path}/experiment/ours.yaml:{line}: {key}: {said}" for (key, line), said in SAID.items()]
    assert len(caught.value.findings) == len(expected)
    for finding, start in zip(caught.value.findings, expected, strict=True):
        assert finding.startswith(start)
    assert not [record for record in caplog.records if record.getMessage().startswith("run ")]


def test_a_list_for_parameter_groups_and_arguments_that_the_model_passes_are_not_tried(small: ComposeSmall) -> None:
    cfg, one_cycle = small(), {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "_partial_": True, "pct_start": 3.0}
    for more in ({"max_lr": 0.1}, {"max_lr": [0.1, 0.2], "total_steps": 3}):
        cfg.model.scheduler = {**one_cycle, **more}
        assert not list(rejected_optimizers(cfg))
    cfg.model.scheduler = {**one_cycle, "max_lr": 0.1, "total_steps": 3}
    (line,) = rejected_optimizers(cfg)
    assert line.startswith("model.scheduler.pct_start=3.0: ")


def test_a_class_of_the_wrong_kind_has_the_file_and_line_of_its_target(tmp_path: Path) -> None:
    text = "# @package _global_\ncallbacks:\n  mine:\n    _target_: torch.nn.ReLU\n"
    search = with_file(tmp_path, "experiment/ours.yaml", text)
    with composed(*search, "experiment=ours", folder=tmp_path) as cfg, pytest.raises(ConfigError) as caught:
        build(cfg)
    (line,) = caught.value.findings
    assert line.startswith(
        f"{tmp_path}/experiment/ours.yaml:4: callbacks.mine._target_: torch.nn.modules.activation.ReLU is"
    )
    given = "+callbacks.mine={_target_: torch.nn.ReLU}"
    with composed(given, folder=tmp_path) as cfg, pytest.raises(ConfigError) as caught:
        build(cfg)
    assert caught.value.findings[0].startswith(f"command line: {given}: callbacks.mine._target_: torch.nn.modules.")


def test_the_first_line_of_a_run_names_its_directory(small: ComposeSmall, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        build(small())
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("run ")
    assert any(line.startswith("GPU available") for line in lines[1:])
