"""Run sweep jobs on Slurm, or locally without it, through submitit."""

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
from fulgurite.trust.ownership import make_private_folder, require_own

SUBMITIT_DIR = ".submitit"  # in the sweep directory: submissions, logs and results
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
# errors of sbatch about job limits, and about a busy or unreachable controller
TEMPORARY_REFUSAL = re.compile(
    r"SubmitJob|job submit limit|[Tt]emporarily un|[Ss]ocket timed out|[Uu]nable to contact slurm"
)
# The preemption signal. submitit's default SIGUSR2 kills every process without a handler, such as data loader workers;
# this library handles SIGUSR1, which scripts/slurm.sbatch sends too.
PREEMPT_SIGNAL_ENV = {"SUBMITIT_PREEMPT_SIGNAL": "USR1"}


def stream(
    launcher: Launcher, settings: dict[str, Any], jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs on Slurm as `LazyLauncher.stream` does."""
    scheduler = SlurmScheduler(settings, Path(str(launcher.config.hydra.sweep.dir)).absolute())  # type: ignore[attr-defined]
    slots = settings["slots"]
    yield from submit_jobs(scheduler, launcher, jobs, min(slots, at_once or slots))


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings if jobs can be submitted with them."""
    check_types(settings, SETTINGS, "slurm")
    cluster = settings["cluster"]
    if cluster not in CLUSTERS:
        raise UserError(f"hydra.launcher.cluster={cluster}: is not one of {', '.join(CLUSTERS)}. Set one of them.")
    os.environ.update(PREEMPT_SIGNAL_ENV)  # submitit reads it on import
    import_package("submitit", "slurm")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise UserError(
            "hydra.launcher.cluster=slurm: this machine has no sbatch. Start the sweep on a login node, "
            "or set hydra.launcher.cluster=local."
        )
    for key in ("nodes", "tasks_per_node"):
        if cluster == "local" and settings[key] > 1:
            raise UserError(f"hydra.launcher.{key}={settings[key]}: cluster=local has only one. Set it to 1.")
    if settings["signal_delay_s"] >= settings["timeout_min"] * 60:
        raise UserError(
            f"hydra.launcher.signal_delay_s={settings['signal_delay_s']}: is not below "
            f"hydra.launcher.timeout_min={settings['timeout_min']}. Raise the time limit."
        )
    return settings


def make_executor(settings: dict[str, Any], folder: Path) -> Any:
    """Return submitit's executor for the jobs of a sweep."""
    submitit = import_package("submitit", "slurm")
    executor = submitit.AutoExecutor(
        folder=make_private_folder(folder / SUBMITIT_DIR) / "%j",
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
    """Slurm jobs of submitit."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        from cloudpickle import register_pickle_by_value

        from fulgurite.launchers.cluster import envelope as envelope_module

        register_pickle_by_value(envelope_module)
        self.folder = folder
        self.local = settings["cluster"] == "local"
        self.poll_seconds, self.polled_at = settings["poll_s"], time.monotonic()
        self.executor = make_executor(settings, folder)
        # for a network filesystem to show a result file
        self.filesystem_seconds = 0.0 if self.local else 15.0

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Any:
        """Submit a job, and cancel its queued copy of an earlier start of the sweep."""
        last = ledger_state(self.folder).last.get(job.number, {})
        if not self.local and last.get("event") == "queued":
            subprocess.run(["scancel", str(last["id"])], check=False)
        try:
            submitted = self.executor.submit(envelope)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            reason = str(error).strip().splitlines()[-1]
            if TEMPORARY_REFUSAL.search(str(error)):
                raise QueueFull(reason) from error
            raise UserError(
                f"hydra/launcher=slurm: sbatch rejected job {job.number} ({reason}). Correct its settings."
            ) from error
        record_event({"dir": self.folder, "job": job.number}, "queued", run=job.folder, id=submitted.job_id)
        return submitted

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return the handles of jobs that have a result, or that Slurm no longer lists."""
        if self.local:
            found = [job for job in handles if job.done()]
        else:
            found = [job for job in handles if job.paths.result_pickle.exists()]
            if handles and not found and time.monotonic() - self.polled_at > self.poll_seconds:
                queued = self._queued(handles)
                found = [job for job in handles if job.job_id not in queued]
        if not found:
            time.sleep(0.2 if self.local else 1.0)
        return found

    def result(self, handle: Any) -> JobReturn | str:
        """Return the result of a job."""
        until = time.monotonic() + self.filesystem_seconds
        while not handle.paths.result_pickle.exists() and time.monotonic() < until:
            time.sleep(0.5)
        if not handle.paths.result_pickle.exists():
            raise JobLost(self._describe_lost(handle))
        require_own(handle.paths.folder.parent)  # submitit unpickles the result
        first = handle.task(0)  # the other tasks end with it
        error = first.exception()
        returned: JobReturn | None = None if error is not None else first.result()
        for file in handle.paths.folder.glob("*.pkl"):  # its config may hold a typed secret
            file.unlink(missing_ok=True)
        if error is not None:
            lines = [line for line in str(error).splitlines() if line and not line.startswith(("---", "You can check"))]
            return f"{lines[-2] if lines[-1].startswith('  - ') else lines[-1]} (log: {handle.paths.stderr})"
        assert returned is not None
        return returned

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Send SIGTERM to running jobs, and cancel pending ones."""
        if self.local:
            self._signal(handles, signal.SIGTERM)
            return
        self.poll_seconds = min(self.poll_seconds, 2)
        ids = [str(job.job_id) for job in handles]
        subprocess.run(["scancel", "--state=PENDING", *ids], check=False)
        subprocess.run(["scancel", "--state=RUNNING", "--signal=TERM", *ids], check=False)

    def kill(self, handles: Sequence[Any]) -> None:
        """Cancel jobs."""
        if self.local:
            self._signal(handles, signal.SIGINT)  # on SIGINT submitit kills the job
        else:
            subprocess.run(["scancel", *(str(job.job_id) for job in handles)], check=False)

    def close(self) -> None:
        """Do nothing: there are no resources to release."""

    def _queued(self, handles: Sequence[Any]) -> set[str]:
        """Return the IDs of jobs in squeue: submitit's sacct may not be available."""
        self.polled_at = time.monotonic()
        ids = [str(job.job_id) for job in handles]
        output = _run_command("squeue", "--noheader", "--format=%A", f"--jobs={','.join(ids)}")
        if output.returncode and "Invalid job id" not in output.stderr:
            return set(ids)  # Slurm does not respond
        return set(output.stdout.split())

    def _signal(self, handles: Sequence[Any], number: signal.Signals) -> None:
        for job in handles:
            if job._process.poll() is None:
                job._process.send_signal(number)

    def _describe_lost(self, job: Any) -> str:
        if self.local:
            return f"ended without reporting a reason, e.g. by kill -9 (log: {job.paths.stderr})"
        output = _run_command("scontrol", "show", "job", str(job.job_id), "--oneliner").stdout
        fields = dict(field.split("=", 1) for field in output.split() if "=" in field)
        state = fields.get("JobState", "unknown")
        code = f" with exit code {fields['ExitCode']} (code:signal)" if "ExitCode" in fields else ""
        log = job.paths.stderr
        where = f"log: {log}" if log.exists() else f"no log; its node may not see {log.parent}"
        return f"Slurm job {job.job_id} ended without reporting a reason, state {state}{code} ({where})"


def _run_command(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
