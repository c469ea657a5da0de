"""Checks before the first trial of a search, also of a resumed one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.core.formatting import show_plan
from fulgurite.core.redact import mask_override
from fulgurite.runs.sweep_ledger import SEARCH, first_plan, job_key, read_events
from fulgurite.search.settings import SearchSettings, find_metric_problems
from fulgurite.search.space import SearchSpace, bounds
from fulgurite.sweeps.jobs import KILLED, Job, check_jobs, varying_overrides
from fulgurite.sweeps.resume import describe_changes, different_sweep, resume_overrides, without_display


def check_search(space: SearchSpace, settings: SearchSettings, config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Validate trials that together have every choice and every bound, and the metrics of each."""
    check_trials(space, config, loader, lambda cfg: [*find_metric_problems(cfg, settings)])


def check_trials(
    space: SearchSpace,
    config: DictConfig,
    loader: ConfigLoaderImpl,
    find_more: Callable[[DictConfig], list[str]] = lambda _: [],
) -> None:
    """Validate trials that together have every choice and every bound. `find_more` returns further errors of one."""
    jobs = [Job(number, job_key(point), point) for number, point in enumerate(space.boundary_points())]

    def name_values(some: Sequence[Job], jobs: Sequence[Job]) -> str:
        if [job.number for job in some] == [0]:  # the other trials differ from the first in one value each
            values = list(jobs[0].overrides[: len(space.distributions)])
        else:
            values = sorted({item for job in some for item in varying_overrides([jobs[0], job]) & {*job.overrides}})
        return ", ".join(map(mask_override, values))

    check_jobs(jobs, config, loader, lambda _, cfg: find_more(cfg), name_values)


def add_resume_overrides(jobs: Sequence[Job], config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Validate the killed jobs, and add the overrides with which they resume their runs."""
    killed = [job for job in jobs if job.state == KILLED]
    check_jobs(killed, config, loader, resume_overrides, lambda *_: "")  # an error names the run itself


def require_same_search(space: SearchSpace, settings: SearchSettings, folder: Path) -> None:
    """Require that a resumed search has its original space and directions."""
    plan = first_plan(read_events(folder), SEARCH)
    assert plan is not None
    [now], [before] = without_display([[*map(mask_override, space.fixed)]]), without_display([plan["fixed"]])
    changes = describe_changes({*space.texts, *now}, {*plan["space"], *before})
    if list(settings.directions) != plan["directions"]:
        changes.append(f"direction {','.join(settings.directions)} instead of {','.join(plan['directions'])}")
    if changes:
        raise different_sweep(folder, "search", changes)


def print_search(space: SearchSpace, settings: SearchSettings) -> None:
    """Print the space of a search as a table."""
    rows = []
    for text, distribution in zip(space.texts, space.distributions.values(), strict=True):
        values = bounds(distribution)
        what = f"{len(values)} choices" if hasattr(distribution, "choices") else f"from {values[0]} to {values[-1]}"
        rows.append((text.partition("=")[0], text.partition("=")[2], what))
    at_once = f", at most {settings.n_jobs} at once" if settings.n_jobs else ""
    title = f"Search: {settings.n_trials} trials{at_once}, {', '.join(settings.directions)}"
    show_plan(rows, [*map(mask_override, space.fixed)], columns=("key", "space", "bounds"), title=title)
