"""Prove that a run that is killed and gone on with ends as one that never stopped.

    python -m fulgurite prove-resume experiment=mine trainer.max_epochs=3

Trains in processes of its own: once straight through; then, for each place, killed there with SIGKILL and gone on with
by `resume=<its directory>`. Compared bit by bit: batches and what each step made of them, weights, optimizer,
schedulers, callbacks, generators, metrics.csv and results.json. At last a control without exact resume, which must
differ: it shows that the comparison can fail. Ends with 0 when all is equal, 1 when something differs, 2 on bad input.

Words of its own, all others are passed on to `src/train.py`:

    kill_at=first,middle,last,next   places in the last epoch but one, `next` is the first step after it; or steps: 3,17
    control=false                    leave the control out
    folder=<path>                    where the runs go; logs/prove/<date>_<time> when not given
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fulgurite.config.override_text import quoted
from fulgurite.core.errors import EXIT_USER, FulguriteError, UserError
from fulgurite.core.formatting import print_table
from fulgurite.core.project import project_root

PLACES = ("first", "middle", "last", "next")
OWN = ("kill_at", "control", "folder")
PROBE = "fulgurite.exact_resume.proof.probe.Probe"
SAVES = "callbacks.last_checkpoint.every_n_train_steps"
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)

# Runs `src/train.py` with these words, says what it says into a file, and returns its exit code.
Start = Callable[[Sequence[str], Path], int]


@dataclass(frozen=True)
class Proof:
    """One run that was killed and gone on with, beside one that was not.

    Attributes:
        place: Where it was killed, as asked for.
        killed_at: Optimizer steps it had made.
        from_step: Optimizer steps that its checkpoint held; None when there was none and it began again.
        differs: The first difference of each kind; empty when there is none.
    """

    place: str
    killed_at: int
    from_step: int | None
    differs: dict[str, str]


class FailedError(FulguriteError):
    """A run that should have ended well did not; says where to read why."""


@dataclass(frozen=True)
class Prover:
    """Makes the runs of one proof.

    Args:
        words: Overrides of the run.
        folder: Where the runs go.
        start: Starts one.
    """

    words: Sequence[str]
    folder: Path
    start: Start

    def straight(self, name: str, *more: str) -> Path:
        """Make a run that is not killed and return its directory.

        Raises:
            UserError: Its words were refused.
            FailedError: It failed.
        """
        self._run(name, self._first(name, more), (0,))
        return self.folder / name

    def killed(self, place: str, step: int, straight: Path, *more: str) -> Proof:
        """Kill a run after so many optimizer steps, go on with it, and compare it with the straight one.

        Raises:
            FailedError: It could not be killed there, or not gone on with.
        """
        from fulgurite.exact_resume.proof.diff import differences  # imports torch

        name = straight.name + f"-killed-{place}"
        run = self.folder / name
        self._run(name, [*self._first(name, more), f"++callbacks.probe.kill_at={step}"], KILLED)
        from_step = _step_of(run / "checkpoints" / "last.ckpt.json")
        # words that the first start was given are brought back; this one must not be killed
        self._run(f"{name}-resumed", [f"resume={quoted(run)}", "callbacks.probe.kill_at=null"], (0,))
        return Proof(place, step, from_step, differences(straight, run))

    def _first(self, name: str, more: Sequence[str]) -> list[str]:
        run = quoted(self.folder / name)
        saves = [] if any(SAVES in word for word in self.words) or not self._saves() else [f"{SAVES}=1"]
        probe = [f"++callbacks.probe._target_={PROBE}", "++callbacks.probe.folder=${paths.output_dir}/probe"]
        return [*self.words, *saves, *probe, f"hydra.run.dir={run}", *more]

    def _saves(self) -> bool:
        """Tell whether the run has the callback that saves the newest state."""
        from fulgurite.config.compose import compose

        callbacks = compose(list(self.words)).get("callbacks") or {}
        return bool(callbacks.get("last_checkpoint"))

    def _run(self, name: str, words: Sequence[str], wanted: Sequence[int]) -> None:
        said = self.folder / f"{name}.log"
        code = self.start(words, said)
        if code in wanted:
            return
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        told = "\n".join(lines[-5:])
        if code == EXIT_USER:
            raise UserError(told)
        raise FailedError(f"{name}: ended with {code}; all it said is in {said}, at last:\n{told}")


def prove(
    words: Sequence[str],
    folder: Path,
    *,
    kill_at: Sequence[str] = PLACES,
    control: bool = True,
    start: Start | None = None,
) -> list[Proof]:
    """Make all runs of a proof and return how each killed one compares; the control's place is `control`.

    Args:
        words: Overrides of the run.
        folder: Where the runs go; must not hold any yet.
        kill_at: Names of places, or numbers of optimizer steps.
        control: Also make the runs without exact resume.
        start: Starts a run; a process of `src/train.py` when not given.

    Raises:
        UserError: The words were refused, or a place is none of this run.
        FailedError: A run failed.
    """
    prover = Prover(words, folder, start or start_process)
    straight = prover.straight("straight")
    steps = steps_of(straight, kill_at)
    proofs = [prover.killed(place, step, straight) for place, step in steps.items()]
    if control:
        plain = prover.straight("control", "extras.exact_resume=false")
        step = next(iter(steps_of(plain, ["middle"]).values()))
        proof = prover.killed("middle", step, plain, "extras.exact_resume=false")
        proofs.append(Proof("control", step, proof.from_step, proof.differs))
    return proofs


def start_process(words: Sequence[str], said: Path) -> int:
    """Run `src/train.py` in a session of its own, of which nothing is left afterwards."""
    with said.open("wb") as file:
        command = [sys.executable, str(project_root() / "src" / "train.py"), *words]
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            return process.wait()
        finally:
            with suppress(ProcessLookupError):  # other ranks and workers of one that was killed
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def steps_of(straight: Path, kill_at: Sequence[str]) -> dict[str, int]:
    """Return the optimizer step of each place, by its name.

    Args:
        straight: Directory of a run with a probe that was not killed.
        kill_at: Names of places, or numbers of steps.

    Raises:
        UserError: There is no such place in this run.
    """
    rows = [json.loads(line) for line in (straight / "probe" / "batches-0.jsonl").read_text().splitlines()]
    epochs: dict[int, set[int]] = {}
    for row in rows:
        epochs.setdefault(row["epoch"], set()).add(row["step"])
    end = max(max(steps) for steps in epochs.values())
    chosen = max(0, len(epochs) - 2)
    last = max(epochs[chosen])
    first = 1 + max((max(steps) for epoch, steps in epochs.items() if epoch < chosen), default=0)
    named = {"first": first, "middle": (first + last) // 2, "last": last, "next": last + 1}
    found = {}
    for place in kill_at:
        step = named[place] if place in named else int(place)
        if not 1 <= step <= end:
            raise UserError(
                f"kill_at={place}: would be after step {step}, this run has {end} in {len(epochs)} epochs; "
                "choose a step before, or train longer, e.g. trainer.max_epochs=3"
            )
        found[place] = step
    return found


def _step_of(manifest: Path) -> int | None:
    return int(json.loads(manifest.read_text())["step"]) if manifest.is_file() else None


def read_words(words: Sequence[str]) -> tuple[list[str], list[str], bool, Path]:
    """Return the overrides, the places, whether to make the control, and the folder.

    Raises:
        UserError: A word of this command cannot be used.
    """
    own = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.partition("=")[0] in OWN}
    others = [word for word in words if word.partition("=")[0] not in OWN]
    if sweep := [word for word in others if word.startswith(("-", "resume="))]:
        raise UserError(f"{sweep[0]}: a proof is of one run from its start; leave the word out")
    places = own.get("kill_at", ",".join(PLACES)).strip("[]").split(",")
    if wrong := [place for place in places if place not in PLACES and not place.isdecimal()]:
        raise UserError(f"kill_at={wrong[0]}: is no place; choose from {', '.join(PLACES)} or give optimizer steps")
    if (control := own.get("control", "true").lower()) not in {"true", "false"}:
        raise UserError(f"control={control}: is true or false")
    default = project_root() / "logs" / "prove" / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(own.get("folder") or default).expanduser().absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"folder={folder}: is not empty; name a new one")
    return others, places, control == "true", folder


def show(proofs: Sequence[Proof], folder: Path) -> None:
    """Print a table of what was found."""
    from rich.table import Table

    table = Table("killed", "after step", "went on from", "compared with the run that was not", title="Exact resume")
    for proof in proofs:
        came_from = "its beginning" if proof.from_step is None else f"step {proof.from_step}"
        found = "\n".join(f"{kind}: {line}" for kind, line in proof.differs.items()) or "equal, to the last bit"
        if proof.place == "control":
            found = f"differs, as it must ({', '.join(proof.differs)})" if proof.differs else CONTROL_EQUAL
        table.add_row(proof.place, str(proof.killed_at), came_from, found)
    print_table(table, f"runs  {folder}")


CONTROL_EQUAL = (
    "equal: nothing in this run is lost without exact resume (no shuffling, no randomness), so it shows less"
)


def main(words: Sequence[str], start: Start | None = None) -> int:
    """Prove what the words ask for and return the exit code.

    Args:
        words: Of the command line.
        start: As in `prove`.
    """
    try:
        others, places, control, folder = read_words(words)
        folder.mkdir(parents=True, exist_ok=True)
        proofs = prove(others, folder, kill_at=places, control=control, start=start)
    except FulguriteError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    show(proofs, folder)
    return int(any(proof.differs for proof in proofs if proof.place != "control"))
