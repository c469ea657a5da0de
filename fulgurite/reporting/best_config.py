"""The winner of a sweep as an experiment file: only what its words change, in the form of `configs/experiment/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fulgurite.core.project import project_root
from fulgurite.core.redact import is_secret_key
from fulgurite.runs.provenance import IRRELEVANT
from fulgurite.runs.sweep_summary import REPEAT_KEYS

# Keys that make a sweep or place a run, and those that its jobs repeat: no part of what was found best.
NO_PART = (*IRRELEVANT, "hparams_search", "debug", "local", "data.num_folds", *REPEAT_KEYS)


def experiment_text(words: Sequence[str], header: Sequence[str]) -> str:
    """Return an experiment file that comes to what the words of a command line come to.

    Args:
        words: Overrides of the job, as Hydra has kept them.
        header: Lines of the comment on top.
    """
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    bases: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        if key.split("/")[0].split(".")[0] in NO_PART or key in NO_PART or is_secret_key(key):
            continue
        value: Any = None if override.is_delete() else override.value()
        if key == "experiment":
            bases += value if isinstance(value, list) else [value]
        elif (project_root() / "configs" / key).is_dir():
            defaults.append({f"{'' if override.is_add() else 'override '}/{key}": value})
        else:
            _put(values, key.split("."), value)
    content: dict[str, Any] = {"defaults": [*bases, "_self_", *defaults]} if bases or defaults else {}
    if bases or values or defaults:
        content |= values
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if content else ""
    return "\n".join(["# @package _global_", *(f"# {line}" for line in header), body])


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value
