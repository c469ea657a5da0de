"""`trainer.log_dir` of a run: the run directory, whatever the first logger is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from fulgurite.core.redact import known_secrets


def set_log_dir(trainer: Trainer, folder: str | Path) -> None:
    """Make `trainer.log_dir` a folder; Lightning asks the first logger, and most services have none."""
    vars(trainer)["run_dir"] = str(folder)
    trainer.__class__ = _class_in_run_directory(type(trainer))


class _InRunDirectory(Trainer):
    """Returns the run directory as `log_dir`."""

    original_class: type[Trainer]

    @property
    def log_dir(self) -> str | None:
        """The run directory."""
        return str(vars(self)["run_dir"])

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle finds no module for a class that is made at run time: a spawned process makes it again
        return _restore, (self.original_class, vars(self).copy(), known_secrets)


def _class_in_run_directory(original: type[Trainer]) -> type[Trainer]:
    attributes = {"__module__": original.__module__, "__doc__": original.__doc__, "original_class": original}
    return type(original.__name__, (_InRunDirectory, original), attributes)


def _restore(original: type[Trainer], state: dict[str, Any], _: object) -> Trainer:
    trainer: Trainer = object.__new__(_class_in_run_directory(original))
    vars(trainer).update(state)
    return trainer
