"""Read which options of groups an override names, and explain values that name none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from fulgurite.compat.hydra import IConfigRepository
from fulgurite.config.left_out import GROUPS
from fulgurite.core.errors import did_you_mean, suggest_or_list, suggest_path


def options_of(override: Override) -> list[str] | None:
    """Return the options of a group that an override names; None if it names none, e.g. `glob(*)`."""
    value: Any = override.value()
    if override.is_delete() or isinstance(value, Glob):
        return None
    if override.is_sweep_override():
        if not (override.is_choice_sweep() or override.is_range_sweep()):
            return None
        return [str(option).strip("'\"") for option in override.sweep_string_iterator()]
    return [str(option) for option in (value if isinstance(value, list) else [value])]


def configs_of(overrides: Sequence[Override]) -> list[str]:
    """Return the configs that overrides of groups name, `<group>/<option>` each."""
    return [f"{override.key_or_group}/{option}" for override in overrides for option in options_of(override) or ()]


def groups_of(repository: IConfigRepository) -> list[str]:
    """Return the top-level groups of all config sources."""
    return repository.get_group_options("", results_filter=ObjectType.GROUP)


def suggest_option(group: str, wrong: str, repository: IConfigRepository, prefix: str = "") -> str:
    """Return the suggestion for an option that a group lacks, of the group or a folder below it; else its options.

    `prefix` stands before each option that is suggested, as in `/experiment/`.
    """
    options = repository.get_group_options(group)
    if "/" not in f"{prefix}{wrong}" and (near := did_you_mean(wrong, options)):
        return near
    known = [f"{prefix}{option}" for option in (*options, *_options_below(group, repository))]
    return suggest_path(f"{prefix}{wrong}", known, "/") or suggest_or_list("", options, "There is")


def _options_below(group: str, repository: IConfigRepository, depth: int = 4) -> Iterator[str]:
    """Yield the options of the folders below a group, e.g. `gallery/alexnet`."""
    for folder in repository.get_group_options(group, results_filter=ObjectType.GROUP) if depth else ():
        yield from (f"{folder}/{option}" for option in repository.get_group_options(f"{group}/{folder}"))
        yield from (f"{folder}/{option}" for option in _options_below(f"{group}/{folder}", repository, depth - 1))


def single(override: Override, options: Sequence[str] = ()) -> Override:
    """Return the override itself, or with the first value of a sweep."""
    if not override.is_sweep_override():
        return override
    glob: Any = override.value()
    try:
        values = glob.filter(list(options)) if isinstance(glob, Glob) else override.sweep_string_iterator()
        value = next(iter(values))
    except (HydraException, ValueError, StopIteration):
        return override
    key = (override.input_line or "").partition("=")[0]
    return OverridesParser.create().parse_overrides([f"{key}={value}"])[0]


def explain_list(group: str, items: Sequence[Any]) -> str:
    """Return the rule about `callbacks` or `logger` written as a list, with the form to write."""
    noun = GROUPS[group]
    if items and all(isinstance(item, str) for item in items):
        chosen = ", ".join(map(str, items))
        return f"files of configs/{group} are chosen in the defaults list. Write '- override /{group}: [{chosen}]'"
    targets = [str(item["_target_"]) for item in items if isinstance(item, dict) and "_target_" in item]
    target = targets[0] if targets else "..."
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.rpartition(".")[2]).lower() if targets else "<name>"
    return f"a list, but each {noun} is below a name. Write '{group}: {{{name}: {{_target_: {target}}}}}'"


def explain_option(group: str, value: Any) -> str:
    """Return why a list with dictionaries names no options of a group; empty for other values."""
    if not isinstance(value, list) or not any(isinstance(part, (dict, list)) for part in value):
        return ""
    key = f"+{group}.<name>={{_target_: ...}}" if group in GROUPS else f"{group}.<key>=<value>"
    return f"{group} lists files of configs/{group} by name. Set other keys one by one: '{key}'"
