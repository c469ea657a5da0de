"""Suggest where a key belongs that other templates and Lightning's CLI have at the top of a config."""

from __future__ import annotations

from collections.abc import Iterable

_LR = ("model.optimizer.lr", "model.lr", "model.learning_rate")
_EPOCHS = ("trainer.max_epochs",)
# name elsewhere -> keys here, of which the first that the config has is suggested
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("datamodule", "data_module", "dm", "dataset", "datasets", "dataloader"), ("data",)),
    **dict.fromkeys(("lightning_module", "lightningmodule", "lit_module", "litmodule", "module", "task"), ("model",)),
    **dict.fromkeys(("network", "net", "backbone", "architecture", "arch"), ("model.net", "model")),
    **dict.fromkeys(("lr_scheduler", "scheduler", "lr_schedule"), ("model.scheduler", "model")),
    **dict.fromkeys(("optimizer", "optim", "optimiser"), ("model.optimizer", "model")),
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "init_lr"), _LR),
    "weight_decay": ("model.optimizer.weight_decay", "model.weight_decay"),
    **dict.fromkeys(("seed_everything", "random_seed", "manual_seed"), ("seed",)),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "max_epochs", "nb_epochs"), _EPOCHS),
    **dict.fromkeys(("batch_size", "train_batch_size", "bs"), ("data.batch_size", "data.train_batch_size")),
    **dict.fromkeys(("num_workers", "workers"), ("data.num_workers",)),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "devices"), ("trainer.devices",)),
    **dict.fromkeys(("accelerator", "device"), ("trainer.accelerator",)),
    **dict.fromkeys(("loggers", "logging"), ("logger",)),
    **dict.fromkeys(("pl_trainer", "lightning_trainer"), ("trainer",)),
    **dict.fromkeys(("checkpoint", "checkpoint_path", "resume_from_checkpoint"), ("ckpt_path",)),
}


def suggest_other_name(key: str, paths: Iterable[str]) -> str:
    """Return `. Did you mean 'x'?` with the place of a key that another template has at the top; '' for other keys."""
    name, dot, rest = key.partition(".")
    known = set(paths)
    place = next((place for place in OTHER_NAMES.get(name, ()) if place in known), None)
    if place is None:
        return ""
    return f". Did you mean {f'{place}{dot}{rest}' if f'{place}{dot}{rest}' in known else place!r}?"
