"""Shapes of the trainer's settings, Lightning's callbacks and validation."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

LIGHTNING = "lightning.pytorch.callbacks"
BETWEEN_EPOCHS: dict[str, Any] = {"kill_after": 15, "save_every": 13, "amid_epoch": False}


def _callback(text: str, target: str, *, arguments: dict[str, Any] | None = None, **more: Any) -> Shape:
    node = use(target if "." in target else f"{LIGHTNING}.{target}", **(arguments or {}))
    return Shape(text, "Lightning's callbacks", callbacks={"added": node}, **more)


CALLBACKS = [
    _callback("EMAWeightAveraging", "EMAWeightAveraging", arguments={"decay": 0.9}),
    _callback("StochasticWeightAveraging", "callbacks.Swa", expect="named", line="StochasticWeightAveraging"),
    _callback("ModelPruning", "callbacks.Pruning", expect="named", line="ModelPruning"),
    _callback("BackboneFinetuning", "callbacks.Finetuning", model=use("callbacks.Backbone")),
    _callback(
        "BackboneFinetuning, killed between epochs",
        "callbacks.Finetuning",
        model=use("callbacks.Backbone"),
        watch=["Finetuning.previous_backbone_lr"],
        **BETWEEN_EPOCHS,
    ),
    _callback(
        "a subclass of BaseFinetuning, killed between epochs",
        "callbacks.UnfreezeAndHalve",
        model=use("callbacks.Backbone"),
        **BETWEEN_EPOCHS,
    ),
    _callback(
        "GradientAccumulationScheduler",
        "GradientAccumulationScheduler",
        arguments={"scheduling": {1: 2}},
        save_every=1,
    ),
    _callback("LearningRateFinder", "LearningRateFinder", arguments={"num_training_steps": 5}),
    _callback(
        "BatchSizeFinder",
        "BatchSizeFinder",
        arguments={"steps_per_trial": 1, "max_trials": 1, "init_val": 4},
        data=use("callbacks.Sized"),
    ),
    _callback(
        "EarlyStopping",
        "EarlyStopping",
        arguments={"monitor": "val/loss", "min_delta": 9.0, "patience": 2},
        overrides=["trainer.max_epochs=9"],
    ),
    _callback("Timer", "Timer", arguments={"duration": {"hours": 1}}),
    _callback("LearningRateMonitor", "LearningRateMonitor"),
    _callback(
        "ModelCheckpoint(every_n_train_steps=2)",
        "ModelCheckpoint",
        arguments={"dirpath": "${paths.output_dir}/more", "every_n_train_steps": 2, "save_top_k": -1},
    ),
    _callback("SpikeDetection", "callbacks.Spikes", watch=["Spikes.running_mean.mean_value_0"]),
]


def _trainer(text: str, *overrides: str, **more: Any) -> Shape:
    return Shape(text, more.pop("kind", "trainer"), overrides=overrides, **more)


TRAINER = [
    _trainer("accumulate_grad_batches=2", "+trainer.accumulate_grad_batches=2", save_every=1),
    _trainer("gradient_clip_val", "+trainer.gradient_clip_val=0.1"),
    _trainer("precision=bf16-mixed", "+trainer.precision=bf16-mixed"),
    _trainer("limit_train_batches", "+trainer.limit_train_batches=5", kill_after=9),
    _trainer("max_steps", "+trainer.max_steps=17"),
    _trainer("overfit_batches", "+trainer.overfit_batches=5", kill_after=9, expect="named", line="overfit_batches"),
    _trainer("reload_dataloaders_every_n_epochs", "+trainer.reload_dataloaders_every_n_epochs=1"),
    _trainer("val_check_interval=3", "+trainer.val_check_interval=3", kind="metrics and validation", save_every=2),
    _trainer("check_val_every_n_epoch=2", "trainer.check_val_every_n_epoch=2", kind="metrics and validation"),
    _trainer("num_sanity_val_steps=0", "+trainer.num_sanity_val_steps=0", kind="metrics and validation"),
    _trainer("log_every_n_steps=1", "trainer.log_every_n_steps=1", kind="metrics and validation"),
    _trainer("limit_train_batches=0", "+trainer.limit_train_batches=0", expect="refused", line="limit_train_batches"),
    _trainer("an empty training set", data=use("callbacks.Nothing"), expect="refused", line="data"),
    _trainer("drop_last with too few examples", data=use("callbacks.TooFew"), expect="refused", line="data"),
]


def _validation(text: str, name: str, *overrides: str, **more: Any) -> Shape:
    return Shape(text, "metrics and validation", data=use(f"callbacks.{name}", **more), overrides=overrides)


VALIDATION = [
    _validation(
        "two validation loaders",
        "TwoValidationSets",
        "callbacks.model_checkpoint.monitor=val/loss/dataloader_idx_0",
    ),
    _validation("random, shuffled validation examples", "RandomValidationSet"),
    _validation("random validation examples in workers", "RandomValidationSet", num_workers=2),
    _validation(
        "random validation examples in persistent workers", "RandomValidationSet", num_workers=2, persistent=True
    ),
]
