"""Turn Hydra's errors in config files into messages with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from hydra.conf import HydraConf
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import ConfigLoaderImpl, IConfigRepository
from fulgurite.config.left_out import CONFLICT
from fulgurite.config.origins import file_of, read_yaml, shown_path
from fulgurite.core.errors import did_you_mean, suggest_or_list
from fulgurite.validation.findings import HEADER, PACKAGE, is_global, lacks_package
from fulgurite.validation.overrides import describe_override, groups_of, options_of, single

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
_FILE = re.compile(r"In '?([^':]+)'?: |Invalid defaults list in '([^']+)'")
# an entry of a defaults list
_DEFAULT = re.compile(r"\s*-\s+(?:optional\s+)?(override\s+)?(/)?([\w/]+)(@\S+)?:\s*([^\s#]+)")
_TOO_LOW = re.compile(r"is defined before '([^'@:]+)[^':]*: ([^']+)'")  # an entry below an override
_WANTS_OVERRIDE = re.compile(r"Could not override '|No match in the defaults list|Invalid Defaults List override")
_OPTION = re.compile(
    r"Could not (?:find|load) '([^']+)'|Could not override '([^']+)'|Invalid Defaults List override '([^':]+)"
)  # the last form is that of Hydra 1.4


def compose_groups(
    loader: ConfigLoaderImpl, repository: IConfigRepository, name: str, groups: list[Override], fixed: Sequence[str]
) -> tuple[DictConfig | None, list[Override], list[str]]:
    """Compose the group options, without those whose file cannot be composed."""
    findings: list[str] = []
    while True:
        texts = [*fixed, *chosen(groups, repository)]
        try:
            return loader.load_configuration(name, texts, RunMode.RUN, validate_sweep_overrides=False), groups, findings
        except HYDRA_ERRORS as error:
            culprit = _offending_override(loader, repository, name, groups, fixed, str(error))
            place, rule = _explain_file(error, repository, [culprit] if culprit else groups)
            if culprit is None:
                return None, groups, [*findings, place + rule]
            findings.append(place + rule if place else describe_override(culprit.input_line or "", rule))
            groups = [group for group in groups if group is not culprit]


def chosen(groups: Sequence[Override], repository: IConfigRepository) -> list[str]:
    """Return the group overrides of one job: the first option of a sweep."""
    return [single(group, repository.get_group_options(group.key_or_group)).input_line or "" for group in groups]


def _offending_override(
    loader: ConfigLoaderImpl, repository: IConfigRepository, name: str, groups: Sequence[Override],
    fixed: Sequence[str], message: str,
) -> Override | None:  # fmt: skip
    """Return the group override that caused the error: the message names it, or its removal fixes the error."""
    for group in groups:
        if any(f"{group.key_or_group}/{option}" in message for option in options_of(group) or ()):
            return group
    for group in groups:
        texts = [*fixed, *chosen([other for other in groups if other is not group], repository)]
        try:
            loader.load_configuration(name, texts, RunMode.RUN, validate_sweep_overrides=False)
        except HYDRA_ERRORS:
            continue
        return group
    return None


def _explain_file(error: Exception, repository: IConfigRepository, groups: Sequence[Override]) -> tuple[str, str]:
    """Return place and rule of an error in a config file; the place is empty if unknown."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{shown_path(Path(mark.name))}:{mark.line + 1}: " if mark else ""
        return place, f"not valid YAML: {error.problem}. Correct the line"
    message = str(error)
    if written := next(_explain_defaults(message, repository, groups), None):
        return written
    wanted = next(((found[1] or found[2] or found[3]).lstrip("/") for found in _OPTION.finditer(message)), None)
    place = _place(wanted, message, repository, groups)
    if isinstance(error, MissingConfigException) and wanted:
        group, _, option = wanted.rpartition("/")
        near = suggest_or_list(option, repository.get_group_options(group), "There is")
        return place, f"there is no {group or 'config'} {option!r}{near}"
    if groups and (rule := _explain_choice(message, wanted or "", groups[0], repository)):
        return place, rule
    if wanted and _is_unlisted(message):
        near = suggest_or_list(wanted, groups_of(repository), "There is")
        return place, f"overrides a group that does not exist: {wanted!r}{near}"
    return place, one_line(error)


def _is_unlisted(message: str) -> bool:
    return "No match in the defaults list" in message or "Invalid Defaults List override" in message


def _explain_choice(message: str, wanted: str, choice: Override, repository: IConfigRepository) -> str:
    """Return the rule about an override that chooses a group with a plus too many, or without one; else nothing."""
    group, options = choice.key_or_group, options_of(choice) or [""]
    if choice.is_add() and message.startswith(f"Multiple values for {group}."):
        return f"{group} is in the defaults list already. Write {group}={options[0]}"
    if wanted == group and _is_unlisted(message) and repository.group_exists(group):
        right = f"+{group}{_package_of(group, repository)}={options[0]}"
        return f"{group} is not in the defaults list. Write {right}"
    return ""


