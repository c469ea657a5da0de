"""Run sweep jobs as Ray tasks, on a cluster or on a Ray started here."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from fulgurite.core.errors import UserError, find_interrupt
from fulgurite.core.files import load_pickle
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.cluster.scheduler import JobLost, Scheduler, check_types, import_package, submit_jobs
from fulgurite.launchers.job import RemoteJob
from fulgurite.runs.layout import CONSOLE_LOG, LOCK_FILE
from fulgurite.runs.lock import is_locked, run_lock
from fulgurite.shutdown.signals import HANDLED
from fulgurite.sweeps.dispatch import NumberedJob

TEMP_PREFIX = "ray-"  # of the temporary directory of a Ray that a sweep started
NONE = type(None)
SETTINGS: dict[str, tuple[type, ...]] = {
    "address": (str, NONE),
    "slots": (int, NONE),
    "num_cpus": (int, float),
    "num_gpus": (int, float),
    "resources": (dict, NONE),
    "init": (dict, NONE),
    "runtime_env": (dict, NONE),
}
# of a Ray started here: results are small, but Ray reserves a third of the memory for them by default
LOCAL_RAY = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
QUIET = {"log_to_driver": False, "configure_logging": False}


def stream(
    launcher: Launcher, settings: dict[str, Any], jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs on Ray as `LazyLauncher.stream` does."""
    ray = RayScheduler(settings)
    try:
        slots = settings["slots"] or ray.num_free_slots()
        slots = min(slots, at_once or slots)
    except BaseException:
        ray.close()
        raise
    yield from submit_jobs(ray, launcher, jobs, slots)


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings if they are valid and Ray is installed."""
    check_types(settings, SETTINGS, "ray")
    if settings["num_cpus"] == settings["num_gpus"] == 0:
        raise UserError("hydra.launcher.num_cpus=0 hydra.launcher.num_gpus=0: a job needs resources. Set one above 0.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
    if settings["address"] is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # makes Ray listen on localhost only, on every system
    import_package("ray", "ray")
    return settings


class RayScheduler(Scheduler):
    """Ray tasks, each of which runs its job in a child process of the Ray worker.

    A Ray worker has its own threads, signal handlers and environment, and is reused. A child process is clean, and its
    exit code or signal is known.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import ray

        from fulgurite.launchers.cluster import envelope as envelope_module

        ray.cloudpickle.register_pickle_by_value(envelope_module)
        self.ray, self.settings = ray, settings
        self.folder: str | None = None
        self.lock = ExitStack()
        started: dict[str, Any] = {}
        if settings["address"] is None:
            remove_stale_dirs()
            self.folder = tempfile.mkdtemp(prefix=TEMP_PREFIX)  # a short path: it holds Ray's sockets
            self.lock.enter_context(run_lock(Path(self.folder)))
            started = {**LOCAL_RAY, "_temp_dir": self.folder}
        given = {**QUIET, **started, **(settings["init"] or {})}
        if settings["runtime_env"]:
            given["runtime_env"] = settings["runtime_env"]
        handlers = {number: signal.getsignal(number) for number in HANDLED}
        try:
            ray.init(address=settings["address"], **given)
        except (ConnectionError, ValueError, TypeError, RuntimeError) as error:
            self._remove_temp_dir()
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"hydra.launcher.address={settings['address']}: Ray is not reachable ({reason}). Correct the address."
            ) from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray's handlers would exit before the jobs are stopped

    def num_free_slots(self) -> int:
        """Return how many jobs fit into Ray's resources."""
        have = self.ray.cluster_resources()
        wanted = {
            "CPU": self.settings["num_cpus"],
            "GPU": self.settings["num_gpus"],
            **(self.settings["resources"] or {}),
        }
        lacking = [f"{number:g} {name}" for name, number in wanted.items() if number > have.get(name, 0)]
        if lacking:
            raise UserError(
                f"hydra/launcher=ray: a job needs {', '.join(lacking)}, more than Ray has. Lower num_cpus, num_gpus or "
                "resources, or set hydra.launcher.slots if more machines will join."
            )
        return min(int(have[name] / number) for name, number in wanted.items() if number)

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Any:
        """Submit a job."""
        needs = {name: self.settings[name] for name in ("num_cpus", "num_gpus", "resources")}
        # one worker per job; the sweep, not Ray, retries lost jobs
        task = self.ray.remote(max_retries=0, max_calls=1, **needs)(JobEnvelope.run_in_subprocess)
        return task.options(name=f"job {job.number}").remote(envelope, str(job.folder / CONSOLE_LOG), job.grace + 10.0)

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return the handles of jobs that ended, within half a second."""
        if not handles:
            return ()
        try:
            found: list[Any] = self.ray.wait(list(handles), num_returns=len(handles), timeout=0)[0]
        except SystemError as error:  # Ray's Cython code turns an error of a signal handler into SystemError
            raise (find_interrupt(error) or error) from None
        if not found:
            time.sleep(0.3)
        return found

    def result(self, handle: Any) -> JobReturn | str:
        """Return the result of a task."""
        try:
            returned = self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise JobLost(f"the Ray task ended without a result: {type(error).__name__}: {lines[0]}") from error
        return load_pickle(returned) if isinstance(returned, bytes) else str(returned)

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Cancel tasks: running jobs save and exit, the others do not start."""
        for handle in handles:
            self.ray.cancel(handle, force=False)

    def kill(self, handles: Sequence[Any]) -> None:
        """Kill the workers of tasks, and thereby their jobs."""
        for handle in handles:
            self.ray.cancel(handle, force=True)

    def close(self) -> None:
        """Disconnect from Ray, and stop a Ray that was started here."""
        self.ray.shutdown()
        self._remove_temp_dir()

    def _remove_temp_dir(self) -> None:
        self.lock.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def remove_stale_dirs() -> None:
    """Delete the temporary directories of killed sweeps."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMP_PREFIX}*"):
        if (folder / LOCK_FILE).is_file() and not is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
