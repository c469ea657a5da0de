"""Which backend moves the tensors between processes, why, and whether this build of torch has it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from fulgurite.compat.lightning import process_group_backend, requested_backend
from fulgurite.core.errors import ConfigError, did_you_mean

KEY = "trainer.strategy.process_group_backend"
IS_BUILT = {
    "gloo": dist.is_gloo_available,
    "nccl": dist.is_nccl_available,
    "mpi": dist.is_mpi_available,
    "ucc": dist.is_ucc_available,
    "xccl": dist.is_xccl_available,
}
ONLY_ON = {"nccl": "cuda", "xccl": "xpu"}  # what these move


def choose_backend(strategy: Any) -> tuple[str, str]:
    """Return the backend of a strategy's group, and the reason for it.

    Args:
        strategy: Lightning's, of several processes.

    Raises:
        ConfigError: It is none, this build of torch lacks it, or it does not move tensors of the device.
    """
    asked = requested_backend(strategy)
    device = strategy.root_device.type
    backend = process_group_backend(strategy)
    for part in backend.split(","):  # cpu:gloo,cuda:nccl
        _require(part.rpartition(":")[2].strip(), device, backend, mixed=":" in part)
    return backend, f"asked by {KEY}" if asked else f"the default for {device}"


def _require(name: str, device: str, backend: str, *, mixed: bool) -> None:
    known = {*IS_BUILT, *dist.Backend.backend_list} - {"undefined"}
    built = [other for other, is_built in IS_BUILT.items() if is_built()]
    use = f"use {KEY}={'gloo' if device == 'cpu' else 'null'}"
    if name not in known:
        near = did_you_mean(name, sorted(known)) or f". There are {', '.join(sorted(known))}"
        raise ConfigError([f"{KEY}={backend}: is no backend{near}"])
    if name in IS_BUILT and not IS_BUILT[name]():
        raise ConfigError(
            [f"{KEY}={backend}: torch {torch.__version__} is built without {name}, it has {', '.join(built)}; {use}"]
        )
    if name in ONLY_ON and ONLY_ON[name] != device and not mixed:
        raise ConfigError([f"{KEY}={backend}: moves {ONLY_ON[name]} tensors, and the run is on {device}; {use}"])
