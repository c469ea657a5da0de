"""Jobs of a sweep as jobs of Slurm, through submitit; its local executor stands in where there is no Slurm."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from fulgurite.core.errors import UserError
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.cluster.scheduler import (
    JobLost,
    QueueFull,
    Scheduler,
    check_types,
    import_package,
    submit_jobs,
)
from fulgurite.launchers.job import RemoteJob
from fulgurite.runs.sweep_ledger import ledger_state, record_event
from fulgurite.sweeps.dispatch import NumberedJob

SUBMITIT_DIR = ".submitit"  # in the sweep's folder: what is submitted, what jobs say and what they return
NUMBER, TEXT, NONE = (int,), (str,), type(None)
SETTINGS: dict[str, tuple[type, ...]] = {
    "cluster": TEXT,
    "slots": NUMBER,
    "nodes": NUMBER,
    "tasks_per_node": NUMBER,
    "gpus_per_node": (int, NONE),
    "cpus_per_task": (int, NONE),
    "mem_gb": (int, float, NONE),
    "timeout_min": NUMBER,
    "signal_delay_s": NUMBER,
    "max_num_timeout": NUMBER,
    "poll_s": NUMBER,
    "partition": (str, NONE),
    "account": (str, NONE),
    "qos": (str, NONE),
    "constraint": (str, NONE),
    "setup": (list, NONE),
    "additional_parameters": (dict, NONE),
}
COMMON_KEYS = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min")
SLURM_KEYS = ("signal_delay_s", "partition", "account", "qos", "constraint", "additional_parameters")
CLUSTERS = ("slurm", "local")
# What sbatch says of limits on how many jobs there may be, and of a controller that is busy or away.
TEMPORARY_REFUSAL = re.compile(
    r"SubmitJob|job submit limit|[Tt]emporarily un|[Ss]ocket timed out|[Uu]nable to contact slurm"
)
# The signal by which a job is told that its time is over. submitit's own choice is SIGUSR2, which ends every process
# of the job that does not expect it, workers of data loaders among them; ours expect SIGUSR1, as scripts/slurm.sbatch
# sends it.
PREEMPT_SIGNAL_ENV = {"SUBMITIT_PREEMPT_SIGNAL": "USR1"}


def stream(
    launcher: Launcher, settings: dict[str, Any], jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs on Slurm, as `streaming.Streaming` says.

    Args:
        launcher: Set up by Hydra.
        settings: Its keys, checked by `check_settings`.
        jobs: Number and words of each.
        at_once: The most jobs there at the same time; None leaves that to `slots`.
    """
    scheduler = SlurmScheduler(settings, Path(str(launcher.config.hydra.sweep.dir)).absolute())  # type: ignore[attr-defined]
    slots = settings["slots"]
    yield from submit_jobs(scheduler, launcher, jobs, min(slots, at_once or slots))


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the launcher's keys when jobs can be submitted with them.

    Raises:
        UserError: They cannot.
    """
    check_types(settings, SETTINGS, "slurm")
    cluster = settings["cluster"]
    if cluster not in CLUSTERS:
        raise UserError(f"hydra.launcher.cluster={cluster}: must be one of {', '.join(CLUSTERS)}")
    os.environ.update(PREEMPT_SIGNAL_ENV)  # read when submitit is imported
    import_package("submitit", "slurm")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise UserError(
            "hydra.launcher.cluster=slurm: this machine has no sbatch; start the sweep where jobs can be submitted, "
            "or try it here with hydra.launcher.cluster=local"
        )
    for key in ("nodes", "tasks_per_node"):
        if cluster == "local" and settings[key] > 1:
            raise UserError(f"hydra.launcher.{key}={settings[key]}: hydra.launcher.cluster=local has one; set it to 1")
    if settings["signal_delay_s"] >= settings["timeout_min"] * 60:
        raise UserError(
            f"hydra.launcher.signal_delay_s={settings['signal_delay_s']}: is not below the time of a job, "
            f"hydra.launcher.timeout_min={settings['timeout_min']}; make the time longer"
        )
    return settings


def make_executor(settings: dict[str, Any], folder: Path) -> Any:
    """Return submitit's executor for jobs of a sweep.

    Args:
        settings: Checked.
        folder: The sweep's.
    """
    submitit = import_package("submitit", "slurm")
    executor = submitit.AutoExecutor(
        folder=folder / SUBMITIT_DIR / "%j",
        cluster=settings["cluster"],
        slurm_max_num_timeout=settings["max_num_timeout"],
        local_max_num_timeout=settings["max_num_timeout"],
    )
    setup = [*(f"export {name}={value}" for name, value in PREEMPT_SIGNAL_ENV.items()), *(settings["setup"] or ())]
    executor.update_parameters(
        name=folder.name,
        **{key: settings[key] for key in COMMON_KEYS},
        **{f"slurm_{key}": settings[key] for key in SLURM_KEYS},
        slurm_setup=setup,
    )
    if settings["cluster"] == "local":
        executor._executor.parameters["signal_delay_s"] = settings["signal_delay_s"]
    return executor


class SlurmScheduler(Scheduler):
    """submitit's jobs.

    Args:
        settings: Checked.
        folder: The sweep's.
    """

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        from cloudpickle import register_pickle_by_value

        from fulgurite.launchers.cluster import envelope as envelope_module

        register_pickle_by_value(envelope_module)
        self.folder = folder
        self.local = settings["cluster"] == "local"
        self.pause, self.asked = settings["poll_s"], time.monotonic()
        self.executor = make_executor(settings, folder)
        # where the files of another machine may be seen some seconds late
        self.late = 0.0 if self.local else 15.0

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Any:
        """Hand over a job; one of an earlier start of the sweep that still waits in the queue is taken out of it.

        Raises:
            QueueFull: Slurm takes no job for now: it has as many of the user's as it may, or does not answer.
            UserError: Slurm does not take this job.
        """
        told = ledger_state(self.folder).last.get(job.number, {})
        if not self.local and told.get("event") == "queued":
            subprocess.run(["scancel", str(told["id"])], check=False)
        try:
            submitted = self.executor.submit(envelope)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            last = str(error).strip().splitlines()[-1]
            if TEMPORARY_REFUSAL.search(str(error)):
                raise QueueFull(last) from error
            raise UserError(f"hydra/launcher=slurm: job {job.number} was not taken by sbatch: {last}") from error
        record_event({"dir": self.folder, "job": job.number}, "queued", run=job.folder, id=submitted.job_id)
        return submitted

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return those that have a result, or of which Slurm says that they have ended."""
        if self.local:
            found = [job for job in handles if job.done()]
        else:
            found = [job for job in handles if job.paths.result_pickle.exists()]
            if handles and not found and time.monotonic() - self.asked > self.pause:
                queued = self._queued(handles)
                found = [job for job in handles if job.job_id not in queued]
        if not found:
            time.sleep(0.2 if self.local else 1.0)
        return found

    def result(self, handle: Any) -> JobReturn | str:
        """Return what a job has left.

        Raises:
            Lost: Nothing.
        """
        until = time.monotonic() + self.late
        while not handle.paths.result_pickle.exists() and time.monotonic() < until:
            time.sleep(0.5)
        if not handle.paths.result_pickle.exists():
            raise JobLost(self._told(handle))
        first = handle.task(0)  # the others have ended with it, or will
        if (error := first.exception()) is not None:
            lines = [line for line in str(error).splitlines() if line and not line.startswith(("---", "You can check"))]
            return f"{lines[-2] if lines[-1].startswith('  - ') else lines[-1]}; its log: {handle.paths.stderr}"
        return first.result()  # type: ignore[no-any-return]

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Send SIGTERM to what runs, and take what waits out of the queue."""
        if self.local:
            self._signal(handles, signal.SIGTERM)
            return
        self.pause = min(self.pause, 2)
        ids = [str(job.job_id) for job in handles]
        subprocess.run(["scancel", "--state=PENDING", *ids], check=False)
        subprocess.run(["scancel", "--state=RUNNING", "--signal=TERM", *ids], check=False)

    def kill(self, handles: Sequence[Any]) -> None:
        """Have Slurm end jobs."""
        if self.local:
            self._signal(handles, signal.SIGINT)  # submitit's process then kills the job's
        else:
            subprocess.run(["scancel", *(str(job.job_id) for job in handles)], check=False)

    def close(self) -> None:
        """Nothing was taken."""

    def _queued(self, handles: Sequence[Any]) -> set[str]:
        """Return the ids of those that Slurm still has; submitit would ask sacct, which not every cluster has."""
        self.asked = time.monotonic()
        ids = [str(job.job_id) for job in handles]
        told = _run_command("squeue", "--noheader", "--format=%A", f"--jobs={','.join(ids)}")
        if told.returncode and "Invalid job id" not in told.stderr:
            return set(ids)  # nothing answers for now
        return set(told.stdout.split())

    def _signal(self, handles: Sequence[Any], number: signal.Signals) -> None:
        for job in handles:
            if job._process.poll() is None:
                job._process.send_signal(number)

    def _told(self, job: Any) -> str:
        if self.local:
            return f"ended without a word, as by kill -9; its log: {job.paths.stderr}"
        told = _run_command("scontrol", "show", "job", str(job.job_id), "--oneliner").stdout
        facts = dict(word.split("=", 1) for word in told.split() if "=" in word)
        state = facts.get("JobState", "unknown")
        code = f" with exit code {facts['ExitCode']} (code:signal)" if "ExitCode" in facts else ""
        log = job.paths.stderr
        seen = f"its log: {log}" if log.exists() else f"there is no log: does its node see {log.parent}?"
        return f"Slurm's job {job.job_id} ended without a word, state {state}{code}; {seen}"


def _run_command(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
