"""The errors a run can end with, and the exit code of each.

    FulguriteError            1   a fault of ours that knows its own message
    └── UserError             2   the user's input: config, missing file, missing hardware
        ├── ConfigError       2   several findings about a config, told together
        └── DiskFull          2   a file has no room on the disk
    ├── Diverged              3   the loss became NaN or infinite
    ├── RankFailed          any   another process of the run failed; ends with that one's code
    └── Pruned              0   a trial of a search was ended early, as it promised little

    Stopped            130, 143   a signal ended the run; no Exception, so that no `except Exception` goes on after it

An error that a user can mend says three things in one line: the value, the rule, the remedy.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

EXIT_DONE = 0
EXIT_CRASH = 1
EXIT_USER = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# the disk, a quota, a limit on the size of one file
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What torch's allocators and backends say where they have no error type of their own.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|\w+ out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)


class FulguriteError(Exception):
    """Root of the project's own errors; shown as one line, without a traceback."""

    exit_code: int = EXIT_CRASH


class UserError(FulguriteError):
    """Something the user gave cannot be used; the message names the value, the rule and the remedy."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """All findings about one config, told together.

    Args:
        findings: One line each, complete in itself.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = list(findings)
        super().__init__("\n".join(self.findings))


class DiskFull(UserError):
    """A file has no room: the disk, a quota or a limit is used up; what was saved before is whole."""


class Diverged(FulguriteError):
    """The loss is NaN or infinite: going on would only spoil the weights."""

    exit_code = EXIT_DIVERGED


class Pruned(FulguriteError):
    """A trial of a search was ended early, as it promised little; no fault of the run's."""

    exit_code = EXIT_DONE


class Interrupted(BaseException):
    """A signal ended the run.

    Args:
        signal_name: `SIGINT`, `SIGTERM` or `SIGUSR1`.
        saved: What of the run is saved where, a part of a sentence.
        exit_code: Of the process; None is the one of the signal.

    Attributes:
        told: Whether the run has said so itself.
    """

    def __init__(self, signal_name: str, saved: str = "", exit_code: int | None = None) -> None:
        self.interrupted = signal_name == "SIGINT"
        self.signal_name, self.saved = signal_name, saved
        own = EXIT_INTERRUPTED if self.interrupted else EXIT_TERMINATED
        self.exit_code = own if exit_code is None else exit_code
        self.told = False
        super().__init__(signal_name, saved)

    def __str__(self) -> str:
        told = f"{'interrupted' if self.interrupted else 'terminated'} ({self.signal_name})"
        return f"{told}, {self.saved}" if self.saved else told


def find_interrupt(error: BaseException | None) -> Interrupted | None:
    """Return the `PartialComposition` that an error is, or that was being handled when the error came up."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


class RefusedByRankZero(FulguriteError):
    """Rank 0 has refused what several processes were started for, and tells why.

    Args:
        message: What rank 0 says.
        exit_code: What it ends with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RankFailed(FulguriteError):
    """Another process of the run failed, and this one cannot go on without it.

    Args:
        message: Which rank, and why.
        exit_code: What the run ends with: the code of the rank that failed.
    """

    def __init__(self, message: str, exit_code: int = EXIT_CRASH) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error of the system says that there is no room for a file."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the host's or a device's memory is used up; torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `. Did you mean 'x' or 'y'?` with the names nearest to `wrong`, or an empty string.

    Args:
        wrong: The name that the user wrote.
        known: The valid names.
    """
    return _question(get_close_matches(wrong, list(known), n=2, cutoff=0.6))


def _question(names: Sequence[str]) -> str:
    return f". Did you mean {' or '.join(map(repr, names))}?" if names else ""


def suggest_or_list(wrong: str, known: Iterable[str], intro: str = "It takes") -> str:
    """Return the question of `did_you_mean`, or the list of valid names when none is near.

    Args:
        wrong: The name that the user wrote.
        known: The valid names.
        intro: Text before the list.
    """
    names = list(dict.fromkeys(known))
    near = did_you_mean(wrong, names)
    if near or not names:
        return near
    return f". {intro} {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def suggest_path(wrong: str, paths: Iterable[str]) -> str:
    """Return the question of `did_you_mean` for a dotted path: siblings first, then the same last part anywhere.

    Args:
        wrong: Dotted path that does not exist.
        paths: Dotted paths that exist.
    """
    known = list(dict.fromkeys(paths))
    parent, _, last = wrong.rpartition(".")
    siblings = [path for path in known if path.rpartition(".")[0] == parent]
    near = get_close_matches(wrong, siblings, n=2, cutoff=0.6)
    if near and parent:  # a long common prefix makes every path look near: compare the last parts
        names = get_close_matches(last, [path.rpartition(".")[2] for path in siblings], n=2, cutoff=0.6)
        near = [f"{parent}.{name}" for name in names]
    if not near:
        by_last: dict[str, list[str]] = {}
        for path in known:
            by_last.setdefault(path.rpartition(".")[2], []).append(path)
        names = get_close_matches(last, list(by_last), n=1, cutoff=0.75)
        # one name under several parents: take the most similar full paths
        near = get_close_matches(wrong, [path for name in names for path in by_last[name]], n=2, cutoff=0.0)
    return _question(near)
