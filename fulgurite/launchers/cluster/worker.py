"""A job of a sweep where a scheduler has started it, for the first time or once more: it goes on from what it saved."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import UserError
from fulgurite.core.files import load_pickle
from fulgurite.core.proc import terminate_with_parent
from fulgurite.core.project import prepare_environment
from fulgurite.engine.outcome import JobFailed, classify_error
from fulgurite.launchers.job import RemoteJob, to_hydra_config, to_plain
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.shutdown.signals import signals
from fulgurite.sweeps.jobs import KILLED, Job
from fulgurite.sweeps.resume import resume_overrides


def run_submitted_job(pickled: bytes) -> JobReturn:
    """Run a job that submitit has started.

    submitit has put handlers of its own where ours go: that of SIGUSR1 puts the job back into the queue and ends it at
    once, amid a step. Ours win while the job runs, so it finishes its step and saves; then submitit's gets its turn.

    Args:
        pickled: A `RemoteJob`.
    """
    put_back: Any = signal.getsignal(signal.SIGUSR1)
    clear_single_task_env()
    returned = _run_or_resume(pickled)
    ended = returned.status == JobStatus.FAILED and signals.asked == signal.SIGUSR1
    if ended and isinstance(put_back, Callable):  # type: ignore[arg-type]
        try:
            put_back(signal.SIGUSR1, None)  # ends this process
        except RuntimeError as error:  # the job was out of time too often
            sys.stderr.write(f"{error}\n")
    return returned


def run_from_stdin(result: str, parent: int) -> None:
    """Run a job read from standard input, and terminate it with its parent.

    Args:
        result: File for the pickled `JobReturn`.
        parent: Process ID of the Ray worker that started this process.
    """
    terminate_with_parent(parent)
    returned = _run_or_resume(sys.stdin.buffer.read())
    temporary = Path(f"{result}.part")
    temporary.write_bytes(pickle.dumps(returned))
    temporary.rename(result)


def _run_or_resume(pickled: bytes) -> JobReturn:
    prepare_environment()
    guard_configs()
    setup_globals()
    Plugins.instance()  # registers the groups of Hydra's part, which a job that goes on is composed with
    job: RemoteJob = load_pickle(pickled)
    try:
        return _resume_if_interrupted(job).run()
    except UserError as error:
        return JobReturn(status=JobStatus.FAILED, _return_value=JobFailed(classify_error(error)))


def _resume_if_interrupted(job: RemoteJob) -> RemoteJob:
    """Return the job with the words that it goes on by, where an earlier start of it was ended by a signal.

    Raises:
        UserError: It cannot go on.
    """
    run = RunDirectory.of(job.folder)
    if run is None or run.status != KILLED:
        return job
    before = to_hydra_config(job.plain)
    given = OmegaConf.to_container(before.hydra.overrides.task, resolve=False)
    assert isinstance(given, list)
    words = list(takewhile(lambda word: not word.startswith("resume.run="), map(str, given)))  # of an earlier start
    loader = ConfigLoaderImpl(job.search_path)
    again = Job(job.number, "", tuple(words), state=KILLED, folder=job.folder)
    if problems := resume_overrides(again, before.copy()):
        raise UserError("; ".join(problems))
    if not again.resume_overrides:
        return job
    config = loader.load_sweep_config(before, [*words, *again.resume_overrides])
    with read_write(config), open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(job.number), job.number
    return replace(job, plain=to_plain(config))


def clear_single_task_env() -> None:
    """Take away what Slurm says of the tasks of a step that has one: the ranks of the job are not Slurm's, but ours."""
    if os.environ.get("SLURM_NTASKS", "1") == "1":
        for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"):
            os.environ.pop(name, None)
