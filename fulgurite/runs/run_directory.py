"""Run directories on disk: which there are, whether one can be gone on from, and who writes to one now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import EXIT_DIVERGED, UserError
from fulgurite.runs.layout import CONTINUE, RECORD, RESULTS
from fulgurite.runs.lock import is_locked


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

    def is_resumable(self) -> bool:
        """Tell whether the run stopped before its end, for a reason that may be gone, and nobody is at it now."""
        diverged = self.record.get("exit_code") == EXIT_DIVERGED  # it would go the same way again
        status = effective_status(self.folder, self.record)
        return status in {"killed", "failed"} and not diverged and not is_locked(self.folder)


def effective_status(folder: Path, record: Mapping[str, Any]) -> str:
    """Return a run's status; `killed` for one that is recorded as running, but that nobody is at.

    Args:
        folder: The run directory.
        record: Its `run.json`.
    """
    status = str(record.get("status"))
    return "killed" if status == "running" and not is_locked(folder) else status


def resumed_run(cfg: DictConfig) -> RunDirectory | None:
    """Return the run that a config goes on with in the same directory; None for a new run.

    Args:
        cfg: A composed config in which `choose_start` (start.py) has put the directory.
    """
    folder = OmegaConf.select(cfg, "resume.run")
    return RunDirectory.of(Path(folder)) if folder and cfg.resume.mode == CONTINUE else None


def best_checkpoint(run: RunDirectory) -> Path:
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
