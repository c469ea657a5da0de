"""Choose and check the backend of the process group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from fulgurite.compat.lightning_strategies import process_group_backend, requested_backend
from fulgurite.core.errors import ConfigError, UserError, did_you_mean

BACKEND_KEY = "trainer.strategy.process_group_backend"
BUILTIN = ("gloo", "nccl", "xccl", "ucc", "mpi")
DEVICE_TYPES = {"nccl": "cuda", "xccl": "xpu"}  # the only device type that the backend supports


def choose_backend(strategy: Any) -> tuple[str, str]:
    """Return the backend of a strategy's process group, and why it was chosen; raise if it cannot be used."""
    device = strategy.root_device.type
    backend = process_group_backend(strategy)
    for entry in backend.split(","):  # cpu:gloo,cuda:nccl
        device_of_entry, _, name = entry.strip().rpartition(":")
        if problem := find_backend_problem(name, device_of_entry or device):
            fallback = "gloo" if device == "cpu" else "null"
            raise ConfigError([f"{BACKEND_KEY}={backend}: {problem} Set {BACKEND_KEY}={fallback}."])
    return backend, f"from {BACKEND_KEY}" if requested_backend(strategy) else f"the default for {device}"


def default_backend() -> str:
    """Return NCCL where torch has it and a GPU, else gloo."""
    return "nccl" if dist.is_nccl_available() and torch.cuda.is_available() else "gloo"


def require_backend(name: str, source: str) -> None:
    """Raise unless torch and this machine support a backend."""
    if problem := find_backend_problem(name, "cuda" if torch.cuda.is_available() else "cpu"):
        raise UserError(f"{source}={name}: {problem} Pass {source}={default_backend()}.")


def find_backend_problem(name: str, device: str) -> str:
    """Return why a backend cannot be used on a device, or an empty string."""
    built = [backend for backend in BUILTIN if dist.is_backend_available(backend)]
    known = {*BUILTIN, *dist.Backend.backend_list} - {"undefined"}
    if name not in known:
        suggestion = did_you_mean(name, sorted(known)) or f". Available: {', '.join(built)}."
        return f"is not a backend{suggestion}"
    if name in BUILTIN and name not in built:
        return f"torch {torch.__version__} is built without {name}, it has {', '.join(built)}."
    if DEVICE_TYPES.get(name, device) != device:
        return f"supports {DEVICE_TYPES[name]} tensors only, and the run is on {device}."
    return ""
