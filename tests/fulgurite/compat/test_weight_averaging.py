"""WeightAveraging as mended: what is tested is what the checkpoint has, and a resumed run has weights and average."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.trainer.states import TrainerFn

from fulgurite.callbacks import LastCheckpoint
from tests.support.quiet_trainer import fit_hardened

Weights = dict[str, torch.Tensor]


class Watch(Callback):
    """Keeps the weights, and the average beside them, at the first batch of training and of what follows it."""

    def __init__(self) -> None:
        self.seen: Weights = {}
        self.average: Weights = {}

    def on_train_batch_start(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        if not self.seen:
            self._keep(trainer, model)

    def on_validation_batch_start(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self._keep(trainer, model)

    def on_test_batch_start(self, trainer: Trainer, model: LightningModule, *_: Any) -> None:
        self._keep(trainer, model)

    def _keep(self, trainer: Trainer, model: LightningModule) -> None:
        self.seen = _copied(model)
        (ema,) = (each for each in vars(trainer)["callbacks"] if isinstance(each, EMAWeightAveraging))
        self.average = _copied(vars(ema)["_average_model"].module)


class Configures(BoringModel):
    """A model that has the hook of sharded strategies, which trains without one."""

    def configure_model(self) -> None:
        """Do nothing."""


def test_nothing_is_said_of_sharding_where_nothing_is_sharded(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_hardened(
            Configures(), BoringDataModule(), tmp_path, [EMAWeightAveraging()], max_steps=1, enable_checkpointing=False
        )
    assert not [warning for warning in caught if "configure_model" in str(warning.message)]


def _copied(module: torch.nn.Module) -> Weights:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _equal(ours: Weights, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _fit(folder: Path, watch: Watch, *, epochs: int, ckpt_path: str | None = None) -> tuple[Trainer, str]:
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    settings: dict[str, Any] = {"max_epochs": epochs, "limit_train_batches": 4, "limit_val_batches": 1}
    callbacks = [EMAWeightAveraging(decay=0.9), watch, saver]
    trainer = fit_hardened(BoringModel(), BoringDataModule(), folder, callbacks, ckpt_path=ckpt_path, **settings)
    return trainer, str(folder / "epoch=0.ckpt")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_after_training_the_averaged_weights_of_a_checkpoint_are_evaluated(tmp_path: Path, stage: str) -> None:
    watch = Watch()
    trainer, first = _fit(tmp_path, watch, epochs=2)
    saved = torch.load(first, weights_only=True)
    assert not _equal(saved["state_dict"], saved["current_model_state"])
    evaluate = getattr(trainer, stage)
    evaluate(trainer.lightning_module, datamodule=BoringDataModule(), ckpt_path=first, weights_only=True, verbose=False)
    assert _equal(watch.seen, saved["state_dict"])
    assert _equal(_copied(trainer.lightning_module), saved["state_dict"])
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    after = torch.load(tmp_path / "after.ckpt", weights_only=True)
    assert _equal(after["state_dict"], saved["state_dict"])
    assert "current_model_state" not in after


def test_a_resumed_run_restores_the_weights_and_their_average(tmp_path: Path) -> None:
    _, first = _fit(tmp_path, Watch(), epochs=1)
    saved = torch.load(first, weights_only=True)

    watch = Watch()
    _fit(tmp_path / "resumed", watch, epochs=2, ckpt_path=first)
    assert _equal(watch.seen, saved["current_model_state"])
    assert _equal(watch.average, saved["state_dict"])


def test_a_longer_training_resumes_from_the_weights_and_not_from_their_average(tmp_path: Path) -> None:
    def fit(folder: Path, epochs: int, ckpt_path: Path | None = None) -> dict[str, Any]:
        torch.manual_seed(1)  # of the weights and the data
        model = BoringModel()
        settings: dict[str, Any] = {"max_epochs": epochs, "limit_train_batches": 4, "limit_val_batches": 1}
        callbacks = [EMAWeightAveraging(decay=0.9), LastCheckpoint(folder)]
        fit_hardened(model, BoringDataModule(), folder, callbacks, ckpt_path=ckpt_path, **settings)
        saved: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
        assert _equal(_copied(model), saved["state_dict"])  # training ends with the average
        return saved

    straight, first = fit(tmp_path / "straight", 3), fit(tmp_path / "longer", 2)
    assert not _equal(first["state_dict"], first["current_model_state"])
    longer = fit(tmp_path / "longer", 3, tmp_path / "longer" / "last.ckpt")
    assert all(_equal(straight[part], longer[part]) for part in ("state_dict", "current_model_state"))
