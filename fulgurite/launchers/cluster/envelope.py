"""A pickled job for another machine, which imports the project there.

This module is pickled by value, because the project is not yet on the path there: import the standard library only.
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

# program of a job's process under Ray
WORKER_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from fulgurite.launchers.cluster import worker; worker.run_from_stdin(sys.argv[2], int(sys.argv[3]))"
)


class JobEnvelope:
    """A pickled `RemoteJob`, its project directory and its sweep directory."""

    def __init__(self, root: str, sweep: str, job: bytes) -> None:
        self.root, self.sweep, self.job = root, sweep, job

    def __call__(self) -> Any:
        """Run the job and return its `JobReturn`, or why it could not start."""
        if missing := self.find_missing_paths():
            return missing
        sys.path.insert(0, self.root)
        from fulgurite.launchers.cluster.worker import run_submitted_job

        return run_submitted_job(self.job)

    def checkpoint(self) -> Any:
        """Return the job for submitit to requeue, which resumes from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def find_missing_paths(self) -> str:
        """Return an error about paths that this machine does not see, or ''."""
        invisible = [path for path in (f"{self.root}/.project-root", self.sweep) if not Path(path).exists()]
        if not invisible:
            return ""
        return (
            f"{socket.gethostname()} does not see {' and '.join(invisible)}. Move the project and paths.log_dir "
            "to a filesystem that all machines share."
        )

    def run_in_subprocess(self, log: str, exit_seconds: float) -> bytes | str:
        """Run the job in a child process and return its pickled `JobReturn`.

        A string is the reason why there is none. To cancel the job, Ray raises KeyboardInterrupt here. The child then
        gets SIGTERM, and saves.
        """
        if missing := self.find_missing_paths():
            return missing
        # a sweep that was started in the background ignores SIGINT, and this process inherits that
        signal.signal(signal.SIGINT, signal.default_int_handler)
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, Path(log).open("ab") as output:
            result = Path(folder, "result")
            command = [sys.executable, "-c", WORKER_PROGRAM, self.root, str(result), str(os.getpid())]
            process = subprocess.Popen(
                command, cwd=self.root, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
            assert process.stdin is not None
            try:
                with process.stdin:
                    process.stdin.write(self.job)
                while (code := process.poll()) is None:
                    time.sleep(0.2)  # Ray's KeyboardInterrupt is not a signal: it does not interrupt process.wait
            except KeyboardInterrupt:
                process.terminate()
                code = process.wait(exit_seconds)
            finally:
                process.kill()
            if result.is_file():
                return result.read_bytes()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return f"the job's process on {socket.gethostname()} {how} without reporting a reason (log: {log})"
