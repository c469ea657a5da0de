"""WeightAveraging changes weights in `Trainer.fit` only: what is tested is what the checkpoint has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.trainer.states import TrainerFn

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
