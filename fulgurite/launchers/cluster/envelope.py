"""A job on its way to another machine: unpickled there, it looks for the project's folder and is run from it.

Pickled by value (`cloudpickle.register_pickle_by_value`), so that it arrives where nothing of ours is on the path yet:
this file imports the standard library alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# The process of a job under Ray: what it says goes to its log, and what it returns to a file.
WORKER_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from fulgurite.launchers.cluster import worker; worker.run_from_stdin(sys.argv[2], int(sys.argv[3]))"
)


class JobEnvelope:
    """One job as bytes, and the folders that it needs to see where it arrives.

    Args:
        root: The project's folder.
        sweep: The sweep's folder.
        job: A pickled `RemoteJob`.
    """

    def __init__(self, root: str, sweep: str, job: bytes) -> None:
        self.root, self.sweep, self.job = root, sweep, job

    def __call__(self) -> Any:
        """Run the job in this process and return its `JobReturn`, or a line on why it could not begin."""
        if missing := self.missing():
            return missing
        sys.path.insert(0, self.root)
        from fulgurite.launchers.cluster.worker import run_submitted_job

        return run_submitted_job(self.job)

    def checkpoint(self) -> Any:
        """Return what submitit puts back into the queue: the same job, which finds what it has saved by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def missing(self) -> str:
        """Return a line on the folders that this machine does not see; empty where it sees them."""
        unseen = [folder for folder in (f"{self.root}/src", self.sweep) if not Path(folder).is_dir()]
        if not unseen:
            return ""
        return (
            f"{socket.gethostname()} does not see {' and '.join(unseen)}; jobs need the project and paths.log_dir "
            "on a file system that all machines share"
        )

    def run_in_subprocess(self, log: str, patience: float) -> bytes | str:
        """Run the job in a process of its own, which ends with this one, and return its pickled `JobReturn`.

        Ray interrupts this process to cancel the job; the job's is then asked to end by SIGTERM, and saves.

        Args:
            log: File for what the process says.
            patience: Seconds that it may take to end when it is asked to.

        Returns:
            Instead of bytes a line on why there are none.
        """
        if missing := self.missing():
            return missing
        # a sweep that was started in the background may have handed down that SIGINT is ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, Path(log).open("ab") as said:
            result = Path(folder, "result")
            command = [sys.executable, "-c", WORKER_PROGRAM, self.root, str(result), str(os.getpid())]
            process = subprocess.Popen(
                command, cwd=self.root, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
            )
            assert process.stdin is not None
            try:
                with process.stdin:
                    process.stdin.write(self.job)
                while (code := process.poll()) is None:
                    time.sleep(0.2)  # Ray's interrupt is no signal: it wakes up nothing that waits in the system
            except KeyboardInterrupt:
                process.terminate()
                code = process.wait(patience)
            finally:
                process.kill()
            if result.is_file():
                return result.read_bytes()
        by = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"the job's process on {socket.gethostname()} {by} without a word; its last lines are in {log}"
