"""P1 and P4: measure commands that start no run, and the time to the first optimizer step."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from scripts.bench.measure import CompletedChild, Row, Threshold, measure_in_turns, ratios, run_child

ENTRY_POINT = "src/train.py"
COMPLETION = "python src/train.py experiment="
BARE_IMPORTS = "import torch, lightning, torchmetrics, hydra"
# The thresholds are multiples of the CPU time of `import hydra`, which takes this long on the reference machine,
# because a second of CPU differs between machines.
IMPORT_HYDRA_SECONDS = 0.14
# name: arguments, environment, exit code, threshold in CPU seconds on the reference machine
COMMANDS: dict[str, tuple[list[str], dict[str, str], int, float]] = {
    "--help": (["--help"], {}, 0, 0.9),
    "--cfg job": (["--cfg", "job"], {}, 0, 0.5),
    "tab completion": (["-sc", "query=bash"], {"COMP_LINE": COMPLETION, "COMP_POINT": str(len(COMPLETION))}, 0, 0.5),
    "a refused typo": (["trainer.max_epoch=3"], {}, 2, 0.5),
}
FIRST_STEP = (  # the time stamp of the checkpoint is the time of the first step
    "+trainer.max_steps=1",
    "test=false",
    "~callbacks.early_stopping",  # needs a validation, which comes later
    "callbacks.last_checkpoint.every_n_train_steps=1",
)


def command_rows(repeats: int) -> list[Row]:
    """Measure commands that start no run: CPU time against `import hydra`, and imports of torch.

    Args:
        repeats: Number of measured rounds.
    """
    things: dict[str, Callable[[], float]] = {"import hydra": partial(_cpu, ["-c", "import hydra"], {}, 0)}
    for name, (words, env, code, _) in COMMANDS.items():
        things[name] = partial(_cpu, [ENTRY_POINT, *words], env, code)
    found = measure_in_turns(things, repeats)
    bare = found["import hydra"]
    rows = []
    for name, (words, env, code, most) in COMMANDS.items():
        parts = {"CPU, s": found[name], "import hydra, CPU, s": bare}
        times = ratios(found[name], bare)
        rows.append(
            Row(
                "P1",
                f"{name}, CPU over import hydra",
                "x",
                times,
                Threshold(round(most / IMPORT_HYDRA_SECONDS, 2)),
                parts,
            )
        )
        shown = _run(["-X", "importtime", ENTRY_POINT, *words], env, code)
        rows.append(Row("P1", f"{name}, modules of torch imported", "", [len(torch_modules(shown.err))], Threshold(0)))
    return rows


def torch_modules(import_times: str) -> list[str]:
    """Return the modules of torch that `python -X importtime` reports, in the order they were imported."""
    names = re.findall(r"^import time:.*\|\s*(\S+)\s*$", import_times, re.MULTILINE)
    return [name for name in names if name.split(".")[0] == "torch"]


def first_step_rows(repeats: int, folder: Path) -> list[Row]:
    """Measure the default run until its first optimizer step against the bare imports.

    Args:
        repeats: Number of measured rounds.
        folder: For the run directories.
    """
    found: dict[str, list[float]] = measure_in_turns(
        {
            "bare imports": lambda: _run(["-c", BARE_IMPORTS], {}, 0).wall,
            "first step": partial(_until_first_step, folder),
        },
        repeats,
    )
    parts = {f"{name}, s": seconds for name, seconds in found.items()}
    what = "command to first optimizer step, over the bare imports"
    return [Row("P4", what, "x", ratios(found["first step"], found["bare imports"]), Threshold(1.3), parts)]


def _until_first_step(folder: Path) -> float:
    logs = Path(mkdtemp(dir=folder))
    start = time.time_ns()
    _run([ENTRY_POINT, *FIRST_STEP, f"paths.log_dir={logs}"], {}, 0)
    (checkpoint,) = logs.glob("train/runs/*/checkpoints/last.ckpt")
    return (checkpoint.stat().st_mtime_ns - start) / 1e9


def _cpu(words: Sequence[str], env: Mapping[str, str], exit_code: int) -> float:
    return _run(words, env, exit_code).cpu


def _run(words: Sequence[str], env: Mapping[str, str], exit_code: int) -> CompletedChild:
    child = run_child([sys.executable, *words], env=env)
    if child.exit_code != exit_code:
        raise SystemExit(f"{' '.join(words)}: exit code {child.exit_code} instead of {exit_code}\n{child.err[-2000:]}")
    return child
