"""Let rank 0 decide for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.distributed.rendezvous import broadcast_decision


def barrier(config: DictConfig, name: str) -> None:
    """Return when all processes that a launcher has started have come here.

    Args:
        config: With `paths` and `extras`.
        name: Of the place.
    """
    _agree(config, name, None, lambda _: None)


def rank_zero_decides(config: DictConfig, name: str, decide: Callable[[], Any]) -> Any:
    """Return what rank 0 decides; a process that is alone, or that rank 0 starts others from, decides for itself.

    Args:
        config: With `paths` and `extras`.
        name: Of what is decided.
        decide: Returns a plain value.
    """
    return _agree(config, name, None, lambda _: decide())


def _agree(config: DictConfig, name: str, say: Any, decide: Callable[[list[Any]], Any]) -> Any:
    timeout = float(OmegaConf.select(config, "extras.rank_timeout", default=600))
    return broadcast_decision(Path(str(config.paths.log_dir)), timeout, name, say, decide)
