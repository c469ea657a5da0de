"""Reserves a run's directory, so that two starts in one second are two directories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from src.base.errors import UserError
from src.run.resume.runs import CONTINUE
from src.run.resume.start import choose_start


def reserve(wanted: Path) -> Path:
    """Create `wanted`, or the first of `wanted-2`, `wanted-3`, ... that nobody has, and return it.

    Raises:
        UserError: The folder above cannot be written to.
    """
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            candidate = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with suppress(FileExistsError):
                candidate.mkdir()  # fails when it is there: the file system decides who was first
                return candidate
    except OSError as error:
        raise UserError(
            f"{wanted}: cannot be made ({error.strerror}); a run needs a folder of its own: "
            "make it writable or set paths.log_dir=<folder>"
        ) from error
    raise AssertionError("count() does not end")


class ReserveRunDirectory(Callback):
    """Hydra callback: puts a reserved directory in place of the one that the clock gave.

    A directory named on the command line (`hydra.run.dir=...`, as the launcher of DDP does) is taken as it is.

    Attributes:
        sweep: The directory of the sweep that this process runs; None in a single run.
        config: The sweep's config; None in a single run.
    """

    sweep: ClassVar[Path | None] = None
    config: ClassVar[DictConfig | None] = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a single run, or go on in that of an earlier one."""
        with _told():
            choose_start(config)
        if not OmegaConf.select(config, "resume.run") or config.resume.mode != CONTINUE:
            _reserve_key(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a sweep; its jobs are told it as an override, because each composes anew."""
        with _told():
            if asked := OmegaConf.select(config, "resume.run"):
                raise UserError(f"resume={asked}: is for one run, and a sweep starts several; leave it out")
        path = _reserve_key(config, "hydra.sweep.dir")
        ReserveRunDirectory.config = config
        ReserveRunDirectory.sweep = path or Path(str(config.hydra.sweep.dir))
        if path is not None:
            with read_write(config.hydra.overrides), open_dict(config.hydra.overrides):
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{path}'")


@contextmanager
def _told() -> Iterator[None]:
    """Tell what the user got wrong and end the program: Hydra would turn the exception into a warning and go on."""
    try:
        yield
    except UserError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        raise SystemExit(error.exit_code) from error


def _reserve_key(config: DictConfig, key: str) -> Path | None:
    if any(override.lstrip("+").startswith(f"{key}=") for override in config.hydra.overrides.hydra):
        return None
    with _told():
        path = reserve(Path(str(OmegaConf.select(config, key))))
    holder = OmegaConf.select(config, key.rpartition(".")[0])
    with read_write(holder), open_dict(holder):
        holder.dir = str(path)
    return path
