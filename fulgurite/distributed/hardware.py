"""Check the devices that the trainer needs before any data is loaded."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from omegaconf import DictConfig

from fulgurite.core.errors import ConfigError
from fulgurite.core.formatting import parse_count


def require_hardware(trainer: DictConfig) -> None:
    """Raise ConfigError unless this machine has the accelerator and the devices of the `trainer` config."""
    accelerator = trainer.get("accelerator", "auto")
    if accelerator == "tpu":
        _require_tpu()
    if accelerator not in {"gpu", "cuda", "mps"}:
        return
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kinds = ("cuda", "mps") if accelerator == "gpu" else (accelerator,)
    available = max(counts[kind] for kind in kinds)
    if available == 0:
        names = " or ".join(kind.upper() for kind in kinds)
        raise ConfigError([f"trainer.accelerator={accelerator}: this machine has no {names} device. Set trainer=cpu."])
    if _num_devices(trainer.get("devices", "auto")) > available:
        has = f"this machine has {available} {accelerator} device(s)"
        raise ConfigError([f"trainer.devices={trainer.devices}: {has}. Set trainer.devices={available}."])


def _require_tpu() -> None:
    from lightning.pytorch.accelerators import XLAAccelerator

    available = False
    with suppress(ModuleNotFoundError):
        available = XLAAccelerator.is_available()
    if not available:
        remedy = "Install torch_xla on a TPU host, or set trainer=cpu"
        raise ConfigError([f"trainer.accelerator=tpu: torch_xla finds no TPU here. {remedy}."])


def _num_devices(devices: Any) -> int:
    """Return the number of devices that Lightning's `devices` needs; 0 when it uses the available ones."""
    if isinstance(devices, int):
        return max(devices, 0)
    if isinstance(devices, str):
        return parse_count(devices) or 0
    return max(len(devices), max(devices, default=-1) + 1)
