"""Run a hyperparameter search: one job for each trial of an Optuna study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from fulgurite.compat.hydra import ConfigLoaderImpl, raise_failure
from fulgurite.core.context import current_context
from fulgurite.core.redact import mask_override, saved_config
from fulgurite.engine.run_directory_callback import ReserveRunDirectory
from fulgurite.runs.lock import run_lock
from fulgurite.runs.sweep_ledger import SEARCH, append_event, first_plan, read_events
from fulgurite.search.preflight import add_resume_overrides, check_search, print_search, require_same_search
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import SearchSpace, read_space
from fulgurite.search.trials import Trials
from fulgurite.study.sampler_state import refuse_unpickling_sampler
from fulgurite.study.storage import StoredStudy, make_sampler_and_pruner, open_storage, study_name
from fulgurite.sweeps.code_state import CodeState, print_status
from fulgurite.sweeps.dispatch import NumberedJob, run_jobs
from fulgurite.sweeps.jobs import Job, JobsFailed
from fulgurite.sweeps.places import param_places
from fulgurite.sweeps.resume import find_sweep


def run_search(config: DictConfig, context: HydraContext, launcher: Launcher, overrides: Sequence[str]) -> None:
    """Run trials until the search has `n_trials`.

    Raises:
        Exception: The exception of the first failed trial, after the last trial.
    """
    loader = context.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    options, sweeper = config.get("sweep") or {}, config.hydra.sweeper
    with param_places(config, overrides):
        settings, space = SearchSettings.read(config), read_space(overrides, sweeper)
        resumed = find_sweep(str(options["resume"]), config, SEARCH) if options.get("resume") else None
        if resumed is not None:
            require_same_search(space, settings, resumed)
        check_search(space, settings, config, loader)
        sampler, pruner, num_points = make_sampler_and_pruner(sweeper, space.grid)
    refuse_unpickling_sampler(sampler, is_own_storage=not sweeper.get("storage") and resumed is None)
    if num_points is not None:
        settings = replace(settings, n_trials=min(settings.n_trials, num_points))
    if options.get("dry_run"):
        print_search(space, settings)
        return
    code = CodeState()
    storage = open_storage(sweeper, Path()) if sweeper.get("storage") else None  # fails before a folder is made
    folder = ReserveRunDirectory.reserve_sweep(config, resumed)
    with run_lock(folder):
        stored = StoredStudy(storage or open_storage(sweeper, folder), study_name(config, folder), sampler, pruner)
        trials = Trials(folder, settings, space, stored, config, is_resumed=resumed is not None)
        trials.open_study()
        _record_plan(folder, config, settings, space, code)
        _SearchLoop(launcher, config, loader, trials, code).run(retry=bool(options.get("retry_failed")))


def _record_plan(
    folder: Path, config: DictConfig, settings: SearchSettings, space: SearchSpace, code: CodeState
) -> None:
    (folder / "multirun.yaml").write_text(saved_config(config), encoding="utf-8")
    code.warn_if_changed_since(first_plan(read_events(folder), SEARCH))
    append_event(
        folder,
        SEARCH,
        space=list(space.texts),
        fixed=[*map(mask_override, space.fixed)],
        directions=list(settings.directions),
        n_trials=settings.n_trials,
        code=code.digest,
        command=[mask_override(argument) for argument in current_context().argv],
    )


class _SearchLoop(Iterator[NumberedJob]):
    """The trials of one start of a search, and the iterator over their jobs."""

    def __init__(
        self, launcher: Launcher, config: DictConfig, loader: ConfigLoaderImpl, trials: Trials, code: CodeState
    ) -> None:
        self.launcher, self.config, self.loader, self.trials, self.code = launcher, config, loader, trials, code
        self.jobs: Iterator[Job] = iter(())

    def __next__(self) -> NumberedJob:
        job = next(self.jobs)
        self.code.record_changes(self.trials.folder, job.number)
        return job.number, job.all_overrides(self.trials.folder)

    def __length_hint__(self) -> int:
        return self.trials.num_remaining()

    def run(self, *, retry: bool) -> None:
        """Run the unfinished trials of earlier starts, then new ones."""
        trials, failed = self.trials, list[JobReturn]()
        unfinished = trials.restore_unfinished()
        add_resume_overrides(unfinished, self.config, self.loader)
        if trials.is_resumed:
            print_status(f"sweep: resuming {trials.folder}: {trials.describe_states(unfinished, retry=retry)}")
        self.jobs = self._take_jobs(unfinished, retry=retry)
        # a launcher without slots would get all trials in one batch, before the study has any result
        at_once = trials.settings.n_jobs or (None if hasattr(self.launcher, "stream") else 1)
        with closing(run_jobs(self.launcher, self, at_once)) as running:
            for number, result in running:
                if trials.finish(number, result) in {"FAIL", "RUNNING"}:
                    failed.append(result)
                trials.write_best()  # after each trial: a kill leaves no time for it
        for trial in trials.write_best():
            print_status(trials.describe(trial))
        for line in trials.summarize_failures():
            print_status(f"error: {line}")
        for result in failed:
            raise_failure(result)
        if reasons := trials.failure_reasons():
            rule = "" if retry else ". Pass sweep.retry_failed=true to retry."
            raise JobsFailed("; ".join(reasons) + rule)

    def _take_jobs(self, unfinished: Sequence[Job], *, retry: bool) -> Iterator[Job]:
        """Yield jobs, and ask the study only when a launcher takes the next one."""
        yield from unfinished
        for trial in self.trials.failed_trials() if retry else ():
            yield self.trials.ask(retry_of=trial)
        while self.trials.num_remaining():
            yield self.trials.ask()
