"""The jobs of a grid: each a set of words, a number and a state; composed and checked together before any is run."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from fulgurite.compat.hydra import BasicSweeper, ConfigLoaderImpl
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import shown_word
from fulgurite.runs.sweep_ledger import job_key
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.hydra_errors import HYDRA_ERRORS
from fulgurite.validation.validate import find_problems

NEW, DONE, KILLED, FAILED = "new", "done", "killed", "failed"


@dataclass
class Job:
    """One set of values of a grid.

    Attributes:
        number: Of the job, and by default the name of its folder; it stays when the sweep goes on.
        key: Hash of the words; of words that come twice, the second has another one.
        words: Overrides as the command line gives them, without those for the sweep itself.
        state: What became of it before this start.
        reason: Why it is not done; empty where that is not known.
        folder: Its run directory; None where it has none yet.
        more: Words that are added to go on with what it has done.
    """

    number: int
    key: str
    words: tuple[str, ...]
    state: str = NEW
    reason: str = ""
    folder: Path | None = None
    more: list[str] = field(default_factory=list)


def expand_grid(words: Sequence[str], loader: ConfigLoaderImpl) -> list[Job]:
    """Return the jobs that the words of a command line stand for, in Hydra's order.

    Args:
        words: E.g. `seed=1,2`; `sweep.` words are for the sweep, so no job has them.
        loader: Hydra's own, which knows what `glob(*)` finds.

    Raises:
        UserError: There is none.
    """
    given = [word for word in words if not word.lstrip("+~").startswith("sweep.")]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(given)
    [sets] = BasicSweeper.split_arguments(parsed, None)
    if not sets:
        several = [word for word in given if "glob(" in word]
        raise UserError(f"{' '.join(several)}: matches nothing, so the sweep has no job; correct the pattern")
    seen: Counter[str] = Counter()
    jobs = []
    for number, values in enumerate(sets):
        key = job_key(values)
        seen[key] += 1
        jobs.append(Job(number, key if seen[key] == 1 else f"{key}-{seen[key]}", tuple(values)))
    return jobs


def check_jobs(
    jobs: Sequence[Job],
    config: DictConfig,
    loader: ConfigLoaderImpl,
    look: Callable[[Job, DictConfig], Sequence[str]],
    tell: Callable[[str, Sequence[Job], Sequence[Job]], str] | None = None,
) -> None:
    """Compose every job and refuse the sweep when one of them cannot be run.

    Args:
        jobs: Of the whole sweep.
        config: The sweep's config with Hydra's part.
        loader: Hydra's own.
        look: What else is to be found wrong with a job and its config, one line each.
        tell: Puts before a line which jobs have it, of all; None names them by their numbers.

    Raises:
        ConfigError: All findings, each with the jobs that have it.
    """
    gc.enable()  # a door turns it off for its one composition; here there are many
    refused: list[str] = []  # by Hydra, told for the command line as a whole
    found: dict[str, list[Job]] = {}
    for job in jobs:
        try:
            cfg = loader.load_sweep_config(config, list(job.words))
        except HYDRA_ERRORS as error:
            explained = explain_composition(error, _command_line(config, job), str(config.hydra.job.config_name))
            if explained is None:
                raise
            refused += [line for line in explained.findings if line not in refused]
            continue
        lines = [finding.line for finding in find_problems(cfg)]
        for line in lines or look(job, cfg):
            found.setdefault(line, []).append(job)
    told = [(tell or _prefix_jobs)(line, having, jobs) for line, having in found.items()]
    if refused or told:
        raise ConfigError([*(line for line in refused if line not in found), *told])


def varying_overrides(jobs: Sequence[Job]) -> set[str]:
    """Return the words that not all jobs have."""
    return set().union(*(job.words for job in jobs)) - set(jobs[0].words).intersection(*(job.words for job in jobs))


def describe_jobs(some: Sequence[Job], jobs: Sequence[Job]) -> str:
    """Return e.g. `jobs 1, 3 (seed=1)`: numbers, and the words that tell these from the others."""
    numbers = ", ".join(str(job.number) for job in some)
    theirs = varying_overrides(jobs).intersection(*(job.words for job in some))
    words = " ".join(shown_word(word) for word in some[0].words if word in theirs)
    return f"job{'s' * (len(some) > 1)} {numbers}{f' ({words})' if words else ''}"


def _prefix_jobs(line: str, having: Sequence[Job], jobs: Sequence[Job]) -> str:
    return line if len(having) == len(jobs) else f"{describe_jobs(having, jobs)}: {line}"


def _command_line(config: DictConfig, job: Job) -> list[str]:
    """Return the command line, and of a job's words those that come from the sweeper's params."""
    given = config.hydra.overrides
    typed = [*map(str, given.hydra), *map(str, given.task)]
    keys = {word.partition("=")[0] for word in typed}
    return ["-m", *typed, *(word for word in job.words if word.partition("=")[0] not in keys)]
