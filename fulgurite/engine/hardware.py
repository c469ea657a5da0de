"""What the trainer asks for against what the machine has, told before any data is touched."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from fulgurite.core.errors import UserError


def require_hardware(trainer: DictConfig) -> None:
    """Refuse a trainer config whose accelerator or number of devices this machine does not have.

    Args:
        trainer: The `trainer` group of the config.

    Raises:
        UserError: One line with the value, what the machine has, and what to use instead.
    """
    accelerator = trainer.get("accelerator", "auto")
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if accelerator == "tpu":
        _require_tpu()
    if accelerator not in {"gpu", "cuda", "mps"}:
        return
    kinds = ("cuda", "mps") if accelerator == "gpu" else (accelerator,)
    present = max(counts[kind] for kind in kinds)
    if present == 0:
        names = " or ".join({"cuda": "CUDA", "mps": "MPS"}[kind] for kind in kinds)
        raise UserError(f"trainer.accelerator={accelerator}: this machine has no {names} device; use trainer=cpu")
    asked = _number_of(trainer.get("devices", "auto"))
    if asked > present:
        raise UserError(
            f"trainer.devices={trainer.devices}: this machine has {present} {accelerator} device(s); "
            f"use trainer.devices={present}"
        )


def _require_tpu() -> None:
    from lightning.pytorch.accelerators import XLAAccelerator

    try:
        available = XLAAccelerator.is_available()
    except ModuleNotFoundError:
        available = False
    if not available:
        raise UserError(
            "trainer.accelerator=tpu: torch_xla finds no TPU here; "
            "on a TPU host pip install torch_xla, else use trainer=cpu"
        )


def _number_of(devices: Any) -> int:
    """Return how many devices a Lightning `devices` value asks for; 0 when it takes what is there."""
    if isinstance(devices, int):
        return max(devices, 0)
    if isinstance(devices, str):
        return int(devices) if devices.isdigit() else 0
    return max(len(devices), max(devices, default=-1) + 1)
