"""Write the best config of a sweep as an experiment file of `configs/experiment/`: its overrides only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fulgurite.core.errors import printable
from fulgurite.core.project import project_root
from fulgurite.core.redact import MASK, is_secret_key
from fulgurite.reporting.sweep_summary import REPEAT_KEYS
from fulgurite.runs.provenance import IRRELEVANT

# Keys that do not determine the result, or that repeat an experiment.
LEFT_OUT = (*IRRELEVANT, "hparams_search", "debug", "local", "data.num_folds", *REPEAT_KEYS)


def experiment_text(overrides: Sequence[str], header: Sequence[str]) -> str:
    """Return an experiment file that composes to the same config as a job's overrides."""
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    bases: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        is_secret = is_secret_key(key) or MASK in str(override.value())
        if key.split("/")[0].split(".")[0] in LEFT_OUT or key in LEFT_OUT or is_secret:
            continue
        value: Any = None if override.is_delete() else override.value()
        if key == "experiment":
            bases += value if isinstance(value, list) else [value]
        elif (project_root() / "configs" / key).is_dir():
            defaults.append({f"{'' if override.is_add() else 'override '}/{key}": value})
        else:
            _set_nested(values, key.split("."), value)
    content: dict[str, Any] = {"defaults": [*bases, "_self_", *defaults]} if bases or defaults else {}
    if bases or values or defaults:
        content |= values
    plain = all(printable(override) == override for override in overrides)
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=plain) if content else ""
    return "\n".join(["# @package _global_", *(f"# {printable(line)}" for line in header), body])


def _set_nested(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value
