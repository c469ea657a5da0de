"""Compare two finished runs bit by bit: batches, final checkpoint, metrics and results."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fulgurite.exact_resume.proof.probe import BATCHES, END, digest

# Counters of starts and their durations: a resumed run differs there by definition.
IGNORED = ("loops", "time_elapsed")
SECTIONS = {
    "state_dict": "weights",
    "current_model_state": "weights",
    "averaging_state": "averaged weights",
    "optimizer_states": "optimizer",
    "lr_schedulers": "schedulers",
    "callbacks": "callbacks",
}


def diff_runs(reference: Path, other: Path) -> dict[str, str]:
    """Return the first difference of each kind; empty when two runs are equal."""
    found: dict[str, str] = {}
    ranks = sorted(path.name for path in (reference / "probe").glob(BATCHES.format(rank="*")))
    for name in ranks:
        for line in _diff_batches(reference / "probe" / name, other / "probe" / name):
            found.setdefault("batches", line)
    for section, line in _final_states(reference, other):
        found.setdefault(section, line)
    for line in _diff_rows(reference / "metrics.csv", other / "metrics.csv"):
        found.setdefault("metrics.csv", line)
    ours, theirs = (_read_json(folder / "results.json") for folder in (reference, other))
    for line in _diff_nested(ours, theirs, "results.json"):
        found.setdefault("results.json", line)
    return found


def _diff_batches(reference: Path, other: Path) -> Iterator[str]:
    """Yield differing batches. A batch trained on both before and after a kill must be equal both times."""
    expected = {(row["epoch"], row["batch"]): row for row in _read_lines(reference)}
    rows = list(_read_lines(other))
    for row in rows:
        position = f"epoch {row['epoch']}, batch {row['batch']} ({reference.stem})"
        if (same := expected.get((row["epoch"], row["batch"]))) is None:
            yield f"{position}: not in the reference"
        elif row["content"] != same["content"]:
            yield f"{position}: other examples"
        elif row != same:
            yield f"{position}: same examples, other outputs of the step"
    if missing := sorted(expected.keys() - {(row["epoch"], row["batch"]) for row in rows}):
        yield f"epoch {missing[0][0]}, batch {missing[0][1]} ({reference.stem}): missing"


def _final_states(reference: Path, other: Path) -> Iterator[tuple[str, str]]:
    ours, theirs = (_checkpoint(folder) for folder in (reference, other))
    for name in dict.fromkeys((*SECTIONS, *ours, *theirs)):
        if name not in IGNORED:
            section = SECTIONS.get(name, name)
            for line in _diff_nested(ours.get(name), theirs.get(name), name):
                yield section, line


def _checkpoint(folder: Path) -> dict[str, Any]:
    path = folder / "probe" / END
    if not path.is_file():
        return {}
    content = _without_folder(torch.load(path, map_location="cpu", weights_only=True), str(folder))
    assert isinstance(content, dict)
    return content


def _without_folder(value: Any, folder: str) -> Any:
    """Return a nested value with the run directory replaced in its strings."""
    if isinstance(value, Mapping):
        return {_without_folder(name, folder): _without_folder(part, folder) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folder(part, folder) for part in value]
    return value.replace(folder, "<run>") if isinstance(value, str) else value


def _diff_nested(ours: Any, theirs: Any, name: str) -> Iterator[str]:
    """Yield one line per differing leaf of two nested values."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            if key in IGNORED:
                continue
            inner = f"{name}.{key}"
            if key not in ours or key not in theirs:
                yield f"{inner}: only in {'the reference' if key in ours else 'the other run'}"
            else:
                yield from _diff_nested(ours[key], theirs[key], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            yield from _diff_nested(one, two, f"{name}.{number}")
    elif digest(ours) != digest(theirs):
        yield f"{name}: {_describe_pair(ours, theirs)}"


def _describe_pair(ours: Any, theirs: Any) -> str:
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor) and ours.shape == theirs.shape:
        apart = (ours.double() - theirs.double()).abs()
        return f"{int((apart > 0).sum())} of {ours.numel()} values differ, by {float(apart.max()):.3g} at most"
    return f"{ours!r} in the reference, {theirs!r} here"[:300]


def _diff_rows(reference: Path, other: Path) -> Iterator[str]:
    ours, theirs = _read_csv(reference), _read_csv(other)
    for one, two in zip(ours, theirs, strict=False):
        for name in dict.fromkeys((*one, *two)):
            if one.get(name) != two.get(name):
                yield (
                    f"step {one.get('step')}, {name}: {one.get(name, 'nothing')} in the reference, "
                    f"{two.get(name, 'nothing')} here"
                )
    if len(ours) != len(theirs):
        yield f"{len(ours)} rows in the reference, {len(theirs)} here"


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else {}


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        yield from map(json.loads, path.read_text().splitlines())
