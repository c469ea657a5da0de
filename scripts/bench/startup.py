"""P1 and P4: what the commands cost that run nothing, and how long a run takes until it learns."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from scripts.bench.measure import Bar, Child, Row, alternate, ratios, run_child

DOOR = "src/train.py"
COMPLETION = "python src/train.py experiment="
BARE = "import torch, lightning, torchmetrics, hydra"
# A second is not the same on every machine, nor on one that is busy: the bars in seconds of CPU were set where
# `import hydra` takes this many, and are held as multiples of what it takes here.
IMPORT_HYDRA = 0.14
# name: words after the door, variables, exit code, most seconds of CPU on that machine
ANSWERS: dict[str, tuple[list[str], dict[str, str], int, float]] = {
    "--help": (["--help"], {}, 0, 0.9),
    "--cfg job": (["--cfg", "job"], {}, 0, 0.5),
    "tab completion": (["-sc", "query=bash"], {"COMP_LINE": COMPLETION, "COMP_POINT": str(len(COMPLETION))}, 0, 0.5),
    "a refused typo": (["trainer.max_epoch=3"], {}, 2, 0.5),
}
FIRST_STEP = (  # a checkpoint after the first optimizer step tells when that step was done
    "+trainer.max_steps=1",
    "test=false",
    "~callbacks.early_stopping",  # nothing is validated before that step
    "callbacks.last_checkpoint.every_n_train_steps=1",
)


def answer_rows(repeats: int) -> list[Row]:
    """Measure the answers that need no run, in seconds of CPU, beside `import hydra`, and what they import.

    Args:
        repeats: Rounds that count.
    """
    things: dict[str, Callable[[], float]] = {"import hydra": partial(_cpu, ["-c", "import hydra"], {}, 0)}
    for name, (words, env, code, _) in ANSWERS.items():
        things[name] = partial(_cpu, [DOOR, *words], env, code)
    found = alternate(things, repeats)
    bare = found["import hydra"]
    rows = []
    for name, (words, env, code, most) in ANSWERS.items():
        parts = {"CPU, s": found[name], "import hydra, CPU, s": bare}
        times = ratios(found[name], bare)
        rows.append(Row("P1", f"{name}, CPU over import hydra", "x", times, Bar(round(most / IMPORT_HYDRA, 2)), parts))
        shown = _run(["-X", "importtime", DOOR, *words], env, code)
        rows.append(Row("P1", f"{name}, modules of torch imported", "", [len(torch_modules(shown.err))], Bar(0)))
    return rows


def torch_modules(import_times: str) -> list[str]:
    """Return the modules of torch that `python -X importtime` reports, in the order they were imported."""
    names = re.findall(r"^import time:.*\|\s*(\S+)\s*$", import_times, re.MULTILINE)
    return [name for name in names if name.split(".")[0] == "torch"]


def first_step_rows(repeats: int, folder: Path) -> list[Row]:
    """Measure the default run from the command to its first optimizer step, beside the bare imports.

    Args:
        repeats: Rounds that count.
        folder: For what the runs write.
    """
    found: dict[str, list[float]] = alternate(
        {"bare imports": lambda: _run(["-c", BARE], {}, 0).wall, "first step": partial(_until_first_step, folder)},
        repeats,
    )
    parts = {f"{name}, s": seconds for name, seconds in found.items()}
    what = "command to first optimizer step, over the bare imports"
    return [Row("P4", what, "x", ratios(found["first step"], found["bare imports"]), Bar(1.3), parts)]


def _until_first_step(folder: Path) -> float:
    logs = Path(mkdtemp(dir=folder))
    start = time.time_ns()
    _run([DOOR, *FIRST_STEP, f"paths.log_dir={logs}"], {}, 0)
    (checkpoint,) = logs.glob("train/runs/*/checkpoints/last.ckpt")
    return (checkpoint.stat().st_mtime_ns - start) / 1e9


def _cpu(words: Sequence[str], env: Mapping[str, str], exit_code: int) -> float:
    return _run(words, env, exit_code).cpu


def _run(words: Sequence[str], env: Mapping[str, str], exit_code: int) -> Child:
    child = run_child([sys.executable, *words], env=env)
    if child.exit_code != exit_code:
        raise SystemExit(f"{' '.join(words)}: ended with {child.exit_code}, expected {exit_code}\n{child.err[-2000:]}")
    return child
