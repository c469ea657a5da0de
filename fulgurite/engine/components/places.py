"""Add the file and line of a value to what is wrong with it, once the objects of a run are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.origins import Origins
from fulgurite.config.tracing.settings import COMMAND_LINE
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.validation.findings import SUBJECT, placed, with_places


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


def add_places(error: UserError, cfg: DictConfig) -> None:
    """Add its file and line to each line of an error that begins with a key and the value that a file gives it."""
    origins = Origins.of(cfg)
    lines = [placed(line, origins) if _is_of_file(line, origins, cfg) else line for line in str(error).splitlines()]
    error.args = ("\n".join(lines),)
    if isinstance(error, ConfigError):
        error.findings = lines


def _is_of_file(line: str, origins: Origins, cfg: DictConfig) -> bool:
    subject = SUBJECT.match(line)
    if subject is None or subject[2] is None or origins.places.get(subject[1], COMMAND_LINE).startswith(COMMAND_LINE):
        return False
    return str(OmegaConf.select(cfg, subject[1], throw_on_missing=False)) == subject[2]
