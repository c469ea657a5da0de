"""Environment variables of communication libraries, set from the config."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from fulgurite.config.schema import Distributed, read_settings

ENV_INIT_METHOD = "env://"
COMM_PREFIXES = ("GLOO_", "NCCL_", "TORCH_", "UCC_", "UCX_", "FI_")  # that distributed.comm_env accepts


def set_comm_variables(cfg: DictConfig) -> None:
    """Set the variables of `interfaces` and `comm_env`, before child ranks start."""
    settings = read_settings(cfg, Distributed)
    variables = {name: str(value) for name, value in (settings.comm_env or {}).items() if value is not None}
    if settings.interfaces:
        joined = ",".join(settings.interfaces)
        # NCCL matches prefixes unless the list starts with =
        variables = {"GLOO_SOCKET_IFNAME": joined, "NCCL_SOCKET_IFNAME": f"={joined}", **variables}
    os.environ.update(variables)
    if any(name.startswith("TORCH_DISTRIBUTED_DEBUG") for name in variables):
        from torch.distributed import set_debug_level_from_env  # type: ignore[attr-defined]  # not exported

        set_debug_level_from_env()  # torch reads it on import only
