"""A search looked at before its first trial: its ends composed and checked, and whether it is the one that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fulgurite.compat.hydra import ConfigLoaderImpl
from fulgurite.core.errors import ConfigError
from fulgurite.core.formatting import show_plan
from fulgurite.core.redact import shown_word
from fulgurite.runs.sweep_ledger import SEARCH, job_key, plan_of, read
from fulgurite.search.settings import SearchSettings, find_metric_problems
from fulgurite.search.space import SearchSpace, bounds
from fulgurite.sweeps.jobs import KILLED, Job, check_jobs, varying_overrides
from fulgurite.sweeps.resume import only, resume_overrides
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.hydra_errors import HYDRA_ERRORS


def check_search(space: SearchSpace, settings: SearchSettings, config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Refuse a search in which a value that it may try cannot be run.

    Every choice and both ends of every interval are composed, each in one trial at least.

    Raises:
        ConfigError: All findings, each with the values that have it.
    """
    jobs = [Job(number, job_key(words), words) for number, words in enumerate(space.boundary_points())]
    prunes = bool(config.hydra.sweeper.get("pruner"))

    def told(line: str, having: Sequence[Job], every: Sequence[Job]) -> str:
        values = sorted({word for job in having for word in varying_overrides([every[0], job]) if word in job.words})
        of_first = having[0] is every[0] and len(having) == 1
        shown = [*map(shown_word, every[0].words[: len(space.distributions)] if of_first else values)]
        return line if len(having) == len(every) or not shown else f"{', '.join(shown)}: {line}"

    check_jobs(jobs, config, loader, lambda _, cfg: list(find_metric_problems(cfg, settings, prunes=prunes)), told)


def add_resume_overrides(jobs: Sequence[Job], config: DictConfig, loader: ConfigLoaderImpl) -> None:
    """Find what the killed trials of a search go on from.

    Raises:
        ConfigError: What forbids that, one line each.
    """
    findings = []
    for job in jobs:
        if job.state != KILLED:
            continue
        try:
            cfg = loader.load_sweep_config(config, list(job.words))
        except HYDRA_ERRORS as error:
            explained = explain_composition(error, ["-m", *job.words], str(config.hydra.job.config_name))
            findings += explained.findings if explained else [str(error)]
        else:
            findings += resume_overrides(job, cfg)
    if findings:
        raise ConfigError(findings)


def require_same_search(space: SearchSpace, settings: SearchSettings, folder: Path) -> None:
    """Refuse to go on with a search whose space is another one; it may get more trials.

    Raises:
        ConfigError: In what it differs.
    """
    plan = plan_of(read(folder), SEARCH)
    assert plan is not None
    now = {*space.texts, *map(shown_word, space.fixed)}
    then = {*plan["space"], *plan["fixed"]}
    parts = [*only("only now", now - then), *only("only then", then - now)]
    if list(settings.directions) != plan["directions"]:
        parts.append(f"direction {','.join(settings.directions)} instead of {','.join(plan['directions'])}")
    if parts:
        told = f"the search is another one: {'; '.join(parts)}; give the same values"
        raise ConfigError([f"sweep.resume={folder}: {told}, or start a search of its own without sweep.resume"])


def print_search(space: SearchSpace, settings: SearchSettings) -> None:
    """Print what a search would try."""
    rows = []
    for text, distribution in zip(space.texts, space.distributions.values(), strict=True):
        ends = bounds(distribution)
        what = f"{len(ends)} choices" if hasattr(distribution, "choices") else f"from {ends[0]} to {ends[-1]}"
        rows.append((text.partition("=")[0], text.partition("=")[2], what))
    at_once = f", {settings.n_jobs} at once at most" if settings.n_jobs else ""
    title = f"Search: {settings.n_trials} trials{at_once}, {', '.join(settings.directions)}"
    show_plan(rows, [*map(shown_word, space.fixed)], columns=("key", "space", "ends"), title=title)