def _listed(repository: IConfigRepository) -> set[str]:
    """Return the groups in the defaults lists of the primary configs."""
    names = repository.get_group_options("", results_filter=ObjectType.CONFIG)
    files = [file for name in names if (file := file_of(name, repository.get_sources())) is not None]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {entry[3] for line in lines if (entry := _DEFAULT.match(line)) is not None}


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
    override, slash, group, package, option = entry.groups()
    low = _TOO_LOW.search(message)
    if low and not override and low[1] in {group, f"{folder}/{group}"} and low[2] == option:
        return "an entry without override stands below one with override. Put it above the overrides"
    is_listed = group in _listed(repository)
    added = f"- /{group}{package or _package_of(group, repository)}: {option}"
    if override and not is_listed and repository.group_exists(group):
        is_named = re.search(rf"override '/?({re.escape(folder)}/)?{re.escape(group)}\b", message) is not None
        if is_named and _is_unlisted(message):
            return f"{group} is not in the defaults list. Write '{added}', above the entries with override"
    if not (override or slash) and repository.group_exists(group) and f"'{folder}/{group}/{option}'" in message:
        right = f"- override /{group}: {option}" if is_listed else added
        return f"a group of another folder needs a slash. Write '{right}'"
    return ""


def _explain_defaults(
    message: str, repository: IConfigRepository, groups: Sequence[Override]
) -> Iterator[tuple[str, str]]:
    """Yield place and rule of an entry of a defaults list that lacks `override`, a slash or the package of its file."""
    blamed = _blamed(message)
    named = [f"{group.key_or_group}/{option}" for group in groups for option in options_of(group) or ()]
    several = re.search(r"Multiple values for ([^\s.]+)\. To override a value use 'override [^:]+: (.*)'", message)
    for config in dict.fromkeys([*([blamed] if blamed else []), *reversed(named)]):
        if (file := file_of(config, repository.get_sources())) is None:
            continue
        text = file.read_text(encoding="utf-8")
        has_package = re.search(r"^#\s*@package", text, re.MULTILINE) is not None
        for number, line in enumerate(text.splitlines(), start=1):
            place = f"{shown_path(file)}:{number}: "
            if line.startswith("defaults:") and "defaults must be a list" in message and config == blamed:
                yield place, "defaults is a list. Begin each entry with a dash, e.g. '- override /data: mnist'"
            if (package := HEADER.match(line)) and _WANTS_OVERRIDE.search(message) and is_global(package[1]):
                yield place, f"the package of the whole config has underscores. Write '{PACKAGE}'"
            if (entry := _DEFAULT.match(line)) is None:
                continue
            if rule := _explain_entry(message, config.rpartition("/")[0], entry, repository):
                yield place, rule
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


def _blamed(message: str) -> str | None:
    """Return the config that Hydra names in an error."""
    found = _FILE.search(message)
    return None if found is None else found[1] or found[2]


def _place(word: str | None, message: str, repository: IConfigRepository, groups: Sequence[Override]) -> str:
    """Return the line that contains `word` in a file chosen on the command line or named by Hydra."""
    blamed = _blamed(message)
    named = [f"{group.key_or_group}/{option}" for group in groups for option in options_of(group) or ()]
    conflict = message.partition(CONFLICT)[2].rpartition(".")[2]
    last = conflict or (word or "").rpartition("/")[2]
    for config in [*reversed(named), *([blamed] if blamed else [])]:
        file = file_of(config, repository.get_sources())
        if file is None:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if last and re.search(rf"(?<![\w-]){re.escape(last)}(?![\w-])", line.partition("#")[0]):
                return f"{shown_path(file)}:{number}: "
        if blamed and config == blamed:
            return f"{shown_path(file)}: "
    return ""


def one_line(error: Exception) -> str:
    """Return the first line of an error that states a reason, and that of its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    message = re.sub(r"^In '[^']+': ", "", " ".join(lines) if lines[0].startswith("Could not") else lines[0])
    if message.endswith("while composing config:") and len(lines) > 1:
        message = lines[1]
    if "Could not" not in message:
        key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
        if "'HydraConf'" in message:
            message += did_you_mean(key, [f"hydra.{part.name}" for part in fields(HydraConf)])
        message = f"{key}: {message}" if key else message
    if "Cannot merge DictConfig with ListConfig" in message or "Cannot merge incompatible container" in message:
        message = (
            "a list stands where the config has a dictionary, or the other way round. Write it as the other files do"
        )
    cause = str(error.__cause__).splitlines()[0] if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return f"{message}: {cause}" if cause and cause not in message else message
