"""Start one run with one directory and one config on all ranks."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from fulgurite.config.override_text import set_config_value
from fulgurite.config.view import leaves_of
from fulgurite.core.context import current_context
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import mask_override, without_secrets
from fulgurite.distributed.launch_env import current_launch
from fulgurite.distributed.rendezvous import broadcast_decision

# keys that rank 0 sets: the run directory, and what the run resumes from
RANK_ZERO_KEYS = ("hydra.run.dir", "resume", "ckpt_path")
VISIBLE_SECONDS = 10.0  # until a network filesystem shows a new file on other machines
MISSING = "(missing)"


def start_run_on_all_ranks(config: DictConfig, begin: Callable[[], None]) -> None:
    """Start a run on rank 0, and set its directory in the config of every rank.

    Args:
        config: As composed, with its `hydra` part.
        begin: Reserves the run directory and sets `RANK_ZERO_KEYS` in the config.
    """
    launch = current_launch()
    assert launch is not None

    def decide() -> dict[str, Any]:
        begin()
        return {key: _to_plain(OmegaConf.select(config, key)) for key in RANK_ZERO_KEYS if "." in key or key in config}

    decided = _decide_with_same_config(config, "begin", decide)
    if launch.rank > 0:
        for key, value in decided.items():
            set_config_value(config, key, value)
    _require_shared_filesystem(config, Path(str(config.hydra.run.dir)))


def share_sweep_dir(config: DictConfig, reserve: Callable[[], Path]) -> Path:
    """Call `reserve` on rank 0, and return its sweep directory on every rank."""
    folder = Path(_decide_with_same_config(config, "sweep", lambda: str(reserve())))
    _require_shared_filesystem(config, folder)
    return folder


def _decide_with_same_config(config: DictConfig, name: str, decide: Callable[[], Any]) -> Any:
    """Return rank 0's decision if all ranks have the same config."""

    def decide_with_hosts(payloads: list[dict[str, Any]]) -> dict[str, Any]:
        _require_same_config([payload["config"] for payload in payloads])
        hosts = [payload["host"] for payload in payloads]
        return {"decided": decide(), "hosts": hosts, "master": _choose_master(hosts)}

    texts = {key: str(value) for key, value in leaves_of(without_secrets(_to_plain(config), certain=True))}
    payload = {"config": texts, "host": socket.gethostname()}
    decision = broadcast_decision(config, name, payload, decide_with_hosts)
    _complete_launch(decision["hosts"], decision["master"])
    return decision["decided"]


def _complete_launch(hosts: list[str], master: Mapping[str, str]) -> None:
    """Set what the launcher did not: local and node ranks, MASTER_ADDR, MASTER_PORT."""
    launch = current_launch()
    assert launch is not None
    machines = list(dict.fromkeys(hosts))
    here = [rank for rank, host in enumerate(hosts) if host == hosts[launch.rank]]
    complete = {
        "local_rank": here.index(launch.rank),
        "node_rank": machines.index(hosts[launch.rank]),
        "local_world_size": len(here),
    }
    complete.update({name: value for name in complete if (value := getattr(launch, name)) is not None})
    current_context().launch = replace(launch, **complete)  # type: ignore[arg-type]  # all are int fields
    for name, value in master.items():
        os.environ.setdefault(name, value)


def _require_same_config(configs: list[dict[str, Any]]) -> None:
    """Raise if a rank has other overrides or config files than rank 0."""
    for rank, config in enumerate(configs):
        keys = [key for key in {**configs[0], **config} if configs[0].get(key, MISSING) != config.get(key, MISSING)]
        if keys:
            key = keys[0]
            its, ours = (mask_override(f"{key}={values.get(key, MISSING)}") for values in (config, configs[0]))
            more = f" ({len(keys) - 1} more keys differ)" if len(keys) > 1 else ""
            remedy = "Pass the same overrides and files to all ranks."
            raise ConfigError([f"rank {rank}: {its}, but rank 0 has {ours}{more}. {remedy}"])


def _require_shared_filesystem(config: DictConfig, folder: Path) -> None:
    """Raise if a rank does not see the run directory of rank 0."""
    launch = current_launch()
    assert launch is not None

    def write_token(_: list[Any]) -> str:
        token = f".seen-{secrets.token_hex(4)}"
        (folder / token).touch()
        return token

    token = folder / broadcast_decision(config, "token", None, write_token)
    end = time.monotonic() + VISIBLE_SECONDS
    while not token.exists() and time.monotonic() < end:
        time.sleep(0.1)

    def require_visible(payloads: list[dict[str, Any]]) -> None:
        token.unlink()
        missing = [f"rank {rank} ({seen['host']})" for rank, seen in enumerate(payloads) if not seen["sees"]]
        if missing:
            with suppress(OSError):  # not empty if the run is resumed
                folder.rmdir()
            raise UserError(
                f"{folder}: {', '.join(missing)} does not see files that rank 0 writes. "
                "Set paths.log_dir to a directory on a shared filesystem."
            )

    broadcast_decision(config, "sees", {"sees": token.exists(), "host": socket.gethostname()}, require_visible)


def _choose_master(hosts: list[str]) -> dict[str, str]:
    """Return the address of rank 0, and a free port there."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1" if len(set(hosts)) == 1 else hosts[0], "MASTER_PORT": str(port)}


def _to_plain(value: Any) -> Any:
    if not isinstance(value, (DictConfig, ListConfig)):
        return value
    plain = OmegaConf.to_container(value, resolve=False)
    if isinstance(plain, dict):
        plain.pop("hydra", None)
    return plain
