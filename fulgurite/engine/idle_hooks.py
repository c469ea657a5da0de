"""Leaves out the hooks of callbacks that do nothing, at the places that a training passes at every step."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import Callback

AT_EVERY_STEP = (
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


def leave_out_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Have Lightning pass by the hooks that a callback has only inherited.

    Lightning opens a profiler's context for each callback at each hook, also where the hook is the empty one of the
    base class: with ten callbacks a tenth of a millisecond a step. It passes by what cannot be called.

    Args:
        callbacks: Each gets None, on the object, in the place of such a hook; its class stays as it is.
    """
    for callback in callbacks:
        own = vars(callback)
        idle = [name for name in AT_EVERY_STEP if getattr(type(callback), name) is getattr(Callback, name)]
        own.update(dict.fromkeys(name for name in idle if name not in own))
