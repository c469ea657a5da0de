"""Prove that a killed and resumed run ends bit-identical to an uninterrupted one.

    python -m fulgurite prove-resume experiment=mine trainer.max_epochs=3

Trains in subprocesses of `src/train.py`: one uninterrupted reference, then one run per kill point, killed by SIGKILL
and resumed with `resume=<its directory>`. Compares bit by bit: batches, step outputs, weights, optimizer, schedulers,
callbacks, RNG states, metrics.csv and results.json. A control without exact resume follows. It must differ, which
shows that the comparison can fail.

The exit code is 0 when all runs are equal, 1 when one differs, 2 on invalid input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from fulgurite.config.override_text import quoted
from fulgurite.core.cli_parser import CommandParser
from fulgurite.core.errors import EXIT_USER, FulguriteError, UserError
from fulgurite.core.project import project_root

KILL_POINTS = ("first", "middle", "last", "next")
PROBE = "fulgurite.exact_resume.proof.probe.Probe"
SAVE_INTERVAL = "callbacks.last_checkpoint.every_n_train_steps"
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
CONTROL_EQUAL = "equal: this run has no shuffling and no randomness, so exact resume makes no difference to it"

# Runs `src/train.py` with overrides, writes its output to a file and returns its exit code.
Start = Callable[[Sequence[str], Path], int]


@dataclass(frozen=True)
class Proof:
    """The comparison of a killed and resumed run with the reference."""

    kill_point: str  # as requested
    killed_step: int  # optimizer steps the run had made
    resumed_step: int | None  # optimizer steps in its checkpoint; None when it had none and restarted
    differences: dict[str, str]  # the first difference of each kind


class FailedError(FulguriteError):
    """A run of the proof ended with an unexpected exit code."""


@dataclass(frozen=True)
class Prover:
    """Starts the runs of one proof."""

    overrides: Sequence[str]
    folder: Path
    start: Start

    def run_reference(self, name: str, *more: str) -> Path:
        """Train without interruption and return the run directory."""
        self._run(name, self._first_overrides(name, more), (0,))
        return self.folder / name

    def run_killed(self, kill_point: str, step: int, reference: Path, *more: str) -> Proof:
        """Kill a run after `step` optimizer steps, resume it and compare it with the reference."""
        from fulgurite.exact_resume.proof.diff import diff_runs  # imports torch

        name = f"{reference.name}-killed-{kill_point}"
        run = self.folder / name
        self._run(name, [*self._first_overrides(name, more), f"++callbacks.probe.kill_at={step}"], KILLED)
        manifest = run / "checkpoints" / "last.ckpt.json"
        resumed_step = int(json.loads(manifest.read_text())["step"]) if manifest.is_file() else None
        # the resumed run inherits the overrides of the first start; it must not be killed again
        self._run(f"{name}-resumed", [f"resume={quoted(run)}", "callbacks.probe.kill_at=null"], (0,))
        return Proof(kill_point, step, resumed_step, diff_runs(reference, run))

    def _first_overrides(self, name: str, more: Sequence[str]) -> list[str]:
        from fulgurite.config.compose import compose

        callbacks = compose(list(self.overrides)).get("callbacks") or {}
        is_chosen = any(SAVE_INTERVAL in item for item in self.overrides)
        return [
            *self.overrides,
            *([f"{SAVE_INTERVAL}=1"] if callbacks.get("last_checkpoint") and not is_chosen else []),
            f"++callbacks.probe._target_={PROBE}",
            "++callbacks.probe.folder=${paths.output_dir}/probe",
            f"hydra.run.dir={quoted(self.folder / name)}",
            *more,
        ]

    def _run(self, name: str, overrides: Sequence[str], expected: Sequence[int]) -> None:
        output = self.folder / f"{name}.log"
        code = self.start(overrides, output)
        if code in expected:
            return
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        tail = "\n".join(lines[-5:])
        if code == EXIT_USER:
            raise UserError(tail)
        raise FailedError(f"{name}: ended with exit code {code}. Read {output}, which ends:\n{tail}")


def prove(
    overrides: Sequence[str],
    folder: Path,
    *,
    kill_at: Sequence[str] = KILL_POINTS,
    control: bool = True,
    start: Start | None = None,
) -> list[Proof]:
    """Run a proof and return one comparison per kill point, then that of the control.

    The folder must be empty; `kill_at` holds kill points or numbers of optimizer steps; `start` starts one run, and
    None stands for `start_process`.
    """
    prover = Prover(overrides, folder, start or start_process)
    reference = prover.run_reference("reference")
    steps = find_steps(reference, kill_at)
    proofs = [prover.run_killed(point, step, reference) for point, step in steps.items()]
    if control:
        inexact = prover.run_reference("control", "resilience.exact_resume=false")
        step = find_steps(inexact, ["middle"])["middle"]
        proof = prover.run_killed("middle", step, inexact, "resilience.exact_resume=false")
        proofs.append(Proof("control", step, proof.resumed_step, proof.differences))
    return proofs


def start_process(overrides: Sequence[str], output: Path) -> int:
    """Run `src/train.py` in a session of its own and kill all that remains of it."""
    with output.open("wb") as file:
        command = [sys.executable, str(project_root() / "src" / "train.py"), *overrides]
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            return process.wait()
        finally:
            with suppress(ProcessLookupError):  # other ranks and loader workers of a killed run
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def find_steps(reference: Path, kill_at: Sequence[str]) -> dict[str, int]:
    """Return the optimizer step of each kill point, from the probe's record of an uninterrupted run."""
    rows = [json.loads(line) for line in (reference / "probe" / "batches-0.jsonl").read_text().splitlines()]
    epochs: dict[int, set[int]] = {}
    for row in rows:
        epochs.setdefault(row["epoch"], set()).add(row["step"])
    end = max(max(steps) for steps in epochs.values())
    chosen = max(0, len(epochs) - 2)
    last = max(epochs[chosen])
    first = 1 + max((max(steps) for epoch, steps in epochs.items() if epoch < chosen), default=0)
    named = {"first": first, "middle": (first + last) // 2, "last": last, "next": last + 1}
    found = {point: named[point] if point in named else int(point) for point in kill_at}
    for point, step in found.items():
        if not 1 <= step <= end:
            raise UserError(
                f"--kill-at={point}: step {step} is not one of the {end} steps in {len(epochs)} epochs of this run. "
                "Choose an earlier step, or train longer, e.g. trainer.max_epochs=3."
            )
    return found


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = CommandParser("prove-resume", __doc__)
    add = parser.add_argument
    add("overrides", nargs="*", metavar="key=value", help="Hydra overrides of the run")
    add(
        "--kill-at",
        type=_kill_points,
        default=list(KILL_POINTS),
        metavar="POINTS",
        help="comma-separated: first, middle, last step of the last epoch but one, next (the step after it), "
        "or numbers of optimizer steps (default: first,middle,last,next)",
    )
    add("--no-control", dest="control", action="store_false", help="skip the control without exact resume")
    add("--folder", type=Path, help="empty folder for the runs (default: logs/prove/<date>_<time>)")
    add("--json", type=Path, metavar="FILE", help="also write the comparison to FILE as JSON")
    options = parser.parse(argv)
    if resumes := [item for item in options.overrides if item.startswith("resume=")]:
        raise UserError(f"{resumes[0]}: a proof trains from the beginning. Remove the override.")
    default = project_root() / "logs" / "prove" / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    options.folder = (options.folder or default).expanduser().absolute()
    if options.folder.is_dir() and any(options.folder.iterdir()):
        raise UserError(f"--folder={options.folder}: is not empty. Name a new folder.")
    return options


def _kill_points(text: str) -> list[str]:
    points = text.split(",")
    if invalid := [point for point in points if point not in KILL_POINTS and not point.isdecimal()]:
        raise UserError(
            f"--kill-at={invalid[0]}: is not a kill point. "
            f"Choose from {', '.join(KILL_POINTS)}, or give numbers of optimizer steps."
        )
    return points


def print_table(proofs: Sequence[Proof], folder: Path) -> None:
    """Print one row per comparison."""
    from rich.console import Console
    from rich.table import Table

    table = Table("killed", "after step", "resumed from", "compared with the reference", title="Exact resume")
    for proof in proofs:
        resumed = "the beginning" if proof.resumed_step is None else f"step {proof.resumed_step}"
        result = "\n".join(f"{kind}: {line}" for kind, line in proof.differences.items()) or "bit-identical"
        if proof.kill_point == "control":
            kinds = ", ".join(proof.differences)
            result = f"differs, as it must ({kinds})" if kinds else CONTROL_EQUAL
        table.add_row(proof.kill_point, str(proof.killed_step), resumed, result)
    console = Console()
    console.print(table)
    console.print(f"runs  {folder}", markup=False, highlight=False, soft_wrap=True)


def main(argv: Sequence[str], start: Start | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        options = parse_args(argv)
        options.folder.mkdir(parents=True, exist_ok=True)
        proofs = prove(options.overrides, options.folder, kill_at=options.kill_at, control=options.control, start=start)
    except FulguriteError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    print_table(proofs, options.folder)
    if options.json:
        options.json.write_text(json.dumps([asdict(proof) for proof in proofs], indent=2) + "\n")
    return int(any(proof.differences for proof in proofs if proof.kill_point != "control"))
