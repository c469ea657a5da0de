"""The errors a run can end with, and the exit code of each.

    FulguriteError            1   a fault of ours that knows its own message
    └── UserError             2   the user's input: config, missing file, missing hardware
        ├── ConfigError       2   several findings about a config, told together
        └── DiskFull          2   a file has no room on the disk
    └── Diverged              3   the loss became NaN or infinite

An error that a user can mend says three things in one line: the value, the rule, the remedy.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar

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

    exit_code: ClassVar[int] = EXIT_CRASH


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


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error of the system says that there is no room for a file."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the host's or a device's memory is used up; torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x' or 'y'?` for the known names nearest to `wrong`, or an empty string.

    Args:
        wrong: The name that was given.
        known: The names that would have been right.
    """
    near = get_close_matches(wrong, list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
