"""Reserves a run's directory, so that two starts in one second are two directories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.config.override_text import set_config_value
from fulgurite.core.context import current_context
from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import current_launch
from fulgurite.distributed.supervision.failures import clear_failures
from fulgurite.engine.outcome import print_error
from fulgurite.resume.plan import plan_resume
from fulgurite.runs.layout import CONTINUE
from fulgurite.runs.sweep_ledger import LEDGER
from fulgurite.validation.validate import validate


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
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a single run, or go on in that of an earlier one; rank 0 does so for all."""

        def begin() -> None:
            plan_resume(config)
            if not OmegaConf.select(config, "resume.run") or config.resume.mode != CONTINUE:
                _reserve_key(config, "hydra.run.dir")
            if current_launch() is not None:
                clear_failures(Path(str(config.hydra.run.dir)))

        with _exit_on_user_error():
            _refuse_for(config, "is for sweeps; add -m")
            if current_launch() is None:
                begin()
            else:
                from fulgurite.distributed.shared_start import start_run_on_all_ranks  # not for a process that is alone

                validate(config)  # before the processes meet, for which torch is imported
                start_run_on_all_ranks(config, begin)
        for key, value in _rank_overrides(config):
            set_config_value(config, key, value)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a sweep; ours do so themselves, when all its jobs were found right."""
        with _exit_on_user_error():
            if asked := OmegaConf.select(config, "resume.run"):
                raise UserError(f"resume={asked}: is for one run, and a sweep starts several; leave it out")
            context = current_context()
            context.is_sweep_resumable = _is_ours(config)
            if not context.is_sweep_resumable:
                _refuse_for(
                    config, "is for the sweepers of this project; choose hydra/sweeper=grid or hydra/sweeper=search"
                )
            if (launch := current_launch()) is not None:
                _refuse_together(config, launch.launcher)
        context.sweep_config = config
        if not context.is_sweep_resumable:
            with _exit_on_user_error():
                self.reserve_sweep(config)

    @staticmethod
    def reserve_sweep(config: DictConfig, earlier: Path | None = None) -> Path:
        """Reserve the directory of a sweep, or take that of an earlier one; its jobs are told it as an override.

        Args:
            config: The sweep's config with Hydra's part.
            earlier: The directory of the sweep that goes on.

        Raises:
            UserError: The directory that is named holds another sweep, or cannot be made.
        """
        context = current_context()

        def reserve_sweep() -> Path:
            path = earlier or _reserve_key(config, "hydra.sweep.dir") or Path(str(config.hydra.sweep.dir))
            if earlier is None and context.is_sweep_resumable and (path / LEDGER).is_file():
                raise UserError(f"hydra.sweep.dir={path}: holds a sweep; go on with it by sweep.resume={path}")
            path.mkdir(parents=True, exist_ok=True)
            return path

        if current_launch() is None:
            folder = reserve_sweep()
        else:
            from fulgurite.distributed.shared_start import share_sweep_dir

            folder = share_sweep_dir(config, reserve_sweep)
        context.sweep_dir = folder
        set_config_value(config, "hydra.sweep.dir", str(folder))
        words = [f"hydra.sweep.dir='{folder}'"] if earlier or not _is_named(config, "hydra.sweep.dir") else []
        words += [f"{key}={'null' if value is None else value}" for key, value in _rank_overrides(config)]
        with read_write(config.hydra.overrides), open_dict(config.hydra.overrides):
            config.hydra.overrides.hydra.extend(words)  # each job composes anew
        return folder


def _is_ours(config: DictConfig) -> bool:
    """Tell whether the sweeper checks its jobs first and makes its folder itself."""
    return _is(config.hydra.sweeper, ".GridSweeper", ".SearchSweeper")


def _refuse_together(config: DictConfig, by: str) -> None:
    """Refuse what each of several processes that a launcher has started would do for itself."""
    started = "each of its jobs starts its processes itself"
    if not _is(config.hydra.sweeper, ".GridSweeper"):
        raise UserError(
            f"hydra/sweeper: under {by} each process would search for itself; start the search without it: {started}"
        )
    if not _is(config.hydra.launcher, ".BasicLauncher"):
        raise UserError(
            f"hydra/launcher: under {by} each process would start all jobs; start the sweep without it: {started}"
        )


def _is(part: DictConfig, *names: str) -> bool:
    return str(part.get("_target_", "")).endswith(names)


def _refuse_for(config: DictConfig, rule: str) -> None:
    """Refuse what only a sweep of ours can be asked."""
    for name in ("resume", "dry_run"):
        if asked := OmegaConf.select(config, f"sweep.{name}"):
            raise UserError(f"sweep.{name}={str(asked).lower() if asked is True else asked}: {rule}")


@contextmanager
def _exit_on_user_error() -> Iterator[None]:
    """Tell what the user got wrong and end the program: Hydra would turn the exception into a warning and go on."""
    try:
        yield
    except FulguriteError as error:
        print_error(error)
        raise SystemExit(error.exit_code) from error


def _reserve_key(config: DictConfig, key: str) -> Path | None:
    if _is_named(config, key):
        return None
    path = reserve(Path(str(OmegaConf.select(config, key))))
    set_config_value(config, key, str(path))
    return path


def _is_named(config: DictConfig, key: str) -> bool:
    return any(override.lstrip("+").startswith(f"{key}=") for override in config.hydra.overrides.hydra)


def _rank_overrides(config: DictConfig) -> list[tuple[str, str | None]]:
    """Return what another process than rank 0 has of its own: its log; what rank 0 writes it does not write too."""
    if rank() == 0:
        return []
    own: list[tuple[str, str | None]] = [("hydra.output_subdir", None)] if current_launch() else []
    if OmegaConf.select(config, "hydra.job_logging.handlers.file"):
        file = "${hydra.runtime.output_dir}/${task_name}" + f".rank{rank()}.log"
        own.append(("hydra.job_logging.handlers.file.filename", file))
    return own
