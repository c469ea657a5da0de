"""Run directories on disk: which there are, whether one can be gone on from, and who writes to one now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.base.errors import EXIT_DIVERGED, UserError
from src.base.logs import rank

RECORD, RESULTS, METRICS, OWNER = "run.json", "results.json", "metrics.csv", ".owner"
NEXT = ".hydra/next"  # where Hydra writes the config of a start that may yet be refused
CONTINUE, HOTSTART, WEIGHTS = MODES = ("continue", "hotstart", "weights")


@dataclass(frozen=True)
class RunDirectory:
    """A run directory and its record.

    Attributes:
        folder: Absolute path.
        record: `run.json`.
    """

    folder: Path
    record: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, asked: str) -> RunDirectory:
        """Read a run directory that a user named.

        Args:
            folder: Absolute path.
            asked: The word that named it, for the message.

        Raises:
            UserError: It is no run directory of this project.
        """
        found = cls.of(folder)
        if found is None or not (folder / ".hydra" / "overrides.yaml").is_file():
            what = (
                "there is no such folder" if not folder.is_dir() else f"holds no {RECORD} with the words of its start"
            )
            raise UserError(f"{asked}: {what}; name a run directory, e.g. logs/train/runs/<date>_<time>")
        return found

    @classmethod
    def of(cls, folder: Path) -> RunDirectory | None:
        """Return the run in a folder; None when there is none, or its record cannot be read."""
        try:
            record = json.loads((folder / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return cls(folder, record) if isinstance(record, dict) else None

    @classmethod
    def newest_first(cls, runs: Path) -> Iterator[RunDirectory]:
        """Yield the runs in a folder of runs; that which was written to last comes first."""
        records = [path for path in runs.glob(f"*/{RECORD}") if path.is_file()]
        for path in sorted(records, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            if (run := cls.of(path.parent)) is not None:
                yield run

    def is_open(self) -> bool:
        """Tell whether the run stopped before its end, for a reason that may be gone, and nobody is at it now."""
        diverged = self.record.get("exit_code") == EXIT_DIVERGED  # it would go the same way again
        status = status_now(self.folder, self.record)
        return status in {"killed", "failed"} and not diverged and not is_owned(self.folder)


def status_now(folder: Path, record: Mapping[str, Any]) -> str:
    """Return a run's status; `killed` for one that is recorded as running, but that nobody is at.

    Args:
        folder: The run directory.
        record: Its `run.json`.
    """
    status = str(record.get("status"))
    return "killed" if status == "running" and not is_owned(folder) else status


def continued_run(cfg: DictConfig) -> RunDirectory | None:
    """Return the run that a config goes on with in the same directory; None for a new run.

    Args:
        cfg: A composed config in which `choose_start` (start.py) has put the directory.
    """
    folder = OmegaConf.select(cfg, "resume.run")
    return RunDirectory.of(Path(folder)) if folder and cfg.resume.mode == CONTINUE else None


def weights_of(run: RunDirectory) -> Path:
    """Return the checkpoint that stands for a run: the one its results were measured on, else its best, else its last.

    Raises:
        UserError: It has none.
    """
    folder = run.folder / "checkpoints"
    named: list[Path] = []
    if (run.folder / RESULTS).is_file():
        weights = json.loads((run.folder / RESULTS).read_text()).get("weights")
        named = [run.folder / weights] if weights else []
    best = sorted(folder.glob("best*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in (*named, *best, folder / "last.ckpt"):
        if path.is_file():
            return path
    raise UserError(f"{run.folder}: has no checkpoint; name a run that has saved one")


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the one process that writes to a run directory; the system ends that when the process dies, however it dies.

    Other ranks than 0 write nothing of their own and are let pass.

    Raises:
        UserError: A living process has it.
    """
    if rank() != 0:
        yield
        return
    handle = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(handle):
            pid = os.pread(handle, 32, 0).decode().strip() if hasattr(os, "pread") else ""
            raise UserError(
                f"{folder}: is being written to by another process{f' (pid {pid})' if pid else ''}; "
                "wait for its end, or end it"
            )
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def is_owned(folder: Path) -> bool:
    """Tell whether a living process of this or another program has the run directory."""
    try:
        handle = os.open(folder / OWNER, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock an open file for this process.

    A lock of POSIX, not one of BSD: it belongs to the process alone. The workers of a data loader, forked from it,
    would keep the other kind for some seconds after their parent was killed.
    """
    try:
        import fcntl
    except ImportError:  # Windows has one kind only, and no fork
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
