"""Run a shape straight, killed and resumed with the real command, and compare the runs.

The comparison shares no code with `python -m fulgurite prove-resume`: the two can find each other's mistakes.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.support.cli import WarmProcess
from tests.support.shapes.recorder import KILL_AFTER, RECORD, WATCH, digest
from tests.support.shapes.shape import Shape

# a resumed run differs here by its nature: counts of the sanity check and of starts, and durations
UNEQUAL = ("test_loop", "validate_loop", "predict_loop", "time_elapsed", "epoch_loop.val_loop.batch_progress")


@dataclass(frozen=True)
class Outcome:
    """What became of a shape.

    Attributes:
        verdict: `equal`, `named`, `refused` or `silent`, which is the failure.
        differences: The first difference of each kind.
        lines: What run.json names, or the line that refuses.
    """

    verdict: str
    differences: dict[str, str]
    lines: list[str]


def judge(shape: Shape, folder: Path) -> Outcome:
    """Train a shape straight through, killed and resumed, in `folder`, and compare."""
    straight, killed = folder / "straight", folder / "killed"
    first = shape.arguments()
    for run, name, arguments, kill in (
        (straight, "straight", [*first, f"hydra.run.dir={straight}"], None),
        (killed, "killed", [*first, f"hydra.run.dir={killed}"], shape.kill_after),
        (killed, "resumed", [f"resume={killed}"], None),
    ):
        env = {RECORD: str(folder / f"{name}.jsonl"), WATCH: json.dumps(list(shape.watch))}
        env |= {KILL_AFTER: str(kill)} if kill is not None else {}
        done = WarmProcess("train", arguments, folder / "output" / name, env=env).wait()
        expected = 0 if kill is None else -signal.SIGKILL
        if done.returncode == 2:
            written = filter(str.strip, done.stderr.splitlines())  # warnings end with an empty line
            return Outcome("refused", {}, [text for text in written if "[INFO]" not in text and "[WARN" not in text])
        assert done.returncode == expected, f"{shape.name}, {name}: exit {done.returncode}\n{done.stderr[-3000:]}"
        if name == "killed":
            saved = sorted(path.name for path in (run / "checkpoints").iterdir())
            assert "last.ckpt" in saved, f"{shape.name}: killed before the first save"
    first_batch = json.loads((_lines(folder / "resumed.jsonl") or ["[0, 0]"])[0])[1]
    assert (first_batch > 0) == shape.amid_epoch, f"{shape.name}: resumed from batch {first_batch} of an epoch"
    differences = compare(straight, killed, folder)
    lines = [line for run in (straight, killed) for line in _json(run / "run.json")["inexact"]]
    lines = list(dict.fromkeys(lines))
    return Outcome("named" if lines else "silent" if differences else "equal", differences, lines)


def compare(straight: Path, killed: Path, folder: Path) -> dict[str, str]:
    """Return the first difference of each kind between a run and its killed and resumed twin."""
    found: dict[str, str] = {}
    for kind, line in _all_differences(straight, killed, folder):
        found.setdefault(kind, line)
    return found


def _all_differences(straight: Path, killed: Path, folder: Path) -> Iterator[tuple[str, str]]:
    yield from (("examples", line) for line in _examples(folder))
    for name in ("last.ckpt", *sorted(path.name for path in (straight / "checkpoints").glob("best*.ckpt"))):
        ours, theirs = (_checkpoint(run, name) for run in (straight, killed))
        for path, line in _differing(ours, theirs, ""):
            yield f"{name} {path.split('.')[1]}", f"{path[1:]}: {line}"
    texts_of = [str(path.relative_to(straight)) for path in sorted(straight.rglob("*.csv"))]
    for name in (*texts_of, "results.json"):
        texts = [_text(run / name).replace(str(run), "<run>") for run in (straight, killed)]
        if texts[0] != texts[1]:
            yield name, _first_line(*texts)
    # checkpoints of steps after the save are kept aside
    files = [
        sorted(str(path.relative_to(run)) for path in run.rglob("*") if "newer" not in path.parts)
        for run in (straight, killed)
    ]
    if files[0] != files[1]:
        ours, theirs = (sorted(set(files[n]) - set(files[1 - n])) for n in (0, 1))
        yield "files", f"only straight {ours}, only resumed {theirs}"
    ends = [_text(folder / f"{name}.jsonl.attributes") for name in ("straight", "resumed")]
    if ends[0] != ends[1]:
        yield "attributes", _first_line(*ends)


def _examples(folder: Path) -> Iterator[str]:
    """Yield where a killed run saw other batches than the straight one, before and after its resume."""
    straight, killed, resumed = (_lines(folder / f"{name}.jsonl") for name in ("straight", "killed", "resumed"))
    if killed != straight[: len(killed)]:
        yield f"before the kill: {_first_line(chr(10).join(straight), chr(10).join(killed))}"
    again = straight[len(straight) - len(resumed) :] if resumed else []
    if resumed != again:
        yield f"after the resume: {_first_line(chr(10).join(again), chr(10).join(resumed))}"
    if len(killed) + len(resumed) < len(straight):
        yield f"{len(straight)} batches straight, only {len(killed)} + {len(resumed)} killed and resumed"
    if len(resumed) >= len(straight):
        yield f"the resumed run began again: {len(resumed)} of {len(straight)} batches"


def _checkpoint(run: Path, name: str) -> Any:
    path = run / "checkpoints" / name
    return _without(torch.load(path, weights_only=True), str(run)) if path.is_file() else None


def _without(value: Any, folder: str) -> Any:
    """Return a nested value with the run directory replaced."""
    if isinstance(value, Mapping):
        return {_without(key, folder): _without(part, folder) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(part, folder) for part in value]
    return value.replace(folder, "<run>") if isinstance(value, str) else value


def _differing(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, str]]:
    if any(part in path for part in UNEQUAL):
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys([*ours, *theirs]):
            if key in ours and key in theirs:
                yield from _differing(ours[key], theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}", "only straight" if key in ours else "only resumed"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, two) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differing(one, two, f"{path}.{number}")
    elif type(ours) is not type(theirs) or digest(ours) != digest(theirs):
        yield path or ".", f"{str(ours)[:40]} straight, {str(theirs)[:40]} resumed".replace("\n", " ")


def _first_line(straight: str, resumed: str) -> str:
    ours, theirs = straight.splitlines(), resumed.splitlines()
    for number, (one, two) in enumerate(zip(ours, theirs, strict=False)):
        if one != two:
            return f"line {number + 1}: {one!r} straight, {two!r} resumed"
    return f"{len(ours)} lines straight, {len(theirs)} resumed"


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
