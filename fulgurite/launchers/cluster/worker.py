"""Run or resume a sweep job on the machine where a scheduler started it."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import OmegaConf

from fulgurite.compat.hydra import ConfigLoaderImpl, failed_job
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import UserError
from fulgurite.core.files import load_pickle, write_atomic
from fulgurite.core.proc import terminate_with_parent
from fulgurite.core.project import prepare_environment
from fulgurite.engine.outcome import JobFailed, classify_error
from fulgurite.launchers.job import RemoteJob, compose_job, to_hydra_config, to_plain
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.shutdown.signals import signal_handler
from fulgurite.sweeps.jobs import KILLED, Job
from fulgurite.sweeps.resume import resume_overrides


def run_submitted_job(pickled: bytes) -> JobReturn:
    """Run a job under submitit.

    submitit's SIGUSR1 handler requeues the job and exits at once, in the middle of a step. While the job runs, ours
    replaces it: the job finishes its step and saves, then submitit's handler is called.
    """
    requeue: Any = signal.getsignal(signal.SIGUSR1)
    clear_single_task_env()
    returned = _run_or_resume(pickled)
    is_preempted = returned.status == JobStatus.FAILED and signal_handler().requested == signal.SIGUSR1
    if is_preempted and isinstance(requeue, Callable):  # type: ignore[arg-type]
        try:
            requeue(signal.SIGUSR1, None)  # exits this process
        except RuntimeError as error:  # requeued too often
            sys.stderr.write(f"{error}\n")
    return returned


def run_from_stdin(result: str, parent: int) -> None:
    """Run a job read from stdin, write its `JobReturn`, and exit with the parent."""
    terminate_with_parent(parent)
    returned = _run_or_resume(sys.stdin.buffer.read())
    write_atomic(result, pickle.dumps(returned))


def _run_or_resume(pickled: bytes) -> JobReturn:
    prepare_environment()
    guard_configs()
    setup_globals()
    Plugins.instance()  # registers the config groups of the hydra node, from which a resumed job is composed
    job: RemoteJob = load_pickle(pickled)
    try:
        return _resume_if_interrupted(job).run()
    except UserError as error:
        return failed_job(JobFailed(classify_error(error)))


def _resume_if_interrupted(job: RemoteJob) -> RemoteJob:
    """Add the overrides that resume a job if a signal interrupted it."""
    run = RunDirectory.of(job.folder)
    if run is None or run.status != KILLED:
        return job
    before = to_hydra_config(job.plain)
    given = OmegaConf.to_container(before.hydra.overrides.task, resolve=False)
    assert isinstance(given, list)
    # without the overrides that resumed an earlier start
    overrides = list(takewhile(lambda override: not override.startswith("resume.run="), map(str, given)))
    again = Job(job.number, "", tuple(overrides), state=KILLED, folder=job.folder)
    if problems := resume_overrides(again, before.copy()):
        raise UserError("; ".join(problems))
    if not again.resume_overrides:
        return job
    config = compose_job(ConfigLoaderImpl(job.search_path), before, job.number, [*overrides, *again.resume_overrides])
    return replace(job, plain=to_plain(config))


def clear_single_task_env() -> None:
    """Delete the rank variables of a one-task step: the job starts its own ranks."""
    if os.environ.get("SLURM_NTASKS", "1") == "1":
        for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
            os.environ.pop(name, None)
