"""Find every config error before torch is imported, and report all of them at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from omegaconf import DictConfig

from fulgurite.config.origins import Origins
from fulgurite.config.view import ConfigView
from fulgurite.core.errors import ConfigError
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.validation.findings import Finding
from fulgurite.validation.missing_values import check_missing_values
from fulgurite.validation.parallelism import (
    check_accelerator,
    check_batch_size,
    check_fused,
    check_mesh_sizes,
    check_processes,
)
from fulgurite.validation.rules import (
    check_checkpoint,
    check_epochs,
    check_folds,
    check_groups,
    check_keys,
    check_parts,
    check_resume,
    check_switches,
    check_tags,
    check_types,
)
from fulgurite.validation.targets import check_targets

log = RankedLogger(__name__)

CHECKS = (
    check_keys, check_types, check_tags, check_checkpoint, check_resume, check_parts, check_groups, check_epochs,
    check_switches, check_folds, check_accelerator, check_batch_size, check_mesh_sizes, check_fused, check_processes,
    check_missing_values, check_targets,
)  # fmt: skip


def validate(cfg: DictConfig) -> None:
    """Refuse a config that cannot lead to the run it describes, and log warnings about what may be wrong in it.

    Args:
        cfg: A composed config; nothing in it is changed.

    Raises:
        ConfigError: All findings together, one line each.

    Example:
        >>> fulgurite.validate(fulgurite.compose(["data.batch_size=0"]))
    """
    findings = _examine(cfg)
    _raise_problems(findings)
    for finding in findings:
        log.warning(finding.line)


def require_valid(cfg: DictConfig) -> None:
    """Refuse a config as `validate` does, without its warnings, which belong to the log of a run."""
    _raise_problems(_examine(cfg))


def _raise_problems(findings: Sequence[Finding]) -> None:
    if problems := [finding.line for finding in findings if not finding.is_warning]:
        raise ConfigError(problems)


def find_problems(cfg: DictConfig, trace: Callable[[], Origins] | None = None) -> list[Finding]:
    """Return what is wrong with a composed config, in the order of its keys.

    Args:
        cfg: A composed config, with or without its `hydra` part.
        trace: Returns where each key was set; called for findings only. None traces the current Hydra.
    """
    return [finding for finding in _examine(cfg, trace) if not finding.is_warning]


def _examine(cfg: DictConfig, trace: Callable[[], Origins] | None = None) -> list[Finding]:
    view = ConfigView(cfg)
    findings = list(_run_checks(view))
    if not findings:
        return []
    origins = trace() if trace else Origins.of(cfg)
    order = list(view.written)
    findings.sort(key=lambda finding: _position(finding.key, order))
    return [replace(finding, place=_find_place(finding, origins)) for finding in findings]


def _find_place(finding: Finding, origins: Origins) -> str | None:
    """Return where a finding is to be corrected: where its key was set, or the first line of that file."""
    place = origins.find(finding.key)
    return re.sub(r":\d+$", ":1", place) if finding.in_header and place else place


def _run_checks(view: ConfigView) -> Iterator[Finding]:
    reported: set[str] = set()
    for check in CHECKS:
        found = [finding for finding in check(view) if finding.key not in reported]
        # only the first broken rule of a key; one check may yield several, e.g. missing arguments of a class
        yield from found
        reported.update(finding.key for finding in found)


def _position(key: str, order: list[str]) -> int:
    top = re.split(r"[.\[]", key, maxsplit=1)[0]
    return order.index(top) if top in order else len(order)
