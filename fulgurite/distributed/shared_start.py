"""One run directory and one config for all processes that a launcher has started."""

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
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import mask_override
from fulgurite.distributed.launch_env import LaunchInfo
from fulgurite.distributed.rendezvous import broadcast_decision

# What rank 0 decides about a run before it begins: where, and what it goes on from.
RANK_ZERO_KEYS = ("hydra.run.dir", "resume", "ckpt_path")
VISIBLE_SECONDS = 10.0  # seconds that a file may take to be seen on another machine
MISSING = "(absent)"


def start_run_on_all_ranks(config: DictConfig, begin: Callable[[], None]) -> None:
    """Have rank 0 begin a run, and all other processes of it take what it has put into the config.

    Args:
        config: As composed, with its `hydra` part.
        begin: Reserves the directory and puts it, and what the run goes on from, into the config.

    Raises:
        UserError: The processes have other configs, or do not see one another's files; nothing is left behind.
    """
    launch = LaunchInfo.current
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
    """Have rank 0 reserve the directory of a sweep, and return it in all processes.

    Args:
        config: The sweep's config with Hydra's part.
        reserve: Returns the directory.

    Raises:
        UserError: As `start_run_on_all_ranks`.
    """
    folder = Path(_decide_with_same_config(config, "sweep", lambda: str(reserve())))
    _require_shared_filesystem(config, folder)
    return folder


def _decide_with_same_config(config: DictConfig, name: str, decide: Callable[[], Any]) -> Any:
    """Return what rank 0 decides when all have shown the same config; each then knows its place among the others."""

    def judge(said: list[dict[str, Any]]) -> dict[str, Any]:
        _require_same_config([one["config"] for one in said])
        hosts = [one["host"] for one in said]
        return {"decided": decide(), "hosts": hosts, "master": _choose_master(hosts)}

    answer = broadcast_decision(
        config, name, {"config": _flatten(_to_plain(config)), "host": socket.gethostname()}, judge
    )
    _complete_launch(answer["hosts"], answer["master"])
    return answer["decided"]


def _complete_launch(hosts: list[str], master: Mapping[str, str]) -> None:
    """Note where this process stands among the others, and where they find one another, if the launcher did not say.

    Args:
        hosts: Of the ranks, in their order.
        master: `MASTER_ADDR` and `MASTER_PORT`.
    """
    launch = LaunchInfo.current
    assert launch is not None
    machines = list(dict.fromkeys(hosts))
    here = [rank for rank, host in enumerate(hosts) if host == hosts[launch.rank]]
    found = {
        "local_rank": here.index(launch.rank),
        "node_rank": machines.index(hosts[launch.rank]),
        "local_world_size": len(here),
    }
    found.update({name: value for name in found if (value := getattr(launch, name)) is not None})
    LaunchInfo.current = replace(launch, **found)  # type: ignore[arg-type]  # all are int fields
    for name, value in master.items():
        os.environ.setdefault(name, value)


def _require_same_config(configs: list[dict[str, Any]]) -> None:
    """Refuse ranks that were started with other words, or read other files, than rank 0."""
    for rank, config in enumerate(configs):
        keys = [key for key in {**configs[0], **config} if configs[0].get(key, MISSING) != config.get(key, MISSING)]
        if keys:
            key = keys[0]
            its, ours = (mask_override(f"{key}={one.get(key, MISSING)}") for one in (config, configs[0]))
            more = f", and {len(keys) - 1} more keys differ" if len(keys) > 1 else ""
            raise ConfigError(
                [f"rank {rank}: {its} where rank 0 has {ours}{more}; give all processes the same words and files"]
            )


def _require_shared_filesystem(config: DictConfig, folder: Path) -> None:
    """Refuse to begin where a process does not see the folder that rank 0 has made."""
    launch = LaunchInfo.current
    assert launch is not None

    def leave_token(_: list[Any]) -> str:
        token = f".seen-{secrets.token_hex(4)}"
        (folder / token).touch()
        return token

    token = folder / broadcast_decision(config, "token", None, leave_token)
    end = time.monotonic() + VISIBLE_SECONDS
    while not token.exists() and time.monotonic() < end:
        time.sleep(0.1)

    def judge(said: list[dict[str, Any]]) -> None:
        token.unlink()
        blind = [f"rank {rank} ({one['host']})" for rank, one in enumerate(said) if not one["sees"]]
        if blind:
            with suppress(OSError):  # it holds more where a run goes on
                folder.rmdir()
            raise UserError(
                f"{folder}: {', '.join(blind)} does not see what rank 0 writes there; "
                "all machines must share it: set paths.log_dir to a folder that they do"
            )

    broadcast_decision(config, "sees", {"sees": token.exists(), "host": socket.gethostname()}, judge)


def _choose_master(hosts: list[str]) -> dict[str, str]:
    """Return where rank 0 can be found, and a port that is free there."""
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


def _flatten(node: Any, key: str = "") -> dict[str, Any]:
    """Return leaves by dotted key; text, as another process would say it."""
    if isinstance(node, dict) and node:
        return {
            name: leaf
            for part, child in node.items()
            for name, leaf in _flatten(child, f"{key}.{part}" if key else str(part)).items()
        }
    return {key: str(node)}
