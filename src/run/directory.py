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
from src.base.logs import rank
from src.run.resume.runs import CONTINUE
from src.run.resume.start import choose_start
from src.run.sweeps.ledger import LEDGER


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
        can_go_on: Whether the sweep is one that can go on by `sweep.resume`.
    """

    sweep: ClassVar[Path | None] = None
    config: ClassVar[DictConfig | None] = None
    can_go_on: ClassVar[bool] = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a single run, or go on in that of an earlier one."""
        with _told():
            _refuse_for(config, "is for sweeps; add -m")
            choose_start(config)
        if not OmegaConf.select(config, "resume.run") or config.resume.mode != CONTINUE:
            _reserve_key(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a sweep; ours do so themselves, when all its jobs were found right."""
        with _told():
            if asked := OmegaConf.select(config, "resume.run"):
                raise UserError(f"resume={asked}: is for one run, and a sweep starts several; leave it out")
            ReserveRunDirectory.can_go_on = _is_ours(config)
            if not self.can_go_on:
                _refuse_for(
                    config, "is for the sweepers of this project; choose hydra/sweeper=grid or hydra/sweeper=search"
                )
        ReserveRunDirectory.config = config
        if not self.can_go_on:
            self.take_sweep(config)

    @classmethod
    def take_sweep(cls, config: DictConfig, earlier: Path | None = None) -> Path:
        """Reserve the directory of a sweep, or take that of an earlier one; its jobs are told it as an override.

        Args:
            config: The sweep's config with Hydra's part.
            earlier: The directory of the sweep that goes on.

        Raises:
            UserError: The directory that is named holds another sweep, or cannot be made.
        """
        path = earlier or _reserve_key(config, "hydra.sweep.dir")
        cls.sweep = path or Path(str(config.hydra.sweep.dir))
        if path is None and rank() == 0:
            if cls.can_go_on and (cls.sweep / LEDGER).is_file():
                cls.sweep, folder = None, cls.sweep
                raise UserError(f"hydra.sweep.dir={folder}: holds a sweep; go on with it by sweep.resume={folder}")
            cls.sweep.mkdir(parents=True, exist_ok=True)
        if earlier is not None:
            with read_write(config.hydra.sweep), open_dict(config.hydra.sweep):
                config.hydra.sweep.dir = str(earlier)
        if path is not None:
            with read_write(config.hydra.overrides), open_dict(config.hydra.overrides):
                # each job composes anew
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{path}'")
        return cls.sweep


def _is_ours(config: DictConfig) -> bool:
    """Tell whether the sweeper checks its jobs first and makes its folder itself."""
    return str(config.hydra.sweeper.get("_target_", "")).endswith((".GridSweeper", ".SearchSweeper"))


def _refuse_for(config: DictConfig, rule: str) -> None:
    """Refuse what only a sweep of ours can be asked."""
    for name in ("resume", "dry_run"):
        if asked := OmegaConf.select(config, f"sweep.{name}"):
            raise UserError(f"sweep.{name}={str(asked).lower() if asked is True else asked}: {rule}")


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
