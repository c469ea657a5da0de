"""What differs between two finished runs: their batches, what they became, their metrics. Bit by bit."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fulgurite.exact_resume.proof.probe import BATCHES, END, digest

# Counters of how often a loop was started, and how long that took: a run that was started twice differs there.
OF_A_START = ("loops", "time_elapsed")
SECTIONS = {
    "state_dict": "weights",
    "current_model_state": "weights",
    "averaging_state": "averaged weights",
    "optimizer_states": "optimizer",
    "lr_schedulers": "schedulers",
    "callbacks": "callbacks",
}


def differences(straight: Path, other: Path) -> dict[str, str]:
    """Return the first difference of each kind, in words; empty when two runs are equal.

    Args:
        straight: Directory of a run with a probe that was not killed.
        other: Directory of one that may have been killed and gone on with, more than once.
    """
    found: dict[str, str] = {}
    ranks = sorted(path.name for path in (straight / "probe").glob(BATCHES.format(rank="*")))
    for name in ranks:
        for line in _batches(straight / "probe" / name, other / "probe" / name):
            found.setdefault("batches", line)
    for section, line in _ends(straight, other):
        found.setdefault(section, line)
    for line in _rows(straight / "metrics.csv", other / "metrics.csv"):
        found.setdefault("metrics.csv", line)
    ours, theirs = (_json(folder / "results.json") for folder in (straight, other))
    for line in _nested(ours, theirs, "results.json"):
        found.setdefault("results.json", line)
    return found


def _batches(straight: Path, other: Path) -> Iterator[str]:
    """Yield where batches differ; one that was trained on before and again after a kill must be the same twice."""
    wanted = {(row["epoch"], row["batch"]): row for row in _lines(straight)}
    rows = list(_lines(other))
    for row in rows:
        place = f"epoch {row['epoch']}, batch {row['batch']} ({straight.stem})"
        if (same := wanted.get((row["epoch"], row["batch"]))) is None:
            yield f"{place}: the straight run has no such batch"
        elif row["examples"] != same["examples"]:
            yield f"{place}: other examples"
        elif row != same:
            yield f"{place}: the step came to something else"
    if missing := sorted(wanted.keys() - {(row["epoch"], row["batch"]) for row in rows}):
        yield f"epoch {missing[0][0]}, batch {missing[0][1]} ({straight.stem}): was left out"


def _ends(straight: Path, other: Path) -> Iterator[tuple[str, str]]:
    ours, theirs = (_checkpoint(folder) for folder in (straight, other))
    for name in dict.fromkeys((*SECTIONS, *ours, *theirs)):
        if name not in OF_A_START:
            section = SECTIONS.get(name, name)
            for line in _nested(ours.get(name), theirs.get(name), name):
                yield section, line


def _checkpoint(folder: Path) -> dict[str, Any]:
    path = folder / "probe" / END
    if not path.is_file():
        return {}
    content = _placeless(torch.load(path, map_location="cpu", weights_only=True), str(folder))
    assert isinstance(content, dict)
    return content


def _placeless(value: Any, folder: str) -> Any:
    """Return a nested value without the directory in its texts."""
    if isinstance(value, Mapping):
        return {_placeless(name, folder): _placeless(part, folder) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_placeless(part, folder) for part in value]
    return value.replace(folder, "<run>") if isinstance(value, str) else value


def _nested(ours: Any, theirs: Any, name: str) -> Iterator[str]:
    """Yield the names of the parts of two nested values that differ, with what they are."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            if key in OF_A_START:
                continue
            inner = f"{name}.{key}"
            if key not in ours or key not in theirs:
                yield f"{inner}: only the {'straight run' if key in ours else 'other one'} has it"
            else:
                yield from _nested(ours[key], theirs[key], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            yield from _nested(one, two, f"{name}.{number}")
    elif digest(ours) != digest(theirs):
        yield f"{name}: {_shown(ours, theirs)}"


def _shown(ours: Any, theirs: Any) -> str:
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor) and ours.shape == theirs.shape:
        apart = (ours.double() - theirs.double()).abs()
        return f"{int((apart > 0).sum())} of {ours.numel()} values differ, by {float(apart.max()):.3g} at most"
    return f"{ours!r} in the straight run, {theirs!r} here"[:300]


def _rows(straight: Path, other: Path) -> Iterator[str]:
    ours, theirs = _csv(straight), _csv(other)
    for one, two in zip(ours, theirs, strict=False):
        for name in dict.fromkeys((*one, *two)):
            if one.get(name) != two.get(name):
                yield (
                    f"step {one.get('step')}, {name}: {one.get(name, 'nothing')} in the straight run, "
                    f"{two.get(name, 'nothing')} here"
                )
    if len(ours) != len(theirs):
        yield f"{len(ours)} rows in the straight run, {len(theirs)} here"


def _csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        yield from map(json.loads, path.read_text().splitlines())
