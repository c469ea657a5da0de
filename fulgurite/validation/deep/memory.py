"""Measure the memory that one training step needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.parameter import is_lazy

from fulgurite.core.formatting import format_bytes


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step.

    Attributes:
        parameters: Of the model, with its buffers.
        gradients: Of the parameters that are trained.
        optimizer: States of the optimizers after one step.
        activations: What the forward pass keeps for the backward pass, without parameters; None where it is unknown.
        peak: Most bytes that the device had allocated in the step; None on the CPU.
        available: Bytes of the device that were free before the check; None where it is unknown.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int | None
    peak: int | None
    available: int | None

    @property
    def needed(self) -> int:
        """Bytes that the step needs: measured where the device counts them, else the sum."""
        return self.peak or self.parameters + self.gradients + self.optimizer + (self.activations or 0)

    @property
    def line(self) -> str:
        """The memory as one line of output."""
        named = {name: getattr(self, name) for name in ("parameters", "gradients", "optimizer", "activations")}
        parts = [f"{name} {format_bytes(size)}" for name, size in named.items() if size is not None]
        free = f" of {format_bytes(self.available)} that are free" if self.available is not None else ""
        return f"{format_bytes(self.needed)}{free}: {', '.join(parts)}"


class SavedActivations:
    """Counts the bytes that autograd saves in a block.

    Args:
        model: Its parameters and buffers are not counted.
    """

    def __init__(self, model: LightningModule) -> None:
        self._known = {tensor.untyped_storage().data_ptr() for tensor in _tensors_of(model)}
        self._sizes: dict[int, int] = {}
        self._hooks: AbstractContextManager[Any] = torch.autograd.graph.saved_tensors_hooks(
            self._see, lambda saved: saved
        )

    def start(self) -> None:
        """Start to count."""
        self._hooks.__enter__()

    def stop(self) -> int:
        """Stop, and return the bytes."""
        self._hooks.__exit__(None, None, None)
        return sum(self._sizes.values())

    def _see(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor


def measure(trainer: Trainer, model: LightningModule, activations: int | None, available: int | None) -> Memory:
    """Return the memory of the step that a trainer has just made."""
    states = (tensor for optimizer in trainer.optimizers for tensor in _tensors_in(optimizer.state))
    device = model.device
    return Memory(
        parameters=_bytes(_tensors_of(model)),
        gradients=_bytes(tensor for tensor in _tensors_of(model) if tensor.requires_grad),
        optimizer=_bytes(states),
        activations=activations,
        peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        available=available,
    )


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None where it cannot be asked for."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - no file of a project
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _tensors_of(model: LightningModule) -> Iterator[Tensor]:
    yield from (tensor for tensor in chain(model.parameters(), model.buffers()) if not is_lazy(tensor))


def _tensors_in(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (list, tuple)):
        for item in content:
            yield from _tensors_in(item)
    elif hasattr(content, "values"):
        for item in content.values():
            yield from _tensors_in(item)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
