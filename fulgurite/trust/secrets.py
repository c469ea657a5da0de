"""Hide secrets in everything that leaves the process: terminal, log messages, Hydra's files.

The other files go through `fulgurite.core.redact` where they are written. Nothing is replaced before the first secret
is known.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import hydra.core.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

from fulgurite.compat import hydra as compat
from fulgurite.compat.hydra import SAVES, observe_resolver
from fulgurite.core.redact import (
    hide_secrets,
    known_secrets,
    register_config,
    register_override,
    register_secret,
    register_variable,
    saved_config,
)


def watch_secrets(read_secret: Callable[..., str]) -> None:
    """Hide what `oc.env` and `secret` return, and secrets on the command line, in all output of this process.

    Args:
        read_secret: The resolver `secret`, unless the user has registered one.
    """
    if guard_output not in known_secrets.on_new:
        known_secrets.on_new.append(guard_output)
    OmegaConf.register_new_resolver("oc.env", _environment_value, replace=True)
    if OmegaConf.has_resolver("secret"):  # the user's own, or ours
        observe_resolver("secret", register_secret)
    else:
        OmegaConf.register_new_resolver("secret", read_secret)
    plain: Callable[..., None] = getattr(hydra.core.utils, SAVES)
    if not hasattr(plain, "__wrapped__"):
        setattr(hydra.core.utils, SAVES, wraps(plain)(_save_config))
    for argument in sys.argv[1:]:
        register_override(argument)


def register_secrets(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Hide the secrets in a composed config, which is not changed, and in the overrides that it was composed from."""
    for override in overrides:
        register_override(override)
    register_config(OmegaConf.to_container(cfg, resolve=False))


def _environment_value(name: str, *default: Any) -> str | None:
    """Return an environment variable or the default, as OmegaConf's `oc.env`."""
    value = os.environ.get(name)
    if value is not None:
        register_variable(name, value)
        return value
    if not default:
        raise KeyError(f"Environment variable '{name}' not found")  # as OmegaConf words it
    return None if default[0] is None else str(default[0])


def _save_config(cfg: DictConfig | ListConfig, filename: str, output_dir: Path) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / filename).write_text(saved_config(cfg), encoding="utf-8")


def guard_basic_sweeper() -> None:
    """Hide secrets in the file of a sweep that Hydra's basic sweeper saves, once Hydra has found its plugins."""
    sys.modules[compat.BasicSweeper.__module__].OmegaConf = _MaskedSaves  # type: ignore[attr-defined]


class _MaskedSaves(OmegaConf):
    """OmegaConf whose saved configs have no secrets."""

    @staticmethod
    def save(config: Any, f: Any, resolve: bool = False) -> None:  # noqa: ARG004 - as it is called
        Path(f).write_text(saved_config(config), encoding="utf-8")


def guard_output() -> None:
    """Hide known secrets in what is printed and logged from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not _is_guarded(stream):
            setattr(sys, name, _GuardedStream(stream))
    plain = logging.Handler.format
    if not hasattr(plain, "__wrapped__"):  # handlers hold the stream from before

        @wraps(plain)
        def format_record(self: logging.Handler, record: logging.LogRecord) -> str:
            return hide_secrets(plain(self, record))

        logging.Handler.format = format_record  # type: ignore[method-assign]


class _GuardedStream:
    """A stream that hides secrets in what is written to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(hide_secrets(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_guarded(stream: Any) -> bool:
    while stream is not None and not isinstance(stream, _GuardedStream):
        stream = vars(stream).get("_stream") if hasattr(stream, "__dict__") else None  # below a status line
    return stream is not None
