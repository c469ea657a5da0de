"""The command line of a quick search with trials of six steps, and readers of its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fulgurite.runs.sweep_ledger import read_events
from tests.fulgurite.resume.test_resume import QUICK
from tests.support.cli import WarmProcess

SPACE = ("model.optimizer.lr=interval(0.001,0.05)", "data.batch_size=choice(16,32,64)")


def search(tmp_path: Path, *more: str, n_trials: int = 6, **faults: str) -> list[str]:
    """Return the command of a search; `t2="raise"` makes trial 2 fail once, in its fourth step."""
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True, parents=True)
    what = ", ".join(f"s{key[1:]}: {kind}" for key, kind in faults.items())
    callback = (
        f"{{_target_: tests.support.fault_once.FaultOnce, what: {{{what}}}, seed: '${{hydra:job.num}}', "
        f"step: 4, marks: {marks}}}"
    )
    arguments = [
        "-m",
        *QUICK,
        "hydra/sweeper=search",
        f"hydra.sweeper.n_trials={n_trials}",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.sampler.seed=7",
        "hydra.sweeper.sampler.n_startup_trials=3",
        "optimized_metric=val/acc",
        "trainer.max_epochs=2",
        "test=false",
        f"+callbacks.fault_once={callback}",
        "extras.allowed_targets=[tests]",
    ]
    if not any(argument.startswith("model.optimizer.lr=") for argument in more):
        arguments += SPACE
    return [*arguments, *more]


def start(tmp_path: Path, given: list[str], *more: str) -> Any:
    """Run a command until it exits."""
    return WarmProcess("train", [*given, *more, f"paths.log_dir={tmp_path}/logs"], tmp_path / "said").wait(240)


def only_sweep(tmp_path: Path) -> Path:
    """Return the one sweep directory."""
    [sweep] = (tmp_path / "logs/train/multiruns").iterdir()
    return sweep


def events(sweep: Path, *names: str) -> list[tuple[str, int]]:
    """Return the ledger's events of some kinds, with the number of the trial."""
    return [(event["event"], event["job"]) for event in read_events(sweep) if event["event"] in names]


def trial_results(sweep: Path) -> dict[int, tuple[str, Any]]:
    """Return the result of each trial from the ledger: state and values, or state and reason."""
    last = {event["job"]: event for event in read_events(sweep) if event["event"] == "reported"}
    return {job: (event["state"], event["values"] or event["reason"]) for job, event in sorted(last.items())}


def values_of(job: Path) -> dict[str, str]:
    """Return the values of a trial for the keys of the space."""
    arguments = yaml.safe_load((job / ".hydra/overrides.yaml").read_text())
    keys = [argument.partition("=")[0] for argument in SPACE]
    return {key: value for key, _, value in (argument.partition("=") for argument in arguments) if key in keys}
