"""Make the hook calls of Lightning cheaper; `harden(skip_idle_hooks=False)` switches this off.

Lightning 2.6 opens a profiler context at each hook, also for the empty hook of the base class, and skips what is not
callable. It also sets the name of the current hook some 30 times a step, each time through `nn.Module.__setattr__`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy

HOOKS_OF_A_TRAINING_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
HOOKS_OF_A_STEP = (
    *HOOKS_OF_A_TRAINING_STEP,
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
)
HOOKS: dict[type, tuple[str, ...]] = {
    Callback: HOOKS_OF_A_STEP,
    LightningModule: HOOKS_OF_A_TRAINING_STEP,  # Lightning 2.6 inspects the others, and fails on None
    Strategy: ("on_train_batch_start",),
}


def skip_idle_hooks(objects: Iterable[Callback | LightningModule | Strategy]) -> None:
    """Replace the inherited per-step hooks of each object by None."""
    _set_hook_name_directly()
    for each in objects:
        base = next(base for base in HOOKS if isinstance(each, base))
        own = vars(each)
        idle = [name for name in HOOKS[base] if getattr(type(each), name) is getattr(base, name)]
        own.update(dict.fromkeys(name for name in idle if name not in own))


def _set_hook_name_directly() -> None:
    """Let LightningModule store the current hook's name without the checks of `nn.Module.__setattr__`."""
    if "__setattr__" in vars(LightningModule):
        return
    set_attribute = LightningModule.__setattr__

    def set_hook_name_directly(self: LightningModule, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            set_attribute(self, name, value)

    LightningModule.__setattr__ = set_hook_name_directly  # type: ignore[method-assign, assignment]
