"""Reserve the directory of a run or a sweep before it starts, and resume the earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.config.override_text import is_hydra_overridden, set_config_value
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import current_launch
from fulgurite.distributed.supervision.failures import clear_failures
from fulgurite.engine.outcome import exit_on_user_error
from fulgurite.resume.plan import plan_resume
from fulgurite.runs.layout import CONTINUE
from fulgurite.runs.reservation import reserve
from fulgurite.runs.sweep_ledger import LEDGER
from fulgurite.validation.validate import require_valid


class ReserveRunDirectory(Callback):
    """Hydra callback that replaces the timestamped directory by a reserved one.

    It leaves a directory named on the command line (`hydra.run.dir=...`, as Lightning's launcher does) as it is.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a single run, or resume an earlier one; rank 0 decides for all ranks."""

        def start() -> None:
            plan_resume(config)
            if not OmegaConf.select(config, "resume.run") or config.resume.mode != CONTINUE:
                _reserve_key(config, "hydra.run.dir")
            if current_launch() is not None:
                clear_failures(Path(str(config.hydra.run.dir)))

        with exit_on_user_error():
            _reject_sweep_keys(config, "applies to sweeps only. Add -m.")
            if current_launch() is None:
                start()
            else:
                from fulgurite.distributed.shared_start import start_run_on_all_ranks  # only with several ranks

                require_valid(config)  # before the rendezvous, which imports torch
                start_run_on_all_ranks(config, start)
        for key, value in _rank_overrides(config):
            set_config_value(config, key, value)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Reserve the directory of a sweep; the library's sweepers reserve theirs after validating all jobs."""
        context = current_context()
        context.sweep_config = config
        context.is_sweep_resumable = _has_target(config.hydra.sweeper, ".GridSweeper", ".SearchSweeper")
        with exit_on_user_error():
            if folder := OmegaConf.select(config, "resume.run"):
                raise UserError(f"resume={folder}: a sweep starts several runs. Remove resume, or remove -m.")
            if not context.is_sweep_resumable:
                _reject_sweep_keys(
                    config, "needs a sweeper of this library. Set hydra/sweeper=grid or hydra/sweeper=search."
                )
            if (launch := current_launch()) is not None:
                _require_grid_in_process(config, launch.launcher)
            if not context.is_sweep_resumable:
                self.reserve_sweep(config)

    @staticmethod
    def reserve_sweep(config: DictConfig, resumed: Path | None = None) -> Path:
        """Reserve the directory of a sweep, or reuse `resumed`, and pass it to the jobs as an override.

        Raises:
            UserError: `hydra.sweep.dir` names the directory of another sweep, or cannot be created.
        """
        context = current_context()

        def reserve_dir() -> Path:
            path = resumed or _reserve_key(config, "hydra.sweep.dir") or Path(str(config.hydra.sweep.dir))
            if resumed is None and context.is_sweep_resumable and (path / LEDGER).is_file():
                raise UserError(f"hydra.sweep.dir={path}: holds a sweep. Resume it with sweep.resume={path}.")
            path.mkdir(parents=True, exist_ok=True)
            return path

        if current_launch() is None:
            folder = reserve_dir()
        else:
            from fulgurite.distributed.shared_start import share_sweep_dir

            folder = share_sweep_dir(config, reserve_dir)
        context.sweep_dir = folder
        set_config_value(config, "hydra.sweep.dir", str(folder))
        is_named = resumed is None and is_hydra_overridden(config, "hydra.sweep.dir")
        overrides = [] if is_named else [f"hydra.sweep.dir='{folder}'"]
        overrides += [f"{key}={'null' if value is None else value}" for key, value in _rank_overrides(config)]
        with read_write(config.hydra.overrides), open_dict(config.hydra.overrides):
            config.hydra.overrides.hydra.extend(overrides)  # Hydra composes each job from these
        return folder


def _require_grid_in_process(config: DictConfig, launcher: str) -> None:
    """Require a grid that runs its jobs in the processes that an external launcher started."""
    remedy = f"Start it without {launcher}: each job starts its own processes."
    if not _has_target(config.hydra.sweeper, ".GridSweeper"):
        raise UserError(f"hydra/sweeper: under {launcher} each process would run its own search. {remedy}")
    if not _has_target(config.hydra.launcher, ".BasicLauncher"):
        raise UserError(f"hydra/launcher: under {launcher} each process would start all jobs. {remedy}")


def _has_target(node: DictConfig, *names: str) -> bool:
    return str(node.get("_target_", "")).endswith(names)


def _reject_sweep_keys(config: DictConfig, rule: str) -> None:
    for name in ("resume", "dry_run"):
        if value := OmegaConf.select(config, f"sweep.{name}"):
            raise UserError(f"sweep.{name}={str(value).lower() if value is True else value}: {rule}")


def _reserve_key(config: DictConfig, key: str) -> Path | None:
    if is_hydra_overridden(config, key):
        return None
    path = reserve(Path(str(OmegaConf.select(config, key))))
    set_config_value(config, key, str(path))
    return path


def _rank_overrides(config: DictConfig) -> list[tuple[str, str | None]]:
    """Return the settings of a rank above 0: a log file of its own, and no copy of rank 0's files."""
    if rank() == 0:
        return []
    overrides: list[tuple[str, str | None]] = [("hydra.output_subdir", None)] if current_launch() else []
    if OmegaConf.select(config, "hydra.job_logging.handlers.file"):
        file = "${hydra.runtime.output_dir}/${task_name}" + f".rank{rank()}.log"
        overrides.append(("hydra.job_logging.handlers.file.filename", file))
    return overrides
