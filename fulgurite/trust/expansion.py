"""Limit what the interpolations of a config expand to, as `config.yaml_limits` does for aliases."""

from __future__ import annotations

from omegaconf import DictConfig

from fulgurite.compat.interpolations import Expansion
from fulgurite.core.errors import ConfigError

MAX_VALUES = 10_000  # resolving them takes some seconds; the shipped configs have 22
MAX_TEXT = 200_000  # characters of a text


def check_expansion(cfg: DictConfig) -> None:
    """Refuse a config whose interpolations multiply: 1 KB of them can stand for a billion values.

    Args:
        cfg: The merged files; no resolver is called but those that only read the config.

    Raises:
        ConfigError: The key with which the config reaches the limit.
    """
    if key := Expansion(MAX_VALUES, MAX_TEXT).find_excess(cfg):
        limit = f"{MAX_VALUES:,} values, or a text of {MAX_TEXT:,} characters"
        raise ConfigError([f"{key}: its interpolations expand to more than {limit}. Write the value instead."])
