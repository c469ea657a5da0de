"""Make Lightning skip the hooks that a callback only inherits.

Lightning 2.6 opens a profiler context for each callback at each hook, also for the empty hook of the base class, and
skips what is not callable. `harden(skip_idle_hooks=False)` switches this off.
"""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import Callback

HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
)


def skip_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Replace the inherited per-step hooks of each callback object by None.

    Args:
        callbacks: Changed on the object; the class stays as it is.
    """
    for callback in callbacks:
        own = vars(callback)
        idle = [name for name in HOOKS_OF_A_STEP if getattr(type(callback), name) is getattr(Callback, name)]
        own.update(dict.fromkeys(name for name in idle if name not in own))
