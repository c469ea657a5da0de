"""What decides the bits of a result beside code, config and data: noted in a checkpoint, compared on resume."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import lightning
import torch
from lightning.pytorch import Trainer


def numerics_settings(trainer: Trainer) -> dict[str, str | int | bool]:
    """Return them by name, as plain values.

    Args:
        trainer: Set up, so that its device is known.
    """
    device = trainer.strategy.root_device
    return {
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "device name": _device_name(device),
        "precision": str(trainer.precision),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def differences(saved: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return one line for each that is another one here; names that only one side knows are passed over."""
    return [
        f"{name} was {saved[name]} where the checkpoint was saved, here it is {value}: bits may differ"
        for name, value in here.items()
        if name in saved and saved[name] != value
    ]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # instructions that torch was told to use decide how sums are ordered, not the label on the chip
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
