"""Run an entry point under Hydra with error messages, signals and exit codes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from pathlib import Path
from typing import Any, cast, overload

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fulgurite.compat.hydra import MAIN, is_sweep_job
from fulgurite.config.left_out import log_left_out
from fulgurite.config.metric_names import optimized_metrics
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.context import ProcessContext, current_context, set_context
from fulgurite.core.errors import (
    FulguriteError,
    Interrupted,
    UserError,
    explain_file_error,
    find_interrupt,
)
from fulgurite.core.project import prepare_environment, project_root, use_writable_caches
from fulgurite.core.rank_logging import RankedLogger, guard_log_files, rank
from fulgurite.distributed.launch_env import detect_launch
from fulgurite.distributed.supervision.job_isolation import isolated_job
from fulgurite.engine.oom_retry import run_with_backoff
from fulgurite.engine.outcome import JobFailed, classify_error, exit_on_user_error, log_outcome, print_error
from fulgurite.resume.shorthand import expand_shorthands
from fulgurite.shutdown.signals import signal_handler
from fulgurite.sources.answers import save_snapshot, used_sources
from fulgurite.sources.secrets import explain_resolution
from fulgurite.sources.snapshot import FOLDER, SAVED
from fulgurite.trust.sources import foreign_parts

log = RankedLogger(__name__)
Task = Callable[[DictConfig], dict[str, float]]


class EntryPoint:
    """A task that is also a program.

    Called without arguments it composes the config from `sys.argv` with Hydra, runs the task and exits with the run's
    exit code. Called with a composed config it only runs the task and returns its metrics.
    """

    def __init__(self, task: Task, config_name: str) -> None:
        update_wrapper(self, task)
        self.task = task
        self.config_name = config_name

    @overload
    def __call__(self) -> None: ...
    @overload
    def __call__(self, cfg: DictConfig) -> dict[str, float]: ...
    def __call__(self, cfg: DictConfig | None = None) -> dict[str, float] | None:
        """Run the program, or only the task when a config is passed."""
        if cfg is not None:
            return self.task(cfg)
        run_app(self)
        return None

    def run_job(self, cfg: DictConfig) -> float | list[float] | None:
        """Run the task as a Hydra job, and return the metrics of `optimized_metric` for the sweep.

        Returns:
            One metric, a list for several, or None: there is none, or the trial was pruned.

        Raises:
            JobFailed: A sweep job failed; the sweep decides whether to continue.
            Interrupted: A signal stopped the run, and the sweep with it.
            SystemExit: A single run failed.
        """
        gc.enable()
        guard_log_files()
        _log_origins()
        try:
            with isolated_job() if is_sweep_job() else nullcontext():
                metrics = run_with_backoff(self.task, cfg)
        except BaseException as error:
            if (stop := find_interrupt(error)) is not None:
                raise stop from None
            outcome = classify_error(error, cfg)
            log_outcome(error, outcome, "")  # an error outside of a session, such as a record that cannot be written
            if is_sweep_job():
                if outcome.status == "pruned":
                    return None
                # sys.exit in a job fails the job; an interrupt stops the whole sweep
                if isinstance(error, Exception) or (isinstance(error, SystemExit) and outcome.status == "failed"):
                    raise JobFailed(outcome) from error
            raise SystemExit(outcome.exit_code) from error
        finally:
            log_left_out()  # a run that was built has logged it under its directory
        values = [metrics[name] for name in optimized_metrics(cfg)]
        return values if len(values) > 1 else values[0] if values else None


def main(config_name: str) -> Callable[[Task], EntryPoint]:
    """Decorate a task like `hydra.main`, with clear errors, signals, exit codes and resume.

    Args:
        config_name: The config file in the project's `configs/`, without `.yaml`.

    Example:
        >>> @fulgurite.main(config_name="train")
        ... def train(cfg: DictConfig) -> dict[str, float]:
        ...     with fulgurite.session(cfg) as session:
        ...         fulgurite.validate(cfg)
        ...         run = fulgurite.build(cfg)
        ...         run.trainer.fit(run.model, datamodule=run.datamodule)
        ...         session.log_results(run.trainer.callback_metrics)
        ...         return session.finish(cfg.optimized_metric)
        >>> if __name__ == "__main__":
        ...     train()
    """
    return lambda task: EntryPoint(task, config_name)


def run_app(entry_point: EntryPoint) -> None:
    """Compose the config from `sys.argv` and run the entry point; exit with its code unless it succeeds."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints a summary of its own and exits with 1
    gc.disable()  # a fifth of the time of composing would be garbage collection, which finds nothing
    with exit_on_user_error():
        prepare_environment()
    use_writable_caches(os.environ)
    guard_configs()
    context = set_context(ProcessContext(config_name=entry_point.config_name, launch=detect_launch(os.environ)))
    signals = signal_handler()
    signals.install()
    try:
        sys.argv[1:] = expand_shorthands(sys.argv[1:], entry_point.config_name)
        _hydra_main(entry_point)()
    except Interrupted as stop:
        signals.terminate_ranks()
        _report_interrupt(stop)
        raise SystemExit(stop.exit_code) from None
    except JobFailed as error:
        raise SystemExit(error.outcome.exit_code) from error
    except FulguriteError as error:
        print_error(error)
        raise SystemExit(error.exit_code) from error
    except Exception as error:
        from fulgurite.validation.composition import explain_composition

        full = explain_resolution(error) or explain_file_error(error)
        explained = UserError(full) if full else explain_composition(error, sys.argv[1:], entry_point.config_name)
        if explained is None:
            raise
        print_error(explained)
        raise SystemExit(explained.exit_code) from error
    finally:
        signals.restore()
        if "fulgurite.distributed.process_group" in sys.modules:
            sys.modules["fulgurite.distributed.process_group"].remove_init_file()
        if context.launch is not None:
            from fulgurite.distributed.rendezvous import close_rendezvous

            close_rendezvous()
        # Hydra does not call on_multirun_end after a failed job
        if context.sweep_dir is not None and context.sweep_dir.is_dir() and rank() == 0:
            from fulgurite.reporting.sweep_summary import conclude_sweep

            conclude_sweep(context.sweep_dir)


