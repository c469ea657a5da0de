"""The jobs of a grid: overrides, numbers, states, and their validation."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import BasicSweeper, ConfigLoaderImpl
from fulgurite.config.override_text import quoted, set_config_value
from fulgurite.core.errors import ConfigError, FulguriteError, UserError, explain_long_name
from fulgurite.core.redact import mask_override
from fulgurite.runs.sweep_ledger import job_key
from fulgurite.trust.composed import name_faults
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.hydra_errors import HYDRA_ERRORS
from fulgurite.validation.validate import find_problems

NEW, DONE, KILLED, FAILED = "new", "done", "killed", "failed"


class JobsFailed(FulguriteError):
    """Jobs of a sweep failed, in this start or in an earlier one."""


MAX_JOBS = 100_000  # of a grid


@dataclass
class Job:
    """One point of a grid."""

    number: int  # by default also the name of its folder; a resumed sweep keeps it
    key: str  # hash of the overrides; the second job with the same overrides gets a suffix
    overrides: tuple[str, ...]  # as on the command line, without `sweep.` overrides
    state: str = NEW
    reason: str = ""  # why the job is not done; empty if unknown
    folder: Path | None = None  # its run directory; None if it has none yet
    resume_overrides: list[str] = field(default_factory=list)

    def all_overrides(self, sweep_dir: Path) -> list[str]:
        """Return the overrides to run the job with, in its folder if it has one."""
        subdir = []
        if self.folder is not None and self.folder != sweep_dir / str(self.number):
            subdir = [f"hydra.sweep.subdir={quoted(self.folder.relative_to(sweep_dir))}"]
        return [*self.overrides, *self.resume_overrides, *subdir]


def job_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the jobs, without `sweep.` overrides of the sweep."""
    return [override for override in overrides if not override.lstrip("+~").startswith("sweep.")]


def expand_grid(overrides: Sequence[str], loader: ConfigLoaderImpl) -> list[Job]:
    """Return the jobs of a grid in Hydra's order."""
    given = job_overrides(overrides)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(given)
    _require_countable(parsed)
    [points] = BasicSweeper.split_arguments(parsed, None)
    if not points:
        globs = " ".join(override for override in given if "glob(" in override)
        raise UserError(f"{globs}: matches nothing, so the sweep has no jobs. Correct the pattern.")
    num_seen: Counter[str] = Counter()
    jobs = []
    for number, point in enumerate(points):
        key = job_key(point)
        num_seen[key] += 1
        jobs.append(Job(number, key if num_seen[key] == 1 else f"{key}-{num_seen[key]}", tuple(point)))
    return jobs


def _require_countable(parsed: Sequence[Override]) -> None:
    """Refuse a grid that no machine can list, such as `seed=range(1,10000000000)`, without listing it."""
    num_jobs = 1
    for override in parsed:
        if override.is_range_sweep() or override.is_choice_sweep():
            num_jobs *= sum(1 for _ in islice(override.sweep_iterator(), MAX_JOBS + 1))
        if num_jobs > MAX_JOBS:
            raise UserError(f"{override.input_line}: the sweep has more than {MAX_JOBS:,} jobs. Pass fewer values.")


def check_jobs(
    jobs: Sequence[Job],
    config: DictConfig,
    loader: ConfigLoaderImpl,
    find_more: Callable[[Job, DictConfig], Sequence[str]],
    name_affected: Callable[[Sequence[Job], Sequence[Job]], str] | None = None,
) -> None:
    """Compose and validate every job.

    `find_more` returns further errors of a job and its config, one line each. `name_affected` names the first jobs
    among the second ones. The `ConfigError` contains all errors, each with the jobs that have it.
    """
    gc.enable()  # entry points disable it for the one composition of a run; here are many
    composition_errors: list[str] = []  # of Hydra, about the command line as a whole
    affected: dict[str, list[Job]] = {}
    for job in jobs:
        try:
            cfg = loader.load_sweep_config(config, list(job.overrides))
        except HYDRA_ERRORS as error:
            explained = explain_composition(error, _command_line(config, job), str(config.hydra.job.config_name))
            if explained is None:
                raise
            composition_errors += [line for line in explained.findings if line not in composition_errors]
            continue
        lines = [*(finding.line for finding in find_problems(cfg)), *name_faults(cfg)]
        for key in ("num", "id"):  # Hydra sets them when the job starts; the folder may be named after them
            set_config_value(cfg, f"hydra.job.{key}", job.number)
        with suppress(OmegaConfBaseException):
            lines += filter(None, [explain_long_name(Path(str(cfg.hydra.sweep.subdir)))])
        for line in lines or find_more(job, cfg):
            affected.setdefault(line, []).append(job)
    errors = [line for line in composition_errors if line not in affected]
    for line, some in affected.items():
        names = "" if len(some) == len(jobs) else (name_affected or describe_jobs)(some, jobs)
        errors.append(f"{names}: {line}" if names else line)
    if errors:
        raise ConfigError(errors)


def varying_overrides(jobs: Sequence[Job]) -> set[str]:
    """Return the overrides that not all jobs have."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs))
    return set().union(*(job.overrides for job in jobs)) - common


def describe_jobs(some: Sequence[Job], jobs: Sequence[Job]) -> str:
    """Return e.g. `jobs 1, 3 (seed=1)`, with the overrides that only these share."""
    numbers = ", ".join(str(job.number) for job in some)
    shared = varying_overrides(jobs).intersection(*(job.overrides for job in some))
    overrides = " ".join(mask_override(override) for override in some[0].overrides if override in shared)
    return f"job{'s' * (len(some) > 1)} {numbers}{f' ({overrides})' if overrides else ''}"


def typed_overrides(config: DictConfig) -> tuple[list[str], list[str]]:
    """Return the overrides of Hydra's own keys and of all others, their interpolations as they were written."""
    given = config.hydra.overrides
    own, task = (OmegaConf.to_container(part, resolve=False) or [] for part in (given.hydra, given.task))
    return [*map(str, own)], [*map(str, task)]


def _command_line(config: DictConfig, job: Job) -> list[str]:
    """Return the command line and the job's overrides from `hydra.sweeper.params`."""
    own, task = typed_overrides(config)
    typed = [*own, *task]
    keys = {override.partition("=")[0] for override in typed}
    return ["-m", *typed, *(override for override in job.overrides if override.partition("=")[0] not in keys)]
