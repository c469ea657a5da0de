"""Define the errors of a run, their exit codes, and suggestions for mistyped names.

    FulguriteError            1   an error of this library with its own message
    ├── UserError             2   the user's input: config, missing file, missing hardware
    │   ├── ConfigError       2   all findings about a config
    │   └── DiskFull          2   no space for a file
    ├── Diverged              3   the loss is NaN or infinite
    ├── RankFailed          any   another rank failed; its exit code
    ├── RefusedByRankZero   any   rank 0 rejected the start; its exit code
    └── Pruned                0   the pruner stopped a trial

    Interrupted        130, 143   a signal stopped the run; a BaseException, so that no `except Exception` swallows it

The message of a `UserError` is one line: value, rule, remedy.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

EXIT_DONE = 0
EXIT_CRASH = 1
EXIT_USER = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

LONGEST_NAME = 255  # bytes
OUT_OF_MEMORY_NOTE = ".out-of-memory.json"  # file in the run directory: a rank of the fit ran out of memory
# disk, quota, limit on the size of one file
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS})
ALIKE = 0.65  # least ratio of a typo and its name: `jbo` and `job` have 0.67, `depth` and `width` 0.6
# they would steer a terminal, end a line, or turn the text around them
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# torch's allocators and backends raise these messages without an error type of their own.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|\w+ out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)


class FulguriteError(Exception):
    """An error that is shown as one line, without a traceback."""

    exit_code: int = EXIT_CRASH


class UserError(FulguriteError):
    """Invalid input; the message names the value, the rule and the remedy.

    Example:
        >>> raise UserError(f"data.num_points={num_points}: is below 3. Set at least one point per arm.")
    """

    exit_code = EXIT_USER


class ConfigError(UserError):
    """All findings about one config.

    Args:
        findings: One line each, complete in itself.

    Example:
        >>> raise ConfigError(["data.noise=-1: is negative. Set 0 or more.", "data.parts=[]: is empty. List some."])
    """

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = [*map(printable, findings)]
        super().__init__("\n".join(self.findings))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.findings,)


class DiskFull(UserError):
    """There is no space for a file; earlier checkpoints are intact."""


class Diverged(FulguriteError):
    """The loss is NaN or infinite; further steps would corrupt the weights."""

    exit_code = EXIT_DIVERGED


class Pruned(FulguriteError):
    """The pruner stopped a trial of a search."""

    exit_code = EXIT_DONE


class Interrupted(SystemExit):
    """A signal stopped the run.

    A plain script exits with its code and without a traceback, since it is a `SystemExit`.

    Args:
        signal_name: `SIGINT`, `SIGTERM` or `SIGUSR1`.
        saved: What was saved and where, part of a sentence.
        exit_code: Exit code of the process; by default that of the signal.

    Attributes:
        reported: The run has logged it.
    """

    def __init__(self, signal_name: str, saved: str = "", exit_code: int | None = None) -> None:
        super().__init__(signal_name, saved, exit_code)
        self.interrupted = signal_name == "SIGINT"
        self.signal_name, self.saved, self.reported = signal_name, saved, False
        of_signal = EXIT_INTERRUPTED if self.interrupted else EXIT_TERMINATED
        self.code = self.exit_code = of_signal if exit_code is None else exit_code

    def __str__(self) -> str:
        text = f"{'interrupted' if self.interrupted else 'terminated'} ({self.signal_name})"
        return f"{text}, {self.saved}" if self.saved else text


def printable(text: str) -> str:
    """Return a text with its control characters as escapes, so that it is one line and steers no terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def find_interrupt(error: BaseException | None) -> Interrupted | None:
    """Return the `Interrupted` that an error is, or that was being handled when the error was raised."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error


class _OtherRankError(FulguriteError):
    """Another rank stopped the run; its exit code is that of the run."""

    def __init__(self, message: str, exit_code: int = EXIT_CRASH) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RefusedByRankZero(_OtherRankError):
    """Rank 0 rejected the start of a run on several ranks."""


class RankFailed(_OtherRankError):
    """Another rank, which the message names, failed, and this rank cannot continue."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an OSError is about missing disk space."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def explain_file_error(error: BaseException, cfg: DictConfig | None = None) -> str:
    """Return one line about a full disk, a long name or a removed folder of the run; empty for other errors."""
    file = getattr(error, "filename", None)
    if is_disk_full(error):
        what = f"{file}: " if file else ""
        return f"{what}{error.args[-1]}. Free space, or set paths.log_dir=<folder on another disk>."
    if getattr(error, "errno", None) == errno.ENAMETOOLONG and file is not None:
        return explain_long_name(Path(str(file))) or f"{file}: {error.args[-1]}. Shorten the path."
    if cfg is None and file is not None and getattr(error, "errno", None) in _NO_FOLDER:
        return f"{file}: {error.args[-1]}. Set hydra.run.dir or paths.log_dir to a folder that you may write to."
    if not isinstance(error, FileNotFoundError) or cfg is None or file is None:
        return ""
    folder = Path(str(file)).parent
    is_removed = folder.is_relative_to(str(cfg.paths.output_dir)) and not folder.is_dir()
    return f"{folder}: was removed while the run writes to it. Keep it, and resume." if is_removed else ""


