"""Shapes of hooks that change what a checkpoint holds."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

HOOKS = "hooks"


def _model(text: str, name: str, **more: Any) -> Shape:
    return Shape(text, HOOKS, model=use(f"hooks.{name}"), **more)


def _sets(name: str, value: Any, *overrides: str, **more: Any) -> Shape:
    node = use("hooks.SetsTrainer", name=name, value=value)
    return Shape(f"a callback that sets trainer.{name}", HOOKS, callbacks={"sets": node}, overrides=overrides, **more)


HOOK_SHAPES = [
    _model("on_train_start that copies a target network", "StartCopy"),
    _model("on_fit_start that scales the weights", "FitStart"),
    Shape(
        "on_train_start of a callback that loads weights and sets betas",
        HOOKS,
        callbacks={"load": use("hooks.LoadWeights")},
    ),
    Shape(
        "on_train_start of a callback, killed between epochs",
        HOOKS,
        callbacks={"load": use("hooks.LoadWeights")},
        kill_after=14,
        amid_epoch=False,
    ),
    _model("on_train_epoch_start that clears the optimizer's state", "ResetOptimizer"),
    _model("on_train_epoch_start that replaces the optimizer", "NewOptimizer"),
    _model("on_train_epoch_start that moves a scheduler", "EpochScheduler"),
    _model("self.log in the first batch of an epoch only", "LogFirst"),
    _model("a loss of trainer.logged_metrics and progress_bar_metrics", "ReadsLogged"),
    _model("on_train_epoch_end that replaces the last layer", "ReinitHead"),
    Shape(
        "a callback that calls optimizer.add_param_group",
        HOOKS,
        model=use("hooks.Extra"),
        callbacks={"add": use("hooks.AddGroup")},
    ),
    _model("on_train_epoch_end that replaces Adam by AdamW", "OtherOptimizer", expect="named", line="AdamW"),
    _model("a buffer that grows, and one that is None at the start", "GrowingQueue"),
    _model("on_train_epoch_end that adds a layer", "NewLayer", expect="refused", line="was saved from another model"),
    _model("batch norm set to eval() for the rest of the training", "EvalMode"),
    Shape(
        "a subclass of EarlyStopping that changes min_delta",
        HOOKS,
        callbacks={"stop": use("hooks.ShrinkingDelta")},
        overrides=["trainer.max_epochs=8"],
        watch=["ShrinkingDelta.min_delta"],
    ),
    Shape(
        "a callback that changes EarlyStopping.min_delta",
        HOOKS,
        callbacks={
            "loosen": use("hooks.Loosen"),
            "stop": use("lightning.pytorch.callbacks.EarlyStopping", monitor="val/loss", min_delta=9.0, patience=1),
        },
        overrides=["trainer.max_epochs=4"],
        watch=["EarlyStopping.min_delta"],
    ),
    _model("an attribute of the trainer that training_step changes", "FlagOnTrainer"),
    Shape(
        "a callback that sets trainer.log_every_n_steps to a number of NumPy",
        HOOKS,
        callbacks={"logs": use("hooks.LogsByNumpy")},
        expect="named",
        line="log_every_n_steps",
    ),
    _sets("gradient_clip_val", 0.1),
    _sets("limit_test_batches", 1),
    _sets("accumulate_grad_batches", 2, save_every=1, kill_after=11),
    _sets("check_val_every_n_epoch", 2),
    _sets("log_every_n_steps", 1),
    _sets("limit_train_batches", 5, kill_after=10),
    _sets("limit_val_batches", 1, "+trainer.reload_dataloaders_every_n_epochs=1"),
]
