"""Explain the failure of a DataLoader worker in one line, with a remedy."""

from __future__ import annotations

import re
import signal

from fulgurite.core.context import setting

# torch's messages, the most specific first
_TIMEOUT = re.compile(r"DataLoader timed out after (\S+) seconds")
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)\.")
_EXITED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) exited unexpectedly(?: with exit code (\d+))?")


def explain_worker_failure(error: BaseException) -> str:
    """Return one line about a worker that hangs or died; an empty string for other errors."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(str(cause) if isinstance(cause, RuntimeError) else "")
        cause = cause.__cause__ or cause.__context__
    message = "\n".join(chain)
    if match := _TIMEOUT.search(message):
        return (
            f"the DataLoader's workers returned no batch for {float(match[1]):g} s: one of them hangs. Saved "
            f"checkpoints are intact. Set {_argument('num_workers=0')} to see where, or raise "
            f"{setting('resilience.worker_timeout_seconds')} (0: no limit)."
        )
    if match := _KILLED.search(message):
        failure = f"DataLoader worker {match[1]} was killed by {_signal_name(match[2])}"
    elif match := _EXITED.search(message):
        failure = f"DataLoader worker {match[1]} exited" + (f" with code {match[2]}" if match[2] else "")
    else:
        return ""
    return (
        f"{failure}. Saved checkpoints are intact. The system kills workers when memory or shared memory runs out: "
        f"reduce {_argument('num_workers')} or {_argument('batch_size')}, "
        f"or set {_argument('num_workers=0')} to see an error of the data set itself."
    )


def _argument(name: str) -> str:
    return setting(f"data.{name}", name)


def _signal_name(description: str) -> str:
    """Return e.g. `SIGKILL` for the system's description `Killed`."""
    return next((number.name for number in signal.Signals if signal.strsignal(number) == description), description)
