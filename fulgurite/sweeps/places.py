"""Name the file and line of values of `hydra.sweeper.params`, which a job sets as overrides of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from fulgurite.config.origins import Origins
from fulgurite.config.override_text import override_key
from fulgurite.config.tracing.settings import COMMAND_LINE
from fulgurite.core.errors import ConfigError
from fulgurite.sweeps.jobs import job_overrides
from fulgurite.validation.findings import placed

_OF_A_JOB = re.compile(rf"(?:.*: )?{COMMAND_LINE}([^=\s]+)=(.*?): (.*)")  # key, value, what is wrong


@contextmanager
def param_places(config: DictConfig, overrides: Sequence[str]) -> Iterator[None]:
    """Give the findings of a ConfigError that is raised in the block the places of the sweep's keys.

    Args:
        config: The config of the sweep, with its `hydra` part.
        overrides: Those of the command line, which win over `hydra.sweeper.params`.
    """
    try:
        yield
    except ConfigError as error:
        typed = {override_key(override) for override in job_overrides(overrides)}
        raise ConfigError(_with_places(error.findings, Origins.of(config), typed)) from error.__cause__


def _with_places(findings: Sequence[str], origins: Origins, typed: set[str]) -> list[str]:
    """Return the findings, those of several values of a key with the same fault as one."""
    lines: dict[tuple[str, str], list[str]] = {}  # start and end of a line, values between them
    for finding in findings:
        of_job = _OF_A_JOB.fullmatch(finding)
        key = of_job[1] if of_job else ""
        place = None if override_key(key) in typed else origins.places.get(f"hydra.sweeper.params.{key}")
        if of_job is None or place is None:
            lines.setdefault((finding if of_job else placed(finding, origins), ""), [])
        else:
            lines.setdefault((f"{place}: {key}=", f": {of_job[3]}"), []).append(of_job[2])
    return [f"{start}{', '.join(values)}{end}" for (start, end), values in lines.items()]
