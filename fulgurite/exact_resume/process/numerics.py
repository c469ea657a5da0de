"""Numerics settings: what decides the bits of a result besides code, config and data."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import lightning
import torch
from lightning.pytorch import Trainer


def numerics_settings(trainer: Trainer) -> dict[str, str | int | bool]:
    """Return the numerics settings by name, as plain values."""
    device = trainer.strategy.root_device
    return {
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "device name": _device_name(device),
        "default dtype": str(torch.get_default_dtype()),
        "precision": str(trainer.precision),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def describe_changes(saved: Mapping[str, object], current: Mapping[str, object]) -> list[str]:
    """Return one line per changed setting; a name that one side lacks is skipped."""
    return [
        f"{name} was {saved[name]} when the checkpoint was saved and is {value} now: bits may differ"
        for name, value in current.items()
        if name in saved and saved[name] != value
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # the instruction set that torch uses decides the order of sums, not the model of the CPU
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
