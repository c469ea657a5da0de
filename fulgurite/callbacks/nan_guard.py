"""Stop a run before a loss that is NaN or infinite reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from fulgurite.core.context import setting
from fulgurite.core.errors import Diverged
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__, every_rank=True)


class NaNGuard(Callback):
    """Stops a run with exit code 3 when a training loss, or a weight to be saved, is NaN or infinite.

    Checks the loss of every batch on all ranks, also during gradient accumulation. On the CPU it checks before the
    backward pass. On CUDA it checks before the optimizer step and waits for the forward pass only: the backward pass is
    queued behind it, so the device stays busy.

    Args:
        find_nan: Check the output of every module and name the first one that is not finite. Waits for the device
            after every module: for debugging only.

    Example:
        >>> trainer = Trainer(callbacks=[NaNGuard()])
    """

    def __init__(self, find_nan: bool = False) -> None:
        self.find_nan = find_nan
        # checks on the device: 1 in the host tensor, valid after the event, if a loss of the batch is not finite
        self._pending: list[tuple[Tensor, torch.cuda.Event, int]] = []
        self._hooks: list[RemovableHandle] = []
        self._first_bad_output: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register hooks on all modules with `find_nan`."""
        self._pending.clear()
        if self.find_nan:
            named = [(name, module) for name, module in pl_module.named_modules() if name]
            self._hooks = [module.register_forward_hook(self._make_hook(name)) for name, module in named]

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    on_exception = on_train_end

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Reset the finding of the previous batch."""
        self._first_bad_output = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the scalar loss, or start the check on the device."""
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
            self._pending.append((verdict, ready, batch))
        elif bad.item():
            value = loss.item()
            self._stop(trainer, batch, "not finite on another rank" if math.isfinite(value) else f"{value}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Read the pending checks."""
        for verdict, ready, batch in self._pending:
            ready.synchronize()
            if verdict.item():
                self._stop(trainer, batch, "not finite")
        self._pending.clear()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep bad weights out of checkpoints: the gradients of a finite loss may be infinite."""
        trained = ((name, value) for name, value in pl_module.named_parameters() if value.requires_grad)
        bad = next((name for name, value in trained if not _is_finite(value)), None)
        if trainer.strategy.reduce_boolean_decision(bad is not None, all=False):
            raise Diverged(
                f"the weights contain NaN or infinity (first in {bad or 'another rank'}; {_position(trainer)}). "
                f"They were not saved; earlier checkpoints are intact. {_remedy()}."
            )

    def _stop(self, trainer: Trainer, batch: int, value: str) -> None:
        self._pending.clear()
        raise Diverged(
            f"the training loss is {value} ({_position(trainer)}, batch {batch}). The run stopped before the optimizer "
            f"step; checkpoints are intact. {self._advice(trainer)}."
        )

    def _advice(self, trainer: Trainer) -> str:
        if not self.find_nan:
            return f"{_remedy()}, or find the module with {setting('extras.find_nan=true', 'NaNGuard(find_nan=True)')}"
        if self._first_bad_output is None:
            return "The output of every module is finite, so the loss function produced it" + (
                ", or another rank did" if trainer.world_size > 1 else ""
            )
        if trainer.world_size > 1:
            log.error("%s", self._first_bad_output)
        return self._first_bad_output

    def _make_hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._first_bad_output is None and module.training and not all(map(_is_finite, _tensors([output]))):
                cause = "finite" if all(map(_is_finite, _tensors(inputs))) else "not finite either"
                kind = type(module).__name__
                text = f"The first output that is not finite is of {name} ({kind}); its input is {cause}"
                self._first_bad_output = text

        return check


def _remedy() -> str:
    in_config = "Lower model.optimizer.lr or set +trainer.gradient_clip_val=1"
    return setting(in_config, "Lower the learning rate or pass Trainer(gradient_clip_val=1)")


def _position(trainer: Trainer) -> str:
    return f"step {trainer.global_step}, epoch {trainer.current_epoch}"


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the floating-point tensors in nested lists, tuples and dictionaries."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.numel():
                yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _is_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    values = values.detach()
    if isinstance(values, DTensor):
        values = values.to_local()  # each rank checks its own shard
    if values.numel() == 0:
        return True
    least, most = values.aminmax()  # one pass without a copy: NaN propagates to both
    return math.isfinite(least.item()) and math.isfinite(most.item())
