"""Explain the mistakes of defaults lists, with the line to write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import takewhile

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override

from fulgurite.compat.hydra import IConfigRepository
from fulgurite.config.changes import parents_of
from fulgurite.config.tracing.settings import file_of, parse_yaml, read_yaml, shown_path, text_of_config
from fulgurite.core.errors import suggest_or_list
from fulgurite.validation.explanations.group_options import configs_of, groups_of, options_of

PACKAGE = "# @package _global_"
HEADER = re.compile(r"#\s*@package\s+(\S+)")
_HEADER_LINE = re.compile(r"\s*(#\s*@|$)")
_FILE = re.compile(r"In '?([^':]+)'?: |Invalid defaults list in '([^']+)'")
# an entry of a defaults list
_DEFAULT = re.compile(r"\s*-\s+(?:optional\s+)?(override\s+)?(/)?([\w/]+)(@\S+)?:\s*([^\s#]+)")
_UNKNOWN_WORD = re.compile(r"\s*-\s+(?!(?:override|optional)\s)(\w+)\s+/?[\w/@.]+:\s")
_TOO_LOW = re.compile(r"is defined before '([^'@:]+)[^':]*: ([^']+)'")  # an entry below an override
_WANTS_OVERRIDE = re.compile(r"Could not override '|No match in the defaults list|Invalid Defaults List override")


def lacks_package(group: str) -> str:
    """Return the rule about a file of a group whose keys are to stand at the top of the config, or in the model."""
    package = f"# @package model.{group}" if group in {"optimizer", "scheduler"} else PACKAGE
    return f"without its first line '{package}' the keys of the file stand below {group!r}. Put that line first"


def _has_package(text: str) -> bool:
    """Return whether Hydra reads a package in a file: it stops at the first line that is no such comment."""
    return any(map(HEADER.search, takewhile(_HEADER_LINE.match, text.splitlines())))


def is_global(package: str) -> bool:
    """Return whether the name of a package is a mistyped `_global_`."""
    name = package.strip("_").lower()
    return package != "_global_" and bool(get_close_matches(name, ["global"], cutoff=0.8))


def is_unlisted(message: str) -> bool:
    """Return whether Hydra reports an override of a group that no defaults list has."""
    return "No match in the defaults list" in message or "Invalid Defaults List override" in message


def explain_choice(message: str, wanted: str, choice: Override, repository: IConfigRepository) -> str:
    """Return the rule about an override that chooses a group with a plus too many, or without one; else nothing."""
    group, options = choice.key_or_group, options_of(choice) or [""]
    if other := re.search(r"Did you mean to override (?:one of )?(.+?)\?", message):
        return f"{wanted} is not in the defaults list. Did you mean {' or '.join(map(repr, other[1].split(', ')))}?"
    if choice.is_add() and message.startswith(f"Multiple values for {group}."):
        return f"{group} is in the defaults list already. Write {group}={options[0]}"
    if wanted == group and is_unlisted(message) and repository.group_exists(group):
        right = f"+{group}{_package_of(group, repository)}={options[0]}"
        return f"{group} is not in the defaults list. Write {right}"
    return ""


def _lists(repository: IConfigRepository) -> list[list[str]]:
    """Return the groups of each primary config in the order of its defaults list."""
    names = repository.get_group_options("", results_filter=ObjectType.CONFIG)
    files = [file for name in names if (file := file_of(name, repository.get_sources())) is not None]
    matches = [map(_DEFAULT.match, file.read_text(encoding="utf-8").splitlines()) for file in files]
    return [[entry[3] for entry in entries if entry is not None] for entries in matches]


def _listed(repository: IConfigRepository) -> set[str]:
    """Return the groups in the defaults lists of the primary configs."""
    return {group for groups in _lists(repository) for group in groups}


def _explain_later(folder: str, entry: re.Match[str], repository: IConfigRepository) -> str:
    """Return the rule about an entry of a group that Hydra composes after its file; else nothing."""
    override, slash, group, package, option = entry.groups()
    own = folder.partition("/")[0]
    is_later = any(group in groups and own in groups[: groups.index(group)] for groups in _lists(repository))
    if not is_later or not (override or not slash or not package) or repository.group_exists(f"{folder}/{group}"):
        return ""
    for name in (option, *repository.get_group_options(group)):
        file = file_of(f"{group}/{name}", repository.get_sources())
        if file is not None and (header := HEADER.match(file.read_text(encoding="utf-8"))):
            right = f"- /{group}{package or '@' + header[1]}: {option}"
            return f"{group} comes after {own} in the defaults list. Write '{right}', above the entries with override"
    return ""


def _package_of(group: str, repository: IConfigRepository) -> str:
    """Return `@<key>` for a group that is not in the defaults list: files of other groups have a key of its name."""
    for other in sorted(_listed(repository)) if "/" not in group else ():
        for option in repository.get_group_options(other):
            file = file_of(f"{other}/{option}", repository.get_sources())
            if file is not None and isinstance(read_yaml(file).get(group), dict):
                return f"@{other}.{group}"
    return "" if "/" in group else "@<key of the config>"


def _explain_entry(message: str, folder: str, entry: re.Match[str], repository: IConfigRepository) -> str:
    """Return what is wrong with an entry of a defaults list that chooses a group of another folder; else nothing."""
    if rule := _explain_later(folder, entry, repository):
        return rule
    override, slash, group, package, option = entry.groups()
    low = _TOO_LOW.search(message)
    if low and not override and low[1] in {group, f"{folder}/{group}"} and low[2] == option:
        return "an entry without override stands below one with override. Put it above the overrides"
    is_listed = group in _listed(repository)
    added = f"- /{group}{package or _package_of(group, repository)}: {option}"
    if override and not is_listed and repository.group_exists(group):
        is_named = re.search(rf"override '/?({re.escape(folder)}/)?{re.escape(group)}\b", message) is not None
        if is_named and is_unlisted(message):
            return f"{group} is not in the defaults list. Write '{added}', above the entries with override"
    if not (override or slash) and repository.group_exists(group) and f"'{folder}/{group}/{option}'" in message:
        right = f"- override /{group}: {option}" if is_listed else added
        return f"a group of another folder needs a slash. Write '{right}'"
    return ""


def _explain_word(line: str) -> Iterator[str]:
    """Yield the rule about a word before a group that is neither `override` nor `optional`."""
    if word := _UNKNOWN_WORD.match(line):
        near = suggest_or_list(word[1], ("override", "optional"), "There is")
        yield f"{word[1]!r} is no word of a defaults list{near}"


def explain_defaults(
    message: str, repository: IConfigRepository, groups: Sequence[Override]
) -> Iterator[tuple[str, str]]:
    """Yield place and rule of an entry of a defaults list that lacks `override`, a slash or the package of its file."""
    blamed = blamed_config(message)
    several = re.search(r"Multiple values for ([^\s.]+)\. To override a value use 'override [^:]+: (.*)'", message)
    for config in dict.fromkeys([*([blamed] if blamed else []), *reversed(configs_of(groups))]):
        if (file := file_of(config, repository.get_sources())) is None:
            continue
        text = file.read_text(encoding="utf-8")
        has_package = _has_package(text)
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{shown_path(file)}:{number}: "
            if line.startswith("defaults:") and "defaults must be a list" in message and config == blamed:
                yield place, "defaults is a list. Begin each entry with a dash, e.g. '- override /data: mnist'"
            if (package := HEADER.match(line)) and _WANTS_OVERRIDE.search(message) and is_global(package[1]):
                yield place, f"the package of the whole config has underscores. Write '{PACKAGE}'"
            if (entry := _DEFAULT.match(line)) is None:
                yield from ((place, rule) for rule in _explain_word(line))
                continue
            if rule := _explain_entry(message, config.rpartition("/")[0], entry, repository):
                yield place, rule
                continue
            override, slash, group, _, option = entry.groups()
            right = f"Write '- override /{group}: {option}'"
            if several and not override and (group, option) == (several[1].partition("@")[0], several[2]):
                yield place, f"/{group} has a value already. {right}"
            elif not several and _WANTS_OVERRIDE.search(message) and override and group in groups_of(repository):
                if not slash:
                    header = "" if has_package else f", and '{PACKAGE}' as the first line"
                    yield place, f"a group of another folder needs a slash. {right}{header}"
                elif not has_package:
                    yield f"{shown_path(file)}:1: ", lacks_package(config.partition("/")[0])


def blamed_config(message: str) -> str | None:
    """Return the config that Hydra names in an error."""
    found = _FILE.search(message)
    return None if found is None else found[1] or found[2]


def explain_cycle(repository: IConfigRepository, groups: Sequence[Override]) -> str | None:
    """Return the line about an entry through which a config includes itself; None without one."""
    names = repository.get_group_options("", results_filter=ObjectType.CONFIG)
    seen: set[str] = set()
    found = (_cycle(config, [], repository, seen) for config in [*configs_of(groups), *names])
    cycle = next((trail for trail in found if trail), None)
    if cycle is None:
        return None
    holder, last = cycle[-2:]
    place, text = text_of_config(holder, repository.get_sources()) or ("", "")
    option = re.compile(rf"\b{re.escape(last.rpartition('/')[2])}\b")
    lines = enumerate(text.splitlines(), start=1)
    number = next((number for number, line in lines if not line.startswith("#") and option.search(line)), 1)
    trail = " -> ".join(cycle[cycle.index(last) :])
    return f"{place}:{number}: a config cannot include itself: {trail}. Remove the entry"


def _cycle(config: str, trail: list[str], repository: IConfigRepository, seen: set[str]) -> list[str] | None:
    """Return the configs from the first one to the one that closes a circle; None without one, for those in `seen`."""
    if config in trail:
        return [*trail, config]
    text = None if config in seen else (text_of_config(config, repository.get_sources()) or (None, None))[1]
    content = parse_yaml(text) if isinstance(text, str) else {}
    defaults = content.get("defaults")
    for parent in parents_of(defaults, config.rpartition("/")[0]) if isinstance(defaults, list) else ():
        if parent is not None and (found := _cycle(parent, [*trail, config], repository, seen)):
            return found
    seen.add(config)
    return None
