"""Errors of torch and Lightning that a setting or an argument prevents are one line with that key, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.core.errors import ConfigError
from fulgurite.engine.build import build
from fulgurite.engine.components.causes import first_cause
from fulgurite.engine.outcome import Outcome, classify_error
from tests.conftest import ComposeSmall
from tests.support.quiet_trainer import quiet_trainer

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


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "range": ({"factor": 3.0}, "model.scheduler.factor=3.0: Factor should be < 1.0."),
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
        cfg.model.scheduler.update(changed)
    run = build(cfg)
    assert outcome(lambda: run.trainer.fit(run.model, datamodule=run.datamodule), cfg).reason == said


def test_an_argument_that_a_callback_rejects(small: ComposeSmall) -> None:
    cfg = small("callbacks.early_stopping.mode=mxa")
    with pytest.raises(ConfigError, match=r"^callbacks\.early_stopping\.mode=mxa: `mode` can be min, max, got mxa$"):
        build(cfg)


def test_an_error_of_the_users_own_code_keeps_its_traceback(small: ComposeSmall) -> None:
    assert classify_error(ValueError("Factor should be < 1.0."), small()).exit_code == 1


def test_the_value_of_a_secret_is_masked() -> None:
    node = OmegaConf.create({"_target_": "owncode.Logger", "api_key": "abc"})
    error = InstantiationException("raised while instantiating")
    error.__cause__ = ValueError("api_key has no account")
    assert str(first_cause(error, "logger.mine", node)) == "logger.mine.api_key=***: api_key has no account"
