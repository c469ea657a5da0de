"""Stops a run before a loss that is NaN or infinite reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from fulgurite.core.errors import Diverged
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__, every_rank=True)


@dataclass
class _PendingVerdict:
    """A verdict that the device is still working out: 1 when the loss of some rank was not finite.

    Attributes:
        verdict: Scalar in the host's memory, not to be read before `ready`.
        ready: Recorded behind the copy.
        batch: Number of the batch in its epoch.
    """

    verdict: Tensor
    ready: torch.cuda.Event
    batch: int


class NaNGuard(Callback):
    """Ends a run with exit code 3 when a training loss, or a weight about to be saved, is NaN or infinite.

    The loss of every batch is looked at, those that only gather gradients too, on all ranks together. On a CPU that
    happens before the backward pass. On CUDA it happens right before the optimizer step, and waits for the forward pass
    only: the backward pass is queued behind it, so the device does not run dry.

    Args:
        find_nan: Look at the output of every module and name the first one that was not finite. Waits for the device
            after every module, so it is for finding the fault only.
    """

    def __init__(self, find_nan: bool = False) -> None:
        self.find_nan = find_nan
        self._pending: list[_PendingVerdict] = []
        self._hooks: list[RemovableHandle] = []
        self._first: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the modules, where that was asked for."""
        self._pending.clear()
        if self.find_nan:
            named = [(name, module) for name, module in pl_module.named_modules() if name]
            self._hooks = [module.register_forward_hook(self._watch(name)) for name, module in named]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        self._unhook()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching."""
        self._unhook()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forget what was seen in the batch before."""
        self._first = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss, a scalar.

        Raises:
            Diverged: It is NaN or infinite, here or on another rank.
        """
        loss = loss.detach()
        if trainer.world_size == 1 and loss.is_cpu:
            if not math.isfinite(value := loss.item()):
                self._stop(trainer, trainer.fit_loop.batch_idx, f"{value}")
            return
        bad = loss.isfinite().logical_not().float()
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce(bad, reduce_op="sum")
        batch = trainer.fit_loop.batch_idx
        if bad.is_cuda:
            verdict, ready = bad.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
            self._pending.append(_PendingVerdict(verdict, ready, batch))
        elif bad.item():
            self._stop(trainer, batch, _told(loss))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Read what the device found out about the losses whose gradients are about to be used.

        Raises:
            Diverged: One of them was NaN or infinite, here or on another rank.
        """
        for look in self._pending:
            look.ready.synchronize()
            if look.verdict.item():
                self._stop(trainer, look.batch, "not finite")
        self._pending.clear()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep spoilt weights out of the checkpoints: a finite loss may have had gradients that were not.

        Raises:
            Diverged: A trained parameter is NaN or infinite.
        """
        trained = ((name, value) for name, value in pl_module.named_parameters() if value.requires_grad)
        spoilt = next((name for name, value in trained if not _is_finite(value)), None)
        if trainer.strategy.reduce_boolean_decision(spoilt is not None, all=False):
            raise Diverged(
                f"the weights hold NaN or infinity (first in {spoilt or 'those of another rank'}; {_where(trainer)}): "
                "they were not saved, the checkpoints are those of before; "
                "try a smaller model.optimizer.lr or +trainer.gradient_clip_val=1"
            )

    def _stop(self, trainer: Trainer, batch: int, value: str) -> None:
        self._pending.clear()
        raise Diverged(
            f"the training loss is {value} ({_where(trainer)}, batch {batch}): stopped before the weights took it, "
            f"the checkpoints are those of before; {self._advice(trainer)}"
        )

    def _advice(self, trainer: Trainer) -> str:
        if not self.find_nan:
            return (
                "try a smaller model.optimizer.lr or +trainer.gradient_clip_val=1; "
                "extras.find_nan=true names the module that made it"
            )
        if self._first is None:
            return "the output of every module was finite, so the loss itself made it" + (
                ", or another rank did" if trainer.world_size > 1 else ""
            )
        if trainer.world_size > 1:
            log.error("%s", self._first)
        return self._first

    def _watch(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._first is None and module.training and not all(map(_is_finite, _tensors([output]))):
                spoilt = not all(map(_is_finite, _tensors(inputs)))
                cause = "its input was not finite either" if spoilt else "its input was finite"
                self._first = f"the first output that was not finite is of {name} ({type(module).__name__}), {cause}"

        return look

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _where(trainer: Trainer) -> str:
    return f"step {trainer.global_step}, epoch {trainer.current_epoch}"


def _told(loss: Tensor) -> str:
    return "not finite on another rank" if math.isfinite(value := loss.item()) else f"{value}"


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors of floats among values, in lists, tuples and dictionaries too."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.numel():
                yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _is_finite(values: Tensor) -> bool:
    """Tell whether no value is NaN or infinite; an empty tensor has none."""
    values = values.detach()
    if isinstance(values, DTensor):
        values = values.to_local()  # each rank looks at its own part
    if values.numel() == 0:
        return True
    least, most = values.aminmax()  # one pass and no copy: NaN spreads to both
    return math.isfinite(least.item()) and math.isfinite(most.item())
