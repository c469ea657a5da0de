"""Read run directories, and record the end of a run from outside the run.

Each file is read at first use and nothing heavy is imported: ten thousand run directories take a second or two.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import EXIT_DIVERGED, EXIT_USER, UserError, printable
from fulgurite.core.files import MAX_LINES, open_regular, write_atomic
from fulgurite.core.redact import mask_override
from fulgurite.runs.layout import CONTINUE, METRICS, OVERRIDES, RECORD, RESULTS
from fulgurite.runs.lock import is_locked
from fulgurite.runs.run_files import read_object, read_overrides, read_record, warn, warn_unreadable

# Folders of a run or a project that hold no runs.
WITHOUT_RUNS = frozenset({".hydra", "checkpoints", ".git", ".venv", "__pycache__"})


class RunDirectory:
    """One run directory; its files are read at first use and kept."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def read(cls, folder: Path, argument: str) -> RunDirectory:
        """Return the run directory at the absolute path that a user named by `argument`."""
        found = cls.of(folder)
        if found is None or not (folder / OVERRIDES).is_file():
            wrong = f"has no readable {RECORD} and {OVERRIDES}" if folder.is_dir() else no_folder(folder)
            raise UserError(f"{argument}: {wrong}. Name a run directory, e.g. logs/train/runs/<date>_<time>.")
        return found

    @classmethod
    def of(cls, folder: Path) -> RunDirectory | None:
        """Return the run in a folder; None without a record, or, with one warning, without a readable one."""
        run = cls(folder)
        try:
            _ = run.record
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            warn(f"{folder}: {RECORD} is not readable ({error})")
            return None
        return run

    @classmethod
    def newest_first(cls, runs: Path) -> Iterator[RunDirectory]:
        """Yield the runs in a folder of runs, the most recently written first."""
        records = [path for path in runs.glob(f"*/{RECORD}") if path.exists()]
        for path in sorted(records, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            if (run := cls.of(path.parent)) is not None:
                yield run

    @classmethod
    def newest_resumable(cls, runs: Iterable[RunDirectory]) -> tuple[RunDirectory | None, list[RunDirectory]]:
        """Choose from the newest on: the first run with a checkpoint, else the first that was not refused.

        Returns:
            The run, and the resumable ones that are newer. None when there is nothing to resume.
        """
        without: list[RunDirectory] = []
        for run in runs:
            if run.is_resumable():
                if run.has_checkpoint():
                    return run, without
                without.append(run)
        begun = next((run for run in without if run.record.get("exit_code") != EXIT_USER), None)
        return begun, without[: without.index(begun)] if begun is not None else []

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return read_record(f"{self.folder}/{RECORD}")

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of `results.json`; empty when the run has none, or, with a warning, none that is readable."""
        try:
            return read_object(f"{self.folder}/{RESULTS}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            warn(f"{self.folder}: {RESULTS} is not readable ({error})")
            return {}

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics in `results.json`: name, with escapes for control characters, to number."""
        metrics = self.results.get("metrics")
        numbers = metrics.items() if isinstance(metrics, dict) else ()
        return {printable(name): value for name, value in numbers if isinstance(value, (int, float))}

    @cached_property
    def overrides(self) -> tuple[str, ...]:
        """The overrides that the run was started with, secrets included."""
        return tuple(read_overrides(f"{self.folder}/{OVERRIDES}"))

    @cached_property
    def shown_overrides(self) -> tuple[str, ...]:
        """The overrides with `***` for secrets, and escapes for control characters."""
        return tuple(printable(mask_override(override)) for override in self.overrides)

    @cached_property
    def values(self) -> dict[str, str]:
        """The shown overrides as key to value, empty for a deleted key; the last override of a key counts."""
        return dict(map(key_and_value, self.shown_overrides))

    @property
    def status(self) -> str:
        """The recorded status; `killed` for a run that is recorded as running, but not locked by a process."""
        status = printable(str(self.record.get("status")))
        return "killed" if status == "running" and not is_locked(self.folder) else status

    @property
    def reason(self) -> str:
        """Why the run is not done, in one line; empty when it is done or still running."""
        if self.status == "killed" and not self.record.get("reason"):
            return "killed without recording a reason, or the machine stopped"
        return printable(str(self.record.get("reason") or ""))

    @property
    def seconds(self) -> float | None:
        """Wall time from start to end; None for a run without an end."""
        start, end = self.record.get("start"), self.record.get("end")
        if not (start and end):
            return None
        try:
            return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        except (TypeError, ValueError):  # not as this library writes it
            return None

    def is_resumable(self) -> bool:
        """Return whether the run stopped early for a reason that may be gone, and no process has it locked."""
        diverged = self.record.get("exit_code") == EXIT_DIVERGED  # it would diverge again
        return self.status in {"killed", "failed"} and not diverged and not is_locked(self.folder)

    def has_checkpoint(self) -> bool:
        """Return whether the run has saved a checkpoint."""
        return any((self.folder / "checkpoints").glob("*.ckpt"))

    def metric_rows(self, names: Sequence[str] | None = None) -> Iterator[dict[str, float]]:
        """Yield the rows of `metrics.csv`, all or the named columns, oldest first.

        A metric that was not logged at a step is not in its row.
        """
        try:
            opened = open_regular(self.folder / METRICS, MAX_LINES)
        except FileNotFoundError:
            return
        except OSError as error:
            warn_unreadable(self.folder / METRICS, error)
            return
        text = io.TextIOWrapper(opened, "utf-8", "replace", newline="")
        with text as file, suppress(csv.Error):  # a field that is larger than any number
            for row in csv.DictReader(line.replace("\0", "") for line in file):
                found = {name: as_number(cell) for name in names or row if isinstance(cell := row.get(name), str)}
                yield {name: number for name, number in found.items() if number is not None}

    def curves(self, names: Sequence[str], max_points: int = 200) -> dict[str, list[tuple[float, float]]]:
        """Return `(step, value)` pairs of each logged metric, thinned to `max_points`."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.metric_rows([*names, "step"]):
            for name in names:
                if name in row and "step" in row:  # a process killed while writing leaves a row without numbers
                    found.setdefault(name, []).append((row["step"], row[name]))
        return {name: _thinned(pairs, max_points) for name, pairs in found.items()}


def find_runs(root: str | Path) -> Iterator[str]:
    """Yield the path of every run directory at or below a folder; links are not followed."""
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        if os.path.exists(f"{folder}/{RECORD}"):  # noqa: PTH110 - a Path costs more than the check
            yield folder
            continue
        try:
            with os.scandir(folder) as entries:
                below = [e.path for e in entries if e.is_dir(follow_symlinks=False) and e.name not in WITHOUT_RUNS]
        except OSError as error:
            warn(f"{folder}: skipped, the folder is not readable ({error.strerror})")
            continue
        pending += below


def read_runs(folders: Iterable[str | Path]) -> list[RunDirectory]:
    """Return the runs whose record is readable, with a warning for each other."""
    return [run for folder in folders if (run := RunDirectory.of(Path(folder))) is not None]


def no_folder(path: Path) -> str:
    """Return what is wrong with a path that is no folder."""
    return "is a file, not a folder" if path.exists() else "there is no such folder"


def key_and_value(override: str) -> tuple[str, str]:
    """Return key and value of an override, without Hydra's `+` and `~` before the key."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def as_number(text: str) -> float | None:
    """Return a text as a number; None when it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def resumed_run(cfg: DictConfig) -> RunDirectory | None:
    """Return the run that a config resumes in place, by `resume.run` of `plan_resume`."""
    folder = OmegaConf.select(cfg, "resume.run")
    return RunDirectory.of(Path(folder)) if folder and cfg.resume.mode == CONTINUE else None


def mark_ended(folder: Path, status: str, reason: str, exit_code: int) -> bool:
    """Record the end of a run whose own process cannot write it.

    Return False, and write nothing, when the run has ended already or has no record.
    """
    run = RunDirectory.of(folder)
    if run is None or run.record.get("status") != "running":
        return False
    record = run.record | {"status": status, "reason": reason, "exit_code": exit_code, "end": utc_now()}
    write_atomic(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return True


def utc_now() -> str:
    """Return the time in ISO 8601, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def best_checkpoint(run: RunDirectory) -> Path:
    """Return the checkpoint of the run's results, else its best, else its last."""
    folder = run.folder / "checkpoints"
    weights = run.results.get("weights")
    named: list[Path] = [run.folder / weights] if weights and isinstance(weights, str) else []
    best = sorted(folder.glob("best*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in (*named, *best, folder / "last.ckpt"):
        if path.is_file():
            return path
    raise UserError(f"{run.folder}: has no checkpoint. Name a run that has saved one.")


def _thinned(pairs: list[tuple[float, float]], max_points: int) -> list[tuple[float, float]]:
    if len(pairs) <= max_points:
        return pairs
    stride = -(-len(pairs) // (max_points - 1))
    return [*pairs[::stride], pairs[-1]]
