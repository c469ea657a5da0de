"""Barriers and decisions of rank 0, before the process group exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from fulgurite.distributed.rendezvous import broadcast_decision


def barrier(config: DictConfig, name: str) -> None:
    """Wait until all ranks that a launcher started have called this."""
    broadcast_decision(config, name, None, lambda _: None)


def rank_zero_decides(config: DictConfig, name: str, decide: Callable[[], Any]) -> Any:
    """Return rank 0's decision on every rank.

    Without an external launcher, `decide` is called locally.
    """
    return broadcast_decision(config, name, None, lambda _: decide())
