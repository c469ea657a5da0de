"""One shape of user code and what a killed and resumed run of it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Expect = Literal["equal", "named", "refused"]
HERE = "tests.support.shapes"


@dataclass(frozen=True)
class Shape:
    """User code that is trained straight, killed and resumed.

    Args:
        name: What the user wrote, as the table in docs/resume.md has it.
        kind: The group of the table.
        data: `_target_` and arguments of the data module; see `use`.
        model: The same of the model.
        callbacks: More callbacks by name.
        overrides: More overrides.
        expect: `equal`: bit-identical and not named. `named`: run.json has a line with `line`. `refused`: exit code 2
            and one line with `line`.
        line: A fragment of the line that names or refuses.
        watch: Attributes that must be equal at the end: `model.x`, `data.x`, `<callback's class>.x`.
        kill_after: Batches after which the run is killed.
        save_every: Optimizer steps between two saves.
        amid_epoch: Whether the resumed run begins within an epoch.
        needs: A package without which the shape is skipped.
        row: What the table has in place of the name.
    """

    name: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=lambda: use("loaders.Data"))
    model: Mapping[str, Any] = field(default_factory=lambda: use("models.Net"))
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    expect: Expect = "equal"
    line: str = ""
    watch: Sequence[str] = ()
    kill_after: int = 12
    save_every: int = 3
    amid_epoch: bool = True
    needs: str = ""
    row: str = ""

    def arguments(self) -> list[str]:
        """Return the overrides of a first start."""
        return [
            *QUIET,
            f"+data={_text(self.data)}",
            f"+model={_text(self.model)}",
            f"callbacks.last_checkpoint.every_n_train_steps={self.save_every}",
            *(f"+callbacks.{name}={_text(node)}" for name, node in self.callbacks.items()),
            f"+callbacks.recorder._target_={HERE}.recorder.Recorder",
            *self.overrides,
        ]


QUIET = (
    "~data",
    "~model",
    "~callbacks.early_stopping",
    "callbacks.model_checkpoint.monitor=val/loss",
    "callbacks.model_checkpoint.mode=min",
    "callbacks.progress_bar=null",
    "callbacks.model_summary=null",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=2",
    "trainer.max_epochs=3",
    "extras.print_config=false",
    "extras.allowed_targets=[tests]",
)


def use(target: str, **arguments: Any) -> dict[str, Any]:
    """Return the config of a class: of a module beside this one, or of any other by its full name."""
    return {"_target_": target if target.count(".") > 1 else f"{HERE}.{target}", **arguments}


def _text(value: Any) -> str:
    """Write a value as Hydra's overrides have it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"'{value}'" if isinstance(value, str) else str(value)
