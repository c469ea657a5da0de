"""What runs have left behind, read for tools: record, results, the words they were started with, curves.

Reads nothing else, and imports nothing heavy: ten thousand run directories are a matter of a second or two.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fulgurite.core.redact import shown_word
from fulgurite.runs.layout import METRICS, RECORD, RESULTS
from fulgurite.runs.run_directory import effective_status

# Folders of a run or of a project that hold no runs.
WITHOUT_RUNS = frozenset({".hydra", "checkpoints", ".git", ".venv", "__pycache__"})
# A list of words as Hydra writes it, where no word needs YAML's quotes or escapes.
_PLAIN_WORDS = re.compile(r"""(?:- [A-Za-z+~][^\n:#'"\\]*\n)*\Z""")


@dataclass(frozen=True)
class RunSummary:
    """One run directory, read.

    Attributes:
        folder: Its path.
        record: `run.json`.
        metrics: Of `results.json`: name to number; empty when the run did not get that far.
        words: What it was started with, e.g. `model.optimizer.lr=0.1`; secrets are `***`.
    """

    folder: str
    record: dict[str, Any]
    metrics: dict[str, float]
    words: tuple[str, ...]

    @cached_property
    def status(self) -> str:
        """The status in the record; `killed` for a run that is recorded as running, but that nobody is at."""
        return effective_status(Path(self.folder), self.record)

    @property
    def reason(self) -> str:
        """Why it is not done, one line; empty when it is, or is still running."""
        if self.status == "killed" and not self.record.get("reason"):
            return "ended without a word: killed, or the machine stopped"
        return str(self.record.get("reason") or "")

    @property
    def seconds(self) -> float | None:
        """Wall time from start to end; None while there is no end."""
        start, end = self.record.get("start"), self.record.get("end")
        if not (start and end):
            return None
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()

    @cached_property
    def values(self) -> dict[str, str]:
        """The words as key to value; a deleted key has an empty one, and the last word for a key counts."""
        return dict(key_and_value(word) for word in self.words)


def key_and_value(word: str) -> tuple[str, str]:
    """Return key and value of an override, without Hydra's `+` and `~` before the key."""
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value


def find_runs(root: str | Path) -> Iterator[str]:
    """Yield the path of every run directory at or below a folder; links are not followed."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        if os.path.isfile(f"{folder}/{RECORD}"):  # noqa: PTH113 - a Path costs more than the look
            yield folder
            continue
        try:
            with os.scandir(folder) as entries:
                below = [e.path for e in entries if e.is_dir(follow_symlinks=False) and e.name not in WITHOUT_RUNS]
        except OSError as error:
            sys.stderr.write(f"warning: {folder}: left out, it cannot be read ({error.strerror})\n")
            continue
        waiting += below


def read_run(folder: str | Path) -> RunSummary | None:
    """Read one run directory; None, and a warning, when its record cannot be read."""
    try:
        record = _read_object(f"{folder}/{RECORD}")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"warning: {folder}: left out, its {RECORD} cannot be read ({error})\n")
        return None
    try:
        metrics = _read_object(f"{folder}/{RESULTS}").get("metrics") or {}
    except FileNotFoundError:
        metrics = {}
    except (OSError, ValueError) as error:
        sys.stderr.write(f"warning: {folder}: its {RESULTS} cannot be read ({error})\n")
        metrics = {}
    words = tuple(map(shown_word, _read_words(f"{folder}/.hydra/overrides.yaml")))
    return RunSummary(str(folder), record, metrics, words)


def read_runs(folders: Iterable[str | Path]) -> list[RunSummary]:
    """Read run directories, those that can be read."""
    return [run for folder in folders if (run := read_run(folder)) is not None]


def read_curves(folder: str | Path, names: Sequence[str], points: int = 200) -> dict[str, list[tuple[float, float]]]:
    """Return `(step, value)` pairs of each metric that the run logged, oldest first.

    Args:
        folder: A run directory.
        names: The metrics wanted.
        points: How many pairs there may be of one metric; of more, evenly many are left out.
    """
    path = Path(folder) / METRICS
    found: dict[str, list[tuple[float, float]]] = {}
    if not path.is_file():
        return found
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name in names:
                # a kill amid a write leaves a line without its numbers
                if (value := row.get(name)) and (step := row.get("step")):
                    found.setdefault(name, []).append((float(step), float(value)))
    return {name: _thinned(pairs, points) for name, pairs in found.items()}


def _thinned(pairs: list[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    if len(pairs) <= points:
        return pairs
    stride = -(-len(pairs) // (points - 1))
    return [*pairs[::stride], pairs[-1]]


def _read_object(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:  # noqa: PTH123 - a Path costs more than the read
        content = json.loads(file.read())
    if not isinstance(content, dict):
        raise ValueError("holds no object")
    return content


def _read_words(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return []
    if _PLAIN_WORDS.match(text):
        return [line[2:] for line in text.splitlines()]
    import yaml

    try:
        words = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []
