"""Progress of a running sweep: counts, best value, remaining time."""

from __future__ import annotations

import io
import re
import sys
import time
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.formatting import format_duration
from fulgurite.engine.outcome import JobFailed, Outcome
from fulgurite.launchers.progress import Progress, StartedJob


def sweep(metric: str | None = "val/loss", **sweeper: Any) -> DictConfig:
    """Return what the progress reads of a sweep's config."""
    given = ["seed=1,2", "test=false", "x='${y}'"]
    hydra = {"overrides": {"task": given}, "sweeper": sweeper}
    return OmegaConf.create({"optimized_metric": metric, "hydra": hydra})


def done(value: Any) -> JobReturn:
    """Return a job that was done."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def test_lines_show_values_counts_the_best_job_and_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress, to_come = Progress(sweep(), slots=2), iter([(3, ["seed=4"])])
    with progress:
        for number, value in enumerate((0.5, 0.25, float("nan"))):
            progress.started(number, ["test=False", f"seed={number}", "x='${y}'", "resume.run=/x"])
            progress.ended(number, done(value), to_come)
        progress.started(4, ["test=false", "seed=5"])
        progress.ended(4, done(None), to_come)
        progress.started(5, ["seed=7"])
        failed = JobFailed(Outcome("killed", "killed by SIGKILL", 137))
        progress.ended(5, JobReturn(status=JobStatus.FAILED, _return_value=failed), to_come)
    lines = re.sub(r"\d+\.\d s", "T", capsys.readouterr().err).splitlines()
    assert lines[:2] == [
        "sweep: job 0 started (seed=0)",
        (
            "sweep: job 0 done, val/loss 0.5 (seed=0), T; 1 of 2 done, 0 running, 0 failed, "
            "best val/loss 0.5 (job 0), T left"
        ),
    ]
    assert "sweep: job 4 pruned (seed=5), T; 4 of 5 done" in lines[-3]
    assert lines[-1] == (
        "sweep: job 5 killed: killed by SIGKILL (seed=7), T; "
        "4 of 6 done, 0 running, 0 failed, 1 killed, best val/loss 0.25 (job 1), T left"
    )


@pytest.mark.parametrize(
    ("metric", "sweeper", "best"),
    [
        ("val/acc", {}, (3.0, 1)),
        ("val/loss", {}, (1.0, 0)),
        ("val/loss", {"direction": "maximize"}, (3.0, 1)),
        ("val/acc", {"direction": "minimize"}, (1.0, 0)),
        ("val/acc", {"direction": ["minimize", "maximize"]}, (3.0, 1)),
        (None, {}, None),
    ],
)
def test_the_best_job_follows_the_direction_of_the_search_or_the_metric_name(
    metric: str | None, sweeper: dict[str, Any], best: tuple[float, int] | None
) -> None:
    progress = Progress(sweep(metric, **sweeper), slots=1)
    for number, value in enumerate((1.0, 3.0, 2.0)):
        progress.started(number, [])
        progress.ended(number, done(value), iter(()))
    assert progress.best == best


def test_the_time_left_is_estimated_from_the_remaining_jobs_and_the_slots() -> None:
    progress = Progress(sweep(), slots=2)
    progress.durations, now = [10.0, 30.0], time.monotonic()
    progress.running = {0: StartedJob("", now - 5), 1: StartedJob("", now - 50)}
    assert progress._seconds_left(4) == pytest.approx((15 + 0 + 4 * 20) / 2, abs=0.5)
    assert progress._seconds_left(0) == pytest.approx(15, abs=0.5), "a job cannot be shared"
    assert [format_duration(seconds) for seconds in (0.26, 59.7, 185, 7800)] == [
        "0.3 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_a_terminal_shows_a_table_of_running_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    progress = Progress(sweep(), slots=2)
    with progress:
        progress.started(0, ["seed=1"])
        progress.started(1, ["seed=2"])
        progress.show(iter([(2, [])]))
        drawn = screen.getvalue()
        progress.ended(0, done(0.5), iter(()))
    assert "0 of 3 done, 2 running, 0 failed" in drawn
    assert all(word in drawn for word in ("seed=1", "seed=2", "values"))
    assert "job 0 done, val/loss 0.5 (seed=1)" in screen.getvalue()
