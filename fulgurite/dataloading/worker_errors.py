"""Processes that load batches: one that hangs or is gone is told with what to do."""

from __future__ import annotations

import re
import signal

# What torch says, first what tells most.
_WAITED = re.compile(r"DataLoader timed out after (\S+) seconds")
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)\.")
_ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) exited unexpectedly(?: with exit code (\d+))?")


def explain_lost_worker(error: BaseException) -> str:
    """Return one line about a worker that hangs or is gone; an empty string for other errors.

    Args:
        error: What ended the run; what it was raised from is looked at too.
    """
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(str(cause) if isinstance(cause, RuntimeError) else "")
        cause = cause.__cause__ or cause.__context__
    told = "\n".join(chain)
    if found := _WAITED.search(told):
        return (
            f"no batch came from the data loader's workers for {found[1]} s: one of them hangs; what was saved is "
            "whole; see where with data.num_workers=0, or wait longer: "
            "resilience.worker_timeout_seconds=<seconds>, 0 is for ever"
        )
    if found := _KILLED.search(told):
        what = f"a data loader's worker, pid {found[1]}, was killed by {_name_of(found[2])}"
    elif found := _ENDED.search(told):
        what = f"a data loader's worker, pid {found[1]}, ended" + (f" with exit code {found[2]}" if found[2] else "")
    else:
        return ""
    return (
        f"{what}; what was saved is whole; the system kills workers when memory or shared memory runs out: try fewer "
        "data.num_workers or a smaller data.batch_size; data.num_workers=0 shows an error of the data set itself"
    )


def _name_of(told: str) -> str:
    """Return a signal as `SIGKILL` for what the system calls it, `Killed`."""
    return next((number.name for number in signal.Signals if signal.strsignal(number) == told), told)
