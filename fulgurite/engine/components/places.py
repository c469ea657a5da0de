"""Add the file and line of a value to what is wrong with it, once the objects of a run are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from fulgurite.config.origins import Origins
from fulgurite.core.errors import ConfigError
from fulgurite.validation.findings import Finding

_SUBJECT = re.compile(r"([A-Za-z_][\w.\[\]-]*)(?:=(.*?))?: ")  # key and value before what is wrong


@contextmanager
def places_added(cfg: DictConfig) -> Iterator[None]:
    """Add its place to each finding of a ConfigError that is raised in the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(with_places(error.findings, cfg)) from error.__cause__


@contextmanager
def rejections_added(findings: list[str]) -> Iterator[None]:
    """Add the findings of a ConfigError that is raised in the block to a list, and continue after the block."""
    try:
        yield
    except ConfigError as error:
        findings += error.findings


def with_places(findings: Sequence[str], cfg: DictConfig) -> list[str]:
    """Return findings with the file and line, or the override, that set their key."""
    origins = Origins.of(cfg)
    return [_placed(finding, origins) for finding in findings]


def _placed(finding: str, origins: Origins) -> str:
    subject = _SUBJECT.match(finding)
    place = origins.find(subject[1]) if subject else None
    if subject is None or place is None:
        return finding
    value = ... if subject[2] is None else subject[2]
    return Finding(subject[1], finding[subject.end() :], value, place).line
