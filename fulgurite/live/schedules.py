"""Scale the learning rates of a run and what its schedulers derive them from: a schedule keeps its shape."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from fulgurite.compat.optimizer_states import extend_one_cycle

# lr, initial_lr, max_lr, swa_lr, base_lrs, _last_lr, warmup_start_lr, eta_min; Adagrad's lr_decay is no learning rate
_RATE = re.compile(r"(.*_)?lrs?|eta_(min|max)")
TRIAL_STEPS = 1000  # of a scheduler that is not torch's, on a copy, before its learning rate is scaled


class Slot:
    """One learning rate, or a list of them, that an optimizer or a scheduler holds.

    Args:
        holder: A parameter group, or the attributes of a scheduler.
        key: Its name there.
        number: Its position in a list; None for a single value.
    """

    def __init__(self, holder: dict[str, Any], key: str, number: int | None = None) -> None:
        self.holder, self.key, self.number = holder, key, number

    @property
    def value(self) -> float:
        """The number; a learning rate may be a tensor."""
        found = self.holder[self.key]
        return float(found if self.number is None else found[self.number])

    def set(self, value: float) -> None:
        """Replace the number, in place in a tensor: a captured graph reads it there."""
        found = self.holder[self.key]
        old = found if self.number is None else found[self.number]
        if isinstance(old, Tensor):
            old.fill_(value)
        elif self.number is None:
            self.holder[self.key] = value
        elif isinstance(found, list):
            found[self.number] = value
        else:
            self.holder[self.key] = (*found[: self.number], value, *found[self.number + 1 :])


def slots_of(trainer: Trainer) -> list[Slot]:
    """Return every learning rate of a run, in an order that depends on its optimizers and schedulers only."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    found = [Slot(group, key) for group in groups for key in sorted(group) if _is_rate(key, group[key])]
    for scheduler in schedulers_of(trainer):
        found += _slots_of_scheduler(scheduler)
    return found


def schedulers_of(trainer: Trainer) -> list[LRScheduler]:
    """Return the schedulers of a run with those inside them, also those that only an attribute of the model holds."""
    found: dict[int, LRScheduler] = {}
    pending: list[Any] = [config.scheduler for config in trainer.lr_scheduler_configs]
    pending += vars(trainer.lightning_module).values()
    while pending:
        value = pending.pop(0)
        if isinstance(value, (list, tuple)):
            pending += [item for item in value if isinstance(item, LRScheduler)]
        elif isinstance(value, LRScheduler) and id(value) not in found:
            found[id(value)] = value
            pending += vars(value).values()
    return list(found.values())


def _slots_of_scheduler(scheduler: LRScheduler) -> Iterator[Slot]:
    holder = vars(scheduler)
    for key in sorted(holder):
        value = holder[key]
        if _is_rate(key, value) or (key == "eps" and isinstance(scheduler, ReduceLROnPlateau)):
            yield Slot(holder, key)
        elif isinstance(value, (list, tuple)) and value and all(_is_rate(key, item) for item in value):
            yield from (Slot(holder, key, number) for number in range(len(value)))


def _is_rate(key: str, value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_number = is_number or (isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point())
    return is_number and _RATE.fullmatch(key) is not None


def scale(slots: Sequence[Slot], factor: float, *, exact: float | None = None) -> Callable[[], None]:
    """Multiply learning rates.

    Args:
        slots: What to multiply; the first is that of the first parameter group.
        factor: The factor.
        exact: The value that those equal to the first get, without the rounding of the product.

    Returns:
        A function that puts the former values back.
    """
    before = [slot.value for slot in slots]

    def undo() -> None:
        for slot, value in zip(slots, before, strict=True):
            slot.set(value)

    first = current_rate(slots)
    for slot, value in zip(slots, before, strict=True):
        slot.set(exact if exact is not None and value == first and slot.key == "lr" else value * factor)
    return undo


def current_rate(slots: Sequence[Slot]) -> float:
    """Return the learning rate of the first parameter group."""
    # a StopIteration would end Lightning's epoch
    return next((slot.value for slot in slots if slot.key == "lr"), math.nan)


def why_not_scalable(trainer: Trainer, factor: float) -> str:
    """Return why a scheduler would not keep its shape, or an empty string.

    The schedulers of torch are known. Any other is copied, and the copy is stepped beside one with scaled rates.
    """
    for config in trainer.lr_scheduler_configs:
        scheduler = config.scheduler
        if config.reduce_on_plateau or all(_is_of_torch(each) for each in _with_nested(scheduler)):
            continue
        name = type(scheduler).__qualname__
        try:
            keeps = _keeps_shape(scheduler, factor)
        except Exception as error:  # noqa: BLE001 - code of the user, which was not made to be copied
            return f"{name} cannot be tried on a copy ({type(error).__name__}: {error})"
        if not keeps:
            return f"{name} keeps a learning rate in an attribute without `lr` in its name, so it would lose its shape"
    return ""


def _with_nested(scheduler: LRScheduler) -> Iterator[LRScheduler]:
    yield scheduler
    for value in vars(scheduler).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, LRScheduler):
                yield from _with_nested(item)


def _is_of_torch(scheduler: Any) -> bool:
    # a function of the user may be a parameter of LambdaLR: it gives factors
    return type(scheduler).__module__.startswith("torch.optim.") or type(scheduler).__mro__[1].__name__ == "LambdaLR"


class _Groups:
    """The parameter groups of an optimizer without its parameters, for a copy of a scheduler."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.defaults = dict(optimizer.defaults)
        self.param_groups = [
            {
                key: value.clone() if isinstance(value, Tensor) else value
                for key, value in group.items()
                if key != "params"
            }
            for group in optimizer.param_groups
        ]

    def step(self) -> None:
        """Do nothing."""


def _keeps_shape(scheduler: LRScheduler, factor: float) -> bool:
    copies = []
    for number in (1.0, factor):
        groups = _Groups(scheduler.optimizer)
        twin = copy.deepcopy(scheduler, {id(scheduler.optimizer): groups})
        slots = [
            Slot(group, key) for group in groups.param_groups for key in sorted(group) if _is_rate(key, group[key])
        ]
        for each in _with_nested(twin):
            slots += _slots_of_scheduler(each)
        scale(slots, number)
        copies.append((twin, groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps without an optimizer's
        for _ in range(TRIAL_STEPS):
            for twin, _groups in copies:
                twin.step()
            rates = [[float(group["lr"]) for group in groups.param_groups] for _, groups in copies]
            if not all(math.isclose(b, a * factor, rel_tol=1e-6, abs_tol=1e-12) for a, b in zip(*rates, strict=True)):
                return False
    return True


def extend_schedules(trainer: Trainer, steps: float) -> Callable[[], None]:
    """Let a OneCycleLR take more steps than it was made for, with its last learning rate; torch raises an error.

    Args:
        trainer: The trainer of the run.
        steps: Optimizer steps of the whole training; infinity without a limit.

    Returns:
        A function that puts the former phases back.
    """
    changed = [
        (scheduler, saved)
        for scheduler in schedulers_of(trainer)
        if (saved := extend_one_cycle(scheduler, steps)) is not None
    ]

    def undo() -> None:
        for scheduler, saved in changed:
            vars(scheduler).update(saved)

    return undo
