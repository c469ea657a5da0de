"""The trials of a search: ask for them, report results, restore states, write the best.

A trial has the number of its job and folder. A resumed search adds to the study the results that only run.json has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import returned_value
from fulgurite.config.metric_names import optimized_metrics
from fulgurite.core.errors import UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import format_number
from fulgurite.core.redact import hide_secrets, mask_override
from fulgurite.runs.lock import is_locked
from fulgurite.runs.run_directory import RunDirectory, mark_ended
from fulgurite.runs.sweep_ledger import append_event, job_key, read_events, record_failure
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import SearchSpace
from fulgurite.study.storage import PRUNED, REASON, REPEATS, StoredStudy, tell_result
from fulgurite.sweeps.jobs import FAILED, KILLED, NEW, Job
from fulgurite.sweeps.resume import KILLED_SILENTLY, WAIT_OR_STOP, job_folder, summarize_states

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

BEST_FILE = "optimization_results.yaml"


@dataclass
class Trials:
    """The trials of a search.

    The list of trials is cached until this process adds a trial or a result, since launchers show progress several
    times a second.
    """

    folder: Path
    settings: SearchSettings
    space: SearchSpace
    stored: StoredStudy
    config: DictConfig
    is_resumed: bool  # an earlier start created the study
    keys: dict[int, str] = field(default_factory=dict)  # of the jobs of this start, by number
    _cached: list[FrozenTrial] | None = field(default=None, init=False)

    def open_study(self) -> None:
        """Create the study, or replay the sampler of a resumed one."""
        if self.is_resumed:
            self.stored.replay_sampler(self._propose)
        else:
            self.stored.create(self.settings.directions, self.folder)

    def restore_unfinished(self) -> list[Job]:
        """Return the jobs of unfinished trials, and report ended runs to the study."""
        jobs = []
        folders = {event["job"]: event["folder"] for event in read_events(self.folder) if event["event"] == "started"}
        for trial in self._all():
            if trial.state.name not in {"RUNNING", "WAITING"}:
                continue
            job = self._job(trial.number, trial.params)
            folder = job_folder(self.folder, str(folders.get(trial.number, trial.number)), trial.number)
            if (run := RunDirectory.of(folder)) is not None:
                job.folder = folder
                if self._tell_if_ended(job, run, trial):
                    continue
            jobs.append(job)
        return jobs

    def _tell_if_ended(self, job: Job, run: RunDirectory, trial: FrozenTrial) -> bool:
        """Report the result of an ended run to the study, or set the job's state."""
        if is_locked(run.folder):
            raise UserError(f"{run.folder}: trial {job.number} is locked by another process. {WAIT_OR_STOP}")
        status, reason = run.status, run.record.get("reason")
        if pruned := trial.user_attrs.get(PRUNED):
            mark_ended(run.folder, "pruned", pruned, 0)
            self._tell(job.number, "PRUNED", reason=pruned)
        elif status == "done":
            self._tell_values(job.number, [run.metrics.get(name) for name in optimized_metrics(self.config)])
        elif status == FAILED:
            self._tell(job.number, "FAIL", reason=str(reason))
        else:
            job.state, job.reason = KILLED, str(reason or KILLED_SILENTLY)
            if run.record.get("status") == "running":
                append_event(self.folder, KILLED, job=job.number, key=job.key, reason=job.reason, exit_code=None)
            return False
        return True

    def failed_trials(self) -> list[FrozenTrial]:
        """Return the failed trials that were not retried."""
        trials = self._all()
        retried = {trial.user_attrs.get(REPEATS) for trial in trials}
        return [trial for trial in trials if trial.state.name == "FAIL" and trial.number not in retried]

    def num_remaining(self) -> int:
        """Return how many trials are left to ask for, 0 if too many failed."""
        return 0 if self.has_too_many_failures() else max(0, self._num_missing())

    def _num_missing(self) -> int:
        """Return `n_trials` minus the trials so far, without retries."""
        return self.settings.n_trials - sum(REPEATS not in trial.user_attrs for trial in self._all())

    def has_too_many_failures(self) -> bool:
        """Return whether more trials failed than `max_failure_rate` allows."""
        return len(self.failed_trials()) > self.settings.max_failure_rate * self.settings.n_trials

    def ask(self, retry_of: FrozenTrial | None = None) -> Job:
        """Return the job of a new trial, with the values of `retry_of` if given."""
        study = self.stored.load()
        if retry_of is not None:
            study.enqueue_trial(retry_of.params)
        trial = self._propose(study)
        if retry_of is not None:
            trial.set_user_attr(REPEATS, retry_of.number)
        self._cached = None
        return self._job(trial.number, trial.params)

    def _propose(self, study: Study) -> Trial:
        # sorted as databases return them: samplers that model several values at once depend on the order
        trial = study.ask(dict(sorted(self.space.distributions.items())))
        if self.settings.custom_search_space is not None:
            self.settings.custom_search_space(self.config, trial)
        return trial

    def _job(self, number: int, params: dict[str, Any]) -> Job:
        overrides = self.space.to_overrides(params)
        self.keys[number] = job_key(overrides)
        return Job(number, self.keys[number], overrides)

    def finish(self, number: int, result: JobReturn) -> str:
        """Report the result of a trial's job to the study, and return the name of its state there.

        A killed trial stays RUNNING to be resumed.
        """
        run = RunDirectory.of(self.folder / str(number))
        record = run.record if run is not None else {}
        status, returned = record.get("status"), returned_value(result)
        if result.status == JobStatus.FAILED:
            outcome = getattr(returned, "outcome", None)
            if KILLED in {status, getattr(outcome, "status", None)}:
                return "RUNNING"
            record_failure(self.folder, number, self.keys[number], returned)
            return self._tell(number, "FAIL", reason=str(returned) or type(returned).__name__)
        if status == "pruned":
            return self._tell(number, "PRUNED", reason=str(record.get("reason")))
        return self._tell_values(number, returned if isinstance(returned, (list, tuple)) else [returned])

    def _tell_values(self, number: int, values: Sequence[Any]) -> str:
        """Report the metrics of a job, or FAIL if one is missing or not finite."""
        named = dict(zip(optimized_metrics(self.config), values, strict=False))
        wrong = [f"{name} is {got}" for name, got in named.items() if got is None or not math.isfinite(float(got))]
        if len(values) != len(self.settings.directions) or wrong:
            return self._tell(number, "FAIL", reason=", ".join(wrong) or f"returned {len(values)} numbers")
        return self._tell(number, "COMPLETE", values=[float(value) for value in values])

    def _tell(self, number: int, outcome: str, *, values: list[float] | None = None, reason: str | None = None) -> str:
        from optuna.trial import TrialState

        if reason is not None:
            self.stored.trial(number).set_user_attr(REASON, hide_secrets(reason))
        tell_result(self.stored.load(), number, TrialState[outcome], values)
        self._cached = None
        key = self.keys[number]
        append_event(self.folder, "reported", job=number, key=key, state=outcome, values=values, reason=reason)
        return outcome

    def _all(self) -> list[FrozenTrial]:
        if self._cached is None:
            self._cached = self.stored.load().get_trials(deepcopy=False)
        return self._cached

    def describe_states(self, unfinished: Sequence[Job], *, retry: bool) -> str:
        """Return e.g. `3 done, trial 3 to resume, 2 to start`."""
        num_done = sum(trial.state.name in {"COMPLETE", "PRUNED"} for trial in self._all())
        num_new = self._num_missing() + sum(job.state == NEW for job in unfinished)
        killed = [job.number for job in unfinished if job.state == KILLED]
        failed = [trial.number for trial in self.failed_trials()]
        names = [
            f"trial{'s' * (len(some) > 1)} {', '.join(map(str, some))}" if some else "" for some in (killed, failed)
        ]
        return summarize_states(num_done, names, num_new, retry=retry)

    def write_best(self) -> list[FrozenTrial]:
        """Write the best trials to `optimization_results.yaml`, and return them.

        With several metrics these are the trials of the Pareto front.
        """
        study = self.stored.load()
        if not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
            return []
        results: dict[str, Any] = {"name": "optuna"}
        if len(self.settings.directions) > 1:
            best = study.best_trials
            results["solutions"] = [{"params": trial.params, "values": list(trial.values)} for trial in best]
        else:
            best = [study.best_trial]
            results |= {"best_params": best[0].params, "best_value": best[0].value}
        write_atomic(self.folder / BEST_FILE, OmegaConf.to_yaml(OmegaConf.create(results)))
        return best

    def describe(self, trial: FrozenTrial) -> str:
        """Return a line on one of the best trials."""
        named = zip(optimized_metrics(self.config), trial.values, strict=True)
        values = ", ".join(f"{name} {format_number(value)}" for name, value in named)
        overrides = self.space.to_overrides(trial.params)[: len(trial.params)]
        return f"best: trial {trial.number}, {values}: {' '.join(map(mask_override, overrides))}"

    def failure_reasons(self) -> list[str]:
        """Return a line on each failed trial that was not retried."""
        return [f"trial {trial.number} failed: {trial.user_attrs.get(REASON)}" for trial in self.failed_trials()]

    def summarize_failures(self) -> list[str]:
        """Return the errors of a search that ended early or in which every trial failed."""
        trials, reasons = self._all(), self.failure_reasons()
        lines = []
        if self.has_too_many_failures() and len(trials) < self.settings.n_trials:
            rate = self.settings.max_failure_rate
            lines.append(f"more than hydra.sweeper.max_failure_rate={rate:g} of {self.settings.n_trials} trials failed")
        if reasons and all(trial.state.name == "FAIL" for trial in trials):
            lines.append(f"no trial was completed: {len(trials)} of {len(trials)} failed; {reasons[0]}")
        return lines
