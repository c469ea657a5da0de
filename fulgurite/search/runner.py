"""A search from its command line to its last trial: checked whole, then asked, run and told, one trial a job."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.config.override_text import quoted
from fulgurite.core.errors import FulguriteError
from fulgurite.core.rank_logging import rank
from fulgurite.core.redact import shown_word
from fulgurite.engine.record import RunRecord
from fulgurite.engine.run_directory_callback import ReserveRunDirectory
from fulgurite.runs.lock import run_lock
from fulgurite.runs.sweep_ledger import SEARCH, append, plan_of, read
from fulgurite.search.preflight import add_resume_overrides, check_search, print_search, require_same_search
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import SearchSpace, read_space
from fulgurite.search.trials import TrialOutcome, Trials
from fulgurite.study.storage import StoredStudy, make_sampler_and_pruner, open_storage, study_name
from fulgurite.sweeps.code_state import CodeState
from fulgurite.sweeps.dispatch import NumberedJob, StreamingLauncher, run_jobs
from fulgurite.sweeps.jobs import KILLED, Job
from fulgurite.sweeps.resume import find_sweep


def run_search(config: DictConfig, context: HydraContext, launcher: Launcher, words: Sequence[str]) -> None:
    """Run trials until a search has as many as were asked for.

    Args:
        config: The sweep's config with Hydra's part.
        context: Hydra's.
        launcher: Runs the jobs.
        words: The command line's, without those for Hydra itself.

    Raises:
        ConfigError: Findings about the search; nothing was run and no folder made.
        UserError: The search that was named cannot go on, or its storage cannot be used.
        Exception: What the first trial that failed has raised, after the last trial.
    """
    loader = context.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    asked = config.get("sweep") or {}
    settings, space = SearchSettings.read(config), read_space(words, config.hydra.sweeper)
    earlier = find_sweep(str(asked["resume"]), config, SEARCH) if asked.get("resume") else None
    if earlier is not None:
        require_same_search(space, settings, earlier)
    check_search(space, settings, config, loader)
    sweeper = config.hydra.sweeper
    sampler, pruner, combinations = make_sampler_and_pruner(sweeper, space.grid)
    if combinations is not None:
        settings = replace(settings, n_trials=min(settings.n_trials, combinations))
    if asked.get("dry_run"):
        print_search(space, settings)
        return
    code = CodeState()
    storage = open_storage(sweeper, Path()) if sweeper.get("storage") else None
    folder = ReserveRunDirectory.reserve_sweep(config, earlier)
    with run_lock(folder):
        stored = StoredStudy(storage or open_storage(sweeper, folder), study_name(config, folder), sampler, pruner)
        trials = Trials(folder, settings, space, stored, config, goes_on=earlier is not None)
        trials.open()
        _record_plan(folder, config, settings, space, code)
        _SearchLoop(launcher, config, loader, trials, code).run(retry=bool(asked.get("retry_failed")))


def _record_plan(
    folder: Path, config: DictConfig, settings: SearchSettings, space: SearchSpace, code: CodeState
) -> None:
    """Write the plan into the ledger."""
    OmegaConf.save(config, folder / "multirun.yaml")
    before = plan_of(read(folder), SEARCH)
    if before is not None and before["code"] != code.digest:
        _say("warning: sweep: src/ and configs/ are not as they were when the sweep began")
    append(
        folder,
        SEARCH,
        space=list(space.texts),
        fixed=[*map(shown_word, space.fixed)],
        directions=list(settings.directions),
        n_trials=settings.n_trials,
        code=code.digest,
        command=[shown_word(word) for word in RunRecord.typed or sys.argv],
    )


class _SearchLoop:
    """The trials of one start."""

    def __init__(
        self, launcher: Launcher, config: DictConfig, loader: ConfigLoaderImpl, trials: Trials, code: CodeState
    ) -> None:
        self.launcher, self.config, self.loader, self.trials, self.code = launcher, config, loader, trials, code
        self.failed: list[JobReturn] = []

    def run(self, *, retry: bool) -> None:
        """Run what an earlier start has left, then new trials."""
        left = self.trials.left()
        add_resume_overrides(left, self.config, self.loader)
        if self.trials.goes_on:
            _say(f"sweep: going on with {self.trials.folder}: {self.trials.told_states(left, retry=retry)}")
        jobs = _JobIterator(self._jobs(left, retry=retry), self.trials)
        # a launcher that would be given all at once has no room of its own to tell how many that should be
        at_once = self.trials.settings.n_jobs or (None if isinstance(self.launcher, StreamingLauncher) else 1)
        with closing(run_jobs(self.launcher, jobs, at_once)) as running:
            for number, ended in running:
                if self.trials.end(number, ended) in {TrialOutcome.FAILED, TrialOutcome.NOTHING}:
                    self.failed.append(ended)
                self.trials.write_best()  # now: what ends this search may leave it no time to
        for line in self.trials.conclude():
            _say(line)
        for line in self.trials.verdict():
            _say(f"error: {line}")
        for ended in self.failed:
            _ = ended.return_value  # raises what the job has raised
        if reasons := self.trials.reasons():
            again = "" if retry else "; sweep.retry_failed=true tries again"
            raise TrialsFailed("; ".join(reasons) + again)

    def _jobs(self, left: Sequence[Job], *, retry: bool) -> Iterator[NumberedJob]:
        """Yield the number and the words of each job when there is room for it; only then is the study asked."""
        for job in left:
            yield self._next(job)
        for params in self.trials.to_repeat() if retry else ():
            yield self._next(self.trials.ask(repeat=params))
        while self.trials.to_ask():
            yield self._next(self.trials.ask())

    def _next(self, job: Job) -> NumberedJob:
        if files := self.code.changes():
            append(self.trials.folder, "changed", before=job.number, files=files)
            _say(f"warning: sweep: changed while it runs: {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}")
        place = self.trials.folder / str(job.number)
        where = []
        if job.state == KILLED and job.folder is not None and job.folder != place:
            where = [f"hydra.sweep.subdir={quoted(job.folder.relative_to(self.trials.folder))}"]
        return job.number, [*job.words, *job.more, *where]


class _JobIterator(Iterator[NumberedJob]):
    """Jobs that are made when they are asked for; how many more there may be is what launchers show as time left."""

    def __init__(self, jobs: Iterator[NumberedJob], trials: Trials) -> None:
        self.jobs, self.trials = jobs, trials

    def __next__(self) -> NumberedJob:
        return next(self.jobs)

    def __length_hint__(self) -> int:
        return self.trials.to_ask()


class TrialsFailed(FulguriteError):
    """Trials of a search failed; they have told why."""


def _say(line: str) -> None:
    if rank() == 0:
        sys.stderr.write(f"{line}\n")
