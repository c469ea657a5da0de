"""The trials of a search: how many there are, which go on, what became of each, and which was best.

A trial's number is its job's and its folder's. The study says which trials there are and what they came to; how a job
ended stands in its run.json, so a trial that nobody has told of is judged by that when its search goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.metric_names import metrics_of
from fulgurite.core.redact import shown_word
from fulgurite.runs.layout import RESULTS
from fulgurite.runs.lock import is_locked
from fulgurite.runs.run_directory import RunDirectory, effective_status
from fulgurite.runs.run_json import mark_ended
from fulgurite.runs.sweep_ledger import append, job_key, note_failed, read
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import SearchSpace
from fulgurite.study.storage import PRUNED, REASON, REPEATS, StoredStudy, replay_sampler
from fulgurite.sweeps.jobs import FAILED, KILLED, NEW, Job

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

BEST_FILE = "optimization_results.yaml"


class TrialOutcome(Enum):
    """What a study was told of a trial; nothing of one that was killed and can go on."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAIL"
    NOTHING = "RUNNING"


@dataclass
class Trials:
    """The trials of a search.

    Attributes:
        folder: The search's directory.
        settings: Of the search.
        space: What it may try.
        stored: Its study.
        config: The sweep's config with Hydra's part.
        goes_on: Whether an earlier start began it.
        keys: Of the jobs that this start runs, by number.

    The study is read anew when this start has asked or told: what launchers show several times a second asks nobody.
    """

    folder: Path
    settings: SearchSettings
    space: SearchSpace
    stored: StoredStudy
    config: DictConfig
    goes_on: bool
    keys: dict[int, str] = field(default_factory=dict)
    _known: list[FrozenTrial] | None = field(default=None, init=False)

    def open(self) -> None:
        """Make the study, or bring the sampler to where it was in that of an earlier start.

        Raises:
            UserError: There is no such study to go on with, or already one of that name.
        """
        if self.goes_on:
            replay_sampler(self.stored, self._propose)
        else:
            self.stored.begin(self.settings.directions, self.folder)

    def left(self) -> list[Job]:
        """Return the jobs of trials that were asked for and have not come to their end.

        Raises:
            UserError: One is being run by another process.
        """
        jobs = []
        folders = {event["job"]: event["folder"] for event in read(self.folder) if event["event"] == "started"}
        for trial in self._all():
            if trial.state.name not in {"RUNNING", "WAITING"}:
                continue
            job = self._job(trial.number, trial.params)
            place = self.folder / folders.get(trial.number, str(trial.number))
            if (run := RunDirectory.of(place)) is not None:
                job.folder = place
                if self._settled(job, run, trial):
                    continue
            jobs.append(job)
        return jobs

    def _settled(self, job: Job, run: RunDirectory, trial: FrozenTrial) -> bool:
        """Tell the study what a job came to that had ended, or nearly so, when the search was killed; else False."""
        if is_locked(run.folder):
            raise UserError(f"{run.folder}: another process is at trial {job.number}; wait for its end, or end it")
        status, reason = effective_status(run.folder, run.record), run.record.get("reason")
        if why := trial.user_attrs.get(PRUNED):
            mark_ended(run.folder, "pruned", why, 0)
            self._tell(job.number, TrialOutcome.PRUNED, reason=why)
        elif status == "done":
            file = run.folder / RESULTS
            metrics = json.loads(file.read_text())["metrics"] if file.is_file() else {}
            self._judge(job.number, [metrics.get(name) for name in self._metrics()])
        elif status == FAILED:
            self._tell(job.number, TrialOutcome.FAILED, reason=str(reason))
        else:
            job.state, job.reason = KILLED, str(reason or "ended without a word, as by kill -9")
            if run.record.get("status") == "running":
                append(self.folder, KILLED, job=job.number, key=job.key, reason=job.reason, exit_code=None)
            return False
        return True

    def to_repeat(self) -> list[FrozenTrial]:
        """Return the trials that failed and were not tried again."""
        trials = self._all()
        repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
        return [trial for trial in trials if trial.state.name == "FAIL" and trial.number not in repeated]

    def to_ask(self) -> int:
        """Return how many more trials there may be; none when too many failed. One that was tried again counts once."""
        repeats = sum(REPEATS in trial.user_attrs for trial in self._all())
        return 0 if self.is_hopeless() else max(0, self.settings.n_trials - len(self._all()) + repeats)

    def is_hopeless(self) -> bool:
        """Tell whether more trials failed than `max_failure_rate` allows."""
        return len(self.to_repeat()) > self.settings.max_failure_rate * self.settings.n_trials

    def ask(self, repeat: FrozenTrial | None = None) -> Job:
        """Return the job of a new trial.

        Args:
            repeat: A trial that failed, whose values it is to have.
        """
        study = self.stored.load()
        if repeat is not None:
            study.enqueue_trial(repeat.params)
        trial = self._propose(study)
        if repeat is not None:
            trial.set_user_attr(REPEATS, repeat.number)
        self._known = None
        return self._job(trial.number, trial.params)

    def _propose(self, study: Study) -> Trial:
        # by name, as databases return them: samplers that look at several at once go by the order
        trial = study.ask(dict(sorted(self.space.distributions.items())))
        if self.settings.custom is not None:
            self.settings.custom(self.config, trial)
        return trial

    def _job(self, number: int, params: dict[str, Any]) -> Job:
        words = self.space.words(params)
        self.keys[number] = job_key(words)
        return Job(number, self.keys[number], words)

    def end(self, number: int, ended: JobReturn) -> TrialOutcome:
        """Tell the study what became of a trial's job."""
        run = RunDirectory.of(self.folder / str(number))
        status = run.record.get("status") if run is not None else None
        returned = ended._return_value  # of a job that failed, what it has raised
        if ended.status == JobStatus.FAILED:
            outcome = getattr(returned, "outcome", None)
            if KILLED in {status, getattr(outcome, "status", None)}:
                return TrialOutcome.NOTHING
            note_failed(self.folder, number, self.keys[number], returned)
            return self._tell(number, TrialOutcome.FAILED, reason=str(returned) or type(returned).__name__)
        if status == "pruned":
            assert run is not None
            return self._tell(number, TrialOutcome.PRUNED, reason=str(run.record.get("reason")))
        return self._judge(number, returned if isinstance(returned, (list, tuple)) else [returned])

    def _judge(self, number: int, values: Sequence[Any]) -> TrialOutcome:
        """Tell the study what a job that came to its end has returned."""
        named = dict(zip(self._metrics(), values, strict=False))
        wrong = [
            f"{name} is {value}" for name, value in named.items() if value is None or not math.isfinite(float(value))
        ]
        if len(values) != len(self.settings.directions) or wrong:
            return self._tell(number, TrialOutcome.FAILED, reason=", ".join(wrong) or f"returned {len(values)} numbers")
        return self._tell(number, TrialOutcome.COMPLETE, values=[float(value) for value in values])

    def _tell(
        self, number: int, told: TrialOutcome, *, values: list[float] | None = None, reason: str | None = None
    ) -> TrialOutcome:
        from optuna.trial import TrialState

        if reason is not None:
            self.stored.trial(number).set_user_attr(REASON, reason)
        self.stored.tell(number, TrialState[told.value], values)
        self._known = None
        append(self.folder, "told", job=number, key=self.keys[number], state=told.value, values=values, reason=reason)
        return told

    def _all(self) -> list[FrozenTrial]:
        if self._known is None:
            self._known = self.stored.load().get_trials(deepcopy=False)
        return self._known

    def _metrics(self) -> tuple[str, ...]:
        return metrics_of(self.config)

    def told_states(self, left: Sequence[Job], *, retry: bool) -> str:
        """Return what is to be done when a search goes on, e.g. `3 done, trial 3 to go on, 2 to start`."""
        failed = [str(trial.number) for trial in self.to_repeat()]
        parts = [f"{sum(trial.state.name in {'COMPLETE', 'PRUNED'} for trial in self._all())} done"]
        for numbers, what in (
            ([str(job.number) for job in left if job.state == KILLED], "to go on"),
            (failed, "to be tried again" if retry else "failed"),
        ):
            parts += [f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)} {what}"] if numbers else []
        known = len(self._all()) - sum(REPEATS in trial.user_attrs for trial in self._all())
        new = self.settings.n_trials - known + sum(job.state == NEW for job in left)
        return ", ".join([*parts, f"{new} to start"] if new > 0 else parts)

    def conclude(self) -> list[str]:
        """Write the best of all trials, and return a line on each."""
        return [self._line(trial) for trial in self.write_best()]

    def write_best(self) -> list[FrozenTrial]:
        """Write the best so far into `optimization_results.yaml`, as Hydra's own sweeper does, and return them.

        Where there are several metrics, the best are the trials than which no other is better in all.
        """
        study = self.stored.load()
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if not done:
            return []
        best = study.best_trials if len(self.settings.directions) > 1 else [study.best_trial]
        found: dict[str, Any] = {"name": "optuna"}
        if len(self.settings.directions) > 1:
            found["solutions"] = [{"params": trial.params, "values": list(trial.values)} for trial in best]
        else:
            found |= {"best_params": best[0].params, "best_value": best[0].value}
        write_atomic(self.folder / BEST_FILE, OmegaConf.to_yaml(OmegaConf.create(found)))
        return best

    def _line(self, trial: FrozenTrial) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in zip(self._metrics(), trial.values, strict=True))
        words = self.space.words(trial.params)[: len(trial.params)]
        return f"best: trial {trial.number}, {numbers}: {' '.join(map(shown_word, words))}"

    def reasons(self) -> list[str]:
        """Return a line on each trial that failed and was not tried again."""
        return [f"trial {trial.number} failed: {trial.user_attrs.get(REASON)}" for trial in self.to_repeat()]

    def verdict(self) -> list[str]:
        """Return what is to be said of the failures as a whole, a line each."""
        trials, failed = self._all(), self.reasons()
        lines = []
        if self.is_hopeless() and len(trials) < self.settings.n_trials:
            rate = self.settings.max_failure_rate
            lines.append(f"more than hydra.sweeper.max_failure_rate={rate:g} of {self.settings.n_trials} trials failed")
        if failed and all(trial.state.name == "FAIL" for trial in trials):
            lines.append(f"no trial came to an end: {len(trials)} of {len(trials)} failed; {failed[0]}")
        return lines