def explain_long_name(path: Path) -> str:
    """Return one line about a folder's name that no common file system takes; empty for other paths."""
    for part in path.parts:
        if (size := len(part.encode())) > LONGEST_NAME:
            rule = f"the name has {size} bytes, and file systems take {LONGEST_NAME}"
            return f"{part[:40]}...: {rule}. Shorten the run's folder: hydra.run.dir, or hydra.sweep.subdir of a sweep."
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is about missing host or device memory; does not import torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `. Did you mean 'x' or 'y'?` with the names nearest to `wrong`, or ''."""
    return _question(_nearest(wrong, known))


def _nearest(wrong: str, known: Iterable[str]) -> list[str]:
    """Return up to two names that `wrong` is probably a mistyped form of."""
    names = list(known)
    near = [name for name in names if name.lower() == wrong.lower()] or get_close_matches(wrong, names, 6, ALIKE)
    ratios = {name: SequenceMatcher(None, wrong, name).ratio() for name in near if _differ_little(wrong, name)}
    return [name for name, ratio in ratios.items() if ratio > max(ratios.values()) - 0.2][:2]


def _differ_little(wrong: str, name: str) -> bool:
    """Return whether the words that differ are alike: num_folds and num_classes only share a word."""
    one, other = wrong.split("_"), name.split("_")
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    is_rest = len(one) < len(wrong.split("_"))  # they share a word
    rests = "_".join(one), "_".join(other)
    return not is_rest or "" in rests or SequenceMatcher(None, *rests).ratio() >= ALIKE


def _question(names: Sequence[str]) -> str:
    return f". Did you mean {' or '.join(map(repr, names))}?" if names else ""


def suggest_or_list(wrong: str, known: Iterable[str], intro: str = "It takes") -> str:
    """Return `did_you_mean`, or the list of valid names when none is near."""
    names = list(dict.fromkeys(known))
    near = did_you_mean(wrong, names)
    if near or not names:
        return near
    return f". {intro} {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def suggest_path(wrong: str, paths: Iterable[str], divider: str = ".") -> str:
    """Return `did_you_mean` for a path: siblings, then its last part anywhere, then a like one of its group."""
    known = list(dict.fromkeys(paths))
    parent, _, last = wrong.rpartition(divider)
    siblings = [path.rpartition(divider)[2] for path in known if path.rpartition(divider)[0] == parent]
    elsewhere = [path for path in known if path.rpartition(divider)[2] == last and path != wrong]
    names = _nearest(last, siblings)  # a long common prefix makes every path look near: compare the last parts
    if elsewhere and not get_close_matches(last, names, cutoff=0.85):
        return _question(get_close_matches(wrong, elsewhere, n=2, cutoff=0.0))
    near = [f"{parent}{divider}{name}" if parent else name for name in names]
    if not near:
        group = wrong.partition(divider)[0]
        in_group = [path for path in known if path.partition(divider)[0] == group] if parent else []
        by_last: dict[str, list[str]] = {}
        for path in in_group or known:  # a group that does not exist may be the typo
            by_last.setdefault(path.rpartition(divider)[2], []).append(path)
        names = get_close_matches(last, list(by_last), n=1, cutoff=0.75)
        # one name under several parents: take the most similar full paths
        near = get_close_matches(wrong, [path for name in names for path in by_last[name]], n=2, cutoff=0.0)
    return _question(near)