def _log_origins() -> None:
    """Name the remote sources and the folders of foreign configs in the first line of a run; keep what was fetched."""
    remote = used_sources()
    if rank() == 0 and HydraConfig.initialized() and HydraConfig.get().output_subdir is not None:
        save_snapshot(Path(HydraConfig.get().runtime.output_dir) / SAVED / FOLDER)
    if remote:
        log.info("composed with configs from %s", ", ".join(remote))
    if folders := [each for each in foreign_parts()["folders"] if each not in remote]:
        log.info("reads configs that are not of this project: %s", ", ".join(folders))


def _hydra_main(entry_point: EntryPoint) -> Callable[[], Any]:
    """Return the function that `hydra.main` makes of a task; Hydra names the job after the file of its code."""

    def job(cfg: DictConfig) -> float | list[float] | None:
        return entry_point.run_job(cfg)

    update_wrapper(job, entry_point.task)
    job.__code__ = job.__code__.replace(co_filename=entry_point.task.__code__.co_filename)
    wrapped = hydra.main(**MAIN, config_path=str(project_root() / "configs"), config_name=entry_point.config_name)(job)
    return cast("Callable[[], Any]", wrapped)


def _report_interrupt(stop: Interrupted) -> None:
    if rank() > 0:
        return
    context = current_context()
    if context.sweep_dir is not None:
        from fulgurite.reporting.sweep_summary import describe_stop

        line = describe_stop(context.sweep_dir, context.sweep_config, stop.signal_name)
        hint = f"; to resume, run the same command with sweep.resume={context.sweep_dir}"
        sys.stderr.write(f"{line}{hint if context.is_sweep_resumable else ''}\n")
    elif not stop.reported:
        sys.stderr.write(f"{stop} before the run began\n")
