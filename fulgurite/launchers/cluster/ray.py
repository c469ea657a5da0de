"""Jobs of a sweep as tasks of Ray: on a cluster that runs, or on this machine, where Ray is started for the sweep."""

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
from fulgurite.runs.layout import LOCK_FILE
from fulgurite.runs.lock import is_locked, run_lock
from fulgurite.shutdown.signals import HANDLED
from fulgurite.sweeps.dispatch import NumberedJob

CONSOLE_LOG = "console.log"  # in a job's folder
TEMP_PREFIX = "ray-"  # of the system's folder for temporary files, each the folder of a Ray that a sweep has started
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
# Of a Ray that is started here; what jobs return is small, and Ray would take a third of the memory for it.
LOCAL_RAY = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
QUIET = {"log_to_driver": False, "configure_logging": False}


def stream(
    launcher: Launcher, settings: dict[str, Any], jobs: Iterator[NumberedJob], at_once: int | None = None
) -> Iterator[tuple[int, JobReturn]]:
    """Run jobs on Ray, as `streaming.Streaming` says.

    Args:
        launcher: Set up by Hydra.
        settings: Its keys, checked by `check_settings`.
        jobs: Number and words of each.
        at_once: The most jobs there at the same time; None leaves that to `slots`.

    Raises:
        UserError: Ray cannot be reached, or has not what a job asks for.
    """
    ray = RayScheduler(settings)
    try:
        slots = settings["slots"] or ray.room()
        slots = min(slots, at_once or slots)
    except BaseException:
        ray.close()
        raise
    yield from submit_jobs(ray, launcher, jobs, slots)


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the launcher's keys when they are right and Ray is installed.

    Raises:
        UserError: It is not so.
    """
    check_types(settings, SETTINGS, "ray")
    if settings["num_cpus"] == settings["num_gpus"] == 0:
        raise UserError("hydra.launcher.num_cpus=0 hydra.launcher.num_gpus=0: a job must take one of them")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell Ray's makers what it is used for
    if settings["address"] is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on all systems: it then listens on this machine alone
    import_package("ray", "ray")
    return settings


class RayScheduler(Scheduler):
    """Tasks of Ray, each with a process of the job's own beside the worker that waits for it.

    Ray's worker has threads, handlers of signals and an environment of its own, and is used again; a job's process has
    none of that, and how it ended is known to the signal.

    Args:
        settings: Checked.

    Raises:
        UserError: There is no Ray at the address.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import ray

        from fulgurite.launchers.cluster import envelope as envelope_module

        ray.cloudpickle.register_pickle_by_value(envelope_module)
        self.ray, self.settings = ray, settings
        self.folder: str | None = None
        self.owned = ExitStack()
        started: dict[str, Any] = {}
        if settings["address"] is None:
            remove_stale_dirs()
            self.folder = tempfile.mkdtemp(prefix=TEMP_PREFIX)  # a short path: Ray makes sockets below it
            self.owned.enter_context(run_lock(Path(self.folder)))
            started = {**LOCAL_RAY, "_temp_dir": self.folder}
        given = {**QUIET, **started, **(settings["init"] or {})}
        if settings["runtime_env"]:
            given["runtime_env"] = settings["runtime_env"]
        handlers = {number: signal.getsignal(number) for number in HANDLED}
        try:
            ray.init(address=settings["address"], **given)
        except (ConnectionError, ValueError, TypeError, RuntimeError) as error:
            self._leave_folder()
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"hydra.launcher.address={settings['address']}: Ray does not begin: {reason}") from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray's own would end this process amid its jobs

    def room(self) -> int:
        """Return how many jobs Ray has room for now.

        Raises:
            UserError: For none.
        """
        have = self.ray.cluster_resources()
        wanted = {
            "CPU": self.settings["num_cpus"],
            "GPU": self.settings["num_gpus"],
            **(self.settings["resources"] or {}),
        }
        lacking = [f"{number:g} {name}" for name, number in wanted.items() if number > have.get(name, 0)]
        if lacking:
            raise UserError(
                f"hydra/launcher=ray: a job asks for {', '.join(lacking)}, more than all of Ray has; lower num_cpus, "
                "num_gpus or resources, or set hydra.launcher.slots where more machines are still to come"
            )
        return min(int(have[name] / number) for name, number in wanted.items() if number)

    def submit(self, job: RemoteJob, envelope: JobEnvelope) -> Any:
        """Hand over a job."""
        needs = {name: self.settings[name] for name in ("num_cpus", "num_gpus", "resources")}
        # a worker for one job, and a job that is lost is not begun again behind the sweep's back
        task = self.ray.remote(max_retries=0, max_calls=1, **needs)(JobEnvelope.run_in_subprocess)
        return task.options(name=f"job {job.number}").remote(envelope, str(job.folder / CONSOLE_LOG), job.grace + 10.0)

    def ended(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Return those that have ended, after half a second at most.

        Raises:
            Stopped: A signal has come.
        """
        if not handles:
            return ()
        try:
            found: list[Any] = self.ray.wait(list(handles), num_returns=len(handles), timeout=0)[0]
        except SystemError as error:  # what a signal's handler raises inside of Ray's own code comes out as this
            raise (find_interrupt(error) or error) from None
        if not found:
            time.sleep(0.3)
        return found

    def result(self, handle: Any) -> JobReturn | str:
        """Return what a task has returned.

        Raises:
            Lost: Its worker died, or it was cancelled.
        """
        try:
            returned = self.ray.get(handle)
        except self.ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise JobLost(f"Ray's task ended without a word: {type(error).__name__}: {lines[0]}") from error
        return load_pickle(returned) if isinstance(returned, bytes) else str(returned)

    def request_stop(self, handles: Sequence[Any]) -> None:
        """Interrupt tasks: those that run have their jobs save, the others do not begin."""
        for handle in handles:
            self.ray.cancel(handle, force=False)

    def kill(self, handles: Sequence[Any]) -> None:
        """Kill the workers of tasks; their jobs see that and end too."""
        for handle in handles:
            self.ray.cancel(handle, force=True)

    def close(self) -> None:
        """Leave Ray, and end it where it was started here."""
        self.ray.shutdown()
        self._leave_folder()

    def _leave_folder(self) -> None:
        self.owned.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def remove_stale_dirs() -> None:
    """Remove the folders of sweeps that SIGKILL has ended: each holds up to hundreds of megabytes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMP_PREFIX}*"):
        if (folder / LOCK_FILE).is_file() and not is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
