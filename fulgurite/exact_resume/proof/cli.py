"""Prove that a killed and resumed run ends bit-identical to an uninterrupted one.

    python -m fulgurite prove-resume experiment=mine trainer.max_epochs=3

Trains in subprocesses of `src/train.py`: one uninterrupted reference, then one run per kill point, killed by SIGKILL
and resumed with `resume=<its directory>`. Compares bit by bit: batches, step outputs, weights, optimizer, schedulers,
callbacks, RNG states, metrics.csv and results.json. Controls without exact resume follow: two uninterrupted ones of two
seeds, which must have seen the examples of the reference equally often, and a killed one. It must differ, which shows
that the comparison can fail.

The exit code is 0 when all runs are equal, 1 when one differs, 2 on invalid input, 130 or 143 when a signal stops it.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fulgurite.config.override_text import quoted
from fulgurite.core.cli_parser import CommandParser, print_error
from fulgurite.core.errors import EXIT_USER, FulguriteError, UserError
from fulgurite.core.formatting import format_duration, parse_count, print_table
from fulgurite.core.project import project_root
from fulgurite.exact_resume.proof.process import start_process, stopped_by_signals

KILL_POINTS = ("first", "middle", "last", "next", "between")
PROBE = "fulgurite.exact_resume.proof.probe.Probe"
SAVE_INTERVAL = "callbacks.last_checkpoint.every_n_train_steps"
STEPS_BETWEEN = 3  # optimizer steps between two saves of the kill point "between"
LOG_INTERVAL = "trainer.log_every_n_steps"
STEPS_PER_ROW = 2  # so that metrics.csv has rows between two saves
NUM_CONTROLS = 3
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
    callbacks: Mapping[str, Any]  # of the composed config

    def run_reference(self, name: str, *more: str) -> Path:
        """Train without interruption and return the run directory."""
        print(f"{name}: training without interruption", flush=True)
        self._run(name, self._first_overrides(name, more), (0,))
        return self.folder / name

    def run_killed(self, kill_point: str, step: int, reference: Path, *more: str) -> Proof:
        """Kill a run after `step` optimizer steps, resume it and compare it with the reference."""
        from fulgurite.exact_resume.proof.diff import diff_runs  # imports torch

        name = f"{reference.name}-killed-{kill_point}"
        run = self.folder / name
        if kill_point == "between":
            more = (*more, *self._interval(STEPS_BETWEEN))
        print(f"{name}: training, SIGKILL after step {step}", flush=True)
        self._run(name, [*self._first_overrides(name, more), f"++callbacks.probe.kill_at={step}"], KILLED)
        manifest = run / "checkpoints" / "last.ckpt.json"
        resumed_step = int(json.loads(manifest.read_text())["step"]) if manifest.is_file() else None
        print(f"{name}: resuming", flush=True)
        # the resumed run inherits the overrides of the first start; it must not be killed again
        self._run(f"{name}-resumed", [f"resume={quoted(run)}", "callbacks.probe.kill_at=null"], (0,))
        return Proof(kill_point, step, resumed_step, diff_runs(reference, run))

    def _first_overrides(self, name: str, more: Sequence[str]) -> list[str]:
        logs = any(item.lstrip("+").startswith(f"{LOG_INTERVAL}=") for item in self.overrides)
        return [
            *self.overrides,
            *self._interval(1),
            *([] if logs else [f"++{LOG_INTERVAL}={STEPS_PER_ROW}"]),
            f"++callbacks.probe._target_={PROBE}",
            "++callbacks.probe.folder=${paths.output_dir}/probe",
            f"hydra.run.dir={quoted(self.folder / name)}",
            *more,
        ]

    def _interval(self, steps: int) -> list[str]:
        """Return the override of the steps between two saves, unless the user chose them."""
        is_chosen = any(SAVE_INTERVAL in item for item in self.overrides)
        return [f"{SAVE_INTERVAL}={steps}"] if self.callbacks.get("last_checkpoint") and not is_chosen else []

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
    """Run a proof and return one comparison per kill point, then that of the examples seen and that of the control.

    The folder must be empty or missing; `kill_at` holds kill points or numbers of optimizer steps; `start` starts one
    run, and None stands for `start_process`. Without a control the last two comparisons are missing.

    Raises:
        UserError: The config is wrong, all findings together; or a kill point is not a step of the run.
        FailedError: A run ended with an unexpected exit code.
    """
    from fulgurite.validation.composition import compose_valid

    cfg = compose_valid(overrides)
    if (seed := cfg.get("seed")) is None:
        raise UserError("seed=null: no two unseeded runs are equal. Set a number, e.g. seed=1.")
    folder.mkdir(parents=True, exist_ok=True)
    prover = Prover(overrides, folder, start or start_process, cfg.get("callbacks") or {})
    num_controls = NUM_CONTROLS if control else 0
    controls = f", and {NUM_CONTROLS} controls without exact resume" if control else ""
    num_runs = 1 + len(kill_at) + num_controls
    print(f"{num_runs} trainings: a reference, {len(kill_at)} killed and resumed{controls}", flush=True)
    start_time = time.monotonic()
    reference = prover.run_reference("reference")
    seconds = time.monotonic() - start_time
    steps = find_steps(reference, kill_at)
    later = len(steps) + num_controls
    estimate = f"the other {later} take about {format_duration(later * seconds)}"
    print(f"reference: took {format_duration(seconds)}; {estimate}", flush=True)
    proofs = [prover.run_killed(point, step, reference) for point, step in steps.items()]
    return [*proofs, *_run_controls(prover, reference, int(seed))] if control else proofs


def _run_controls(prover: Prover, reference: Path, seed: int) -> list[Proof]:
    """Compare the reference with runs without exact resume, and such a run with its killed and resumed twin."""
    from fulgurite.exact_resume.proof.examples import diff_examples

    off = "resilience.exact_resume=false"
    control = prover.run_reference("control", off)
    reseeded = prover.run_reference("control-reseeded", off, f"seed={seed + 1}")
    examples = diff_examples(reference, control, reseeded)
    step = find_steps(control, ["middle"])["middle"]
    killed = prover.run_killed("middle", step, control, off)
    return [
        Proof("examples", 0, None, examples),
        Proof("control", step, killed.resumed_step, killed.differences),
    ]


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
    # the epoch before was saved, then every third step: two steps lie between the first such save and this kill
    named["between"] = min(first + 2 * STEPS_BETWEEN - 1, last)
    found = {point: named[point] if point in named else int(point) for point in kill_at}
    if len(epochs) == 1 and len(found) > 1 and found.pop("next", None) is not None:
        print("next: left out, since the run has one epoch", flush=True)
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
        help="comma-separated: first, middle, last step of the last epoch but one, next (the step after it), between "
        "(two steps after a save), or numbers of optimizer steps (default: first,middle,last,next,between)",
    )
    add("--no-control", dest="control", action="store_false", help="skip the controls without exact resume")
    add("--folder", type=Path, help="empty folder for the runs (default: logs/prove/<date>_<time>)")
    add("--json", type=Path, metavar="FILE", help="also write the comparison to FILE as JSON")
    options = parser.parse(argv)
    if resumes := [item for item in options.overrides if item.startswith("resume=")]:
        raise UserError(f"{resumes[0]}: a proof trains from the beginning. Remove the override.")
    default = project_root() / "logs" / "prove" / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    options.folder = (options.folder or default).expanduser().absolute()
    if options.folder.exists() and not (options.folder.is_dir() and not any(options.folder.iterdir())):
        raise UserError(f"--folder={options.folder}: is not an empty folder. Name a new one.")
    if options.json and not (parent := options.json.absolute().parent).is_dir():
        raise UserError(f"--json={options.json}: the folder {parent} does not exist. Create it first.")
    return options


def _kill_points(text: str) -> list[str]:
    points = text.split(",")
    if invalid := [point for point in points if point not in KILL_POINTS and not parse_count(point)]:
        raise UserError(
            f"--kill-at={invalid[0]}: is not a kill point. "
            f"Choose from {', '.join(KILL_POINTS)}, or give numbers of optimizer steps, from 1 on."
        )
    return points


def show_proofs(proofs: Sequence[Proof], folder: Path) -> None:
    """Print one row per comparison."""
    from rich.table import Table

    table = Table("killed", "after step", "resumed from", "compared with the reference", title="Exact resume")
    for proof in proofs:
        resumed = "the beginning" if proof.resumed_step is None else f"step {proof.resumed_step}"
        step = str(proof.killed_step)
        result = "\n".join(f"{kind}: {line}" for kind, line in proof.differences.items()) or "bit-identical"
        if proof.kill_point == "examples":
            step, resumed = "-", "-"
            result = result if proof.differences else "the same examples, equally often, as without exact resume"
        if proof.kill_point == "control":
            kinds = ", ".join(proof.differences)
            result = f"differs, as it must ({kinds})" if kinds else CONTROL_EQUAL
        table.add_row(proof.kill_point, step, resumed, result)
    print_table(table, f"runs  {folder}")


def main(argv: Sequence[str], start: Start | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        options = parse_args(argv)
        points, control = options.kill_at, options.control
        with stopped_by_signals():
            proofs = prove(options.overrides, options.folder, kill_at=points, control=control, start=start)
    except FulguriteError as error:
        return print_error(error)
    show_proofs(proofs, options.folder)
    if options.json:
        options.json.write_text(json.dumps([asdict(proof) for proof in proofs], indent=2) + "\n")
    return int(any(proof.differences for proof in proofs if proof.kill_point != "control"))
