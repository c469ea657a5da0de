"""Turn Hydra's errors in config files into messages with file and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from fulgurite.compat.hydra import ConfigLoaderImpl, IConfigRepository
from fulgurite.config.left_out import CONFLICT, GROUPS
from fulgurite.config.tracing.settings import file_of, read_yaml, shown_path
from fulgurite.core.errors import did_you_mean, suggest_or_list
from fulgurite.validation.explanations.defaults_lists import (
    blamed_config,
    explain_choice,
    explain_defaults,
    is_unlisted,
)
from fulgurite.validation.explanations.group_options import (
    configs_of,
    explain_list,
    groups_of,
    single,
    suggest_option,
)
from fulgurite.validation.overrides import describe_override

# RecursionError: of a config that includes itself
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError)
_LONG = ("Could not", "Primary config directory not found")  # messages whose other lines are needed, too
CONTAINERS = "a list stands where the config has a dictionary, or the other way round. Write it as the other files do"
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
        if any(config in message for config in configs_of([group])):
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
    if written := next(explain_defaults(message, repository, groups), None):
        return written
    if CONFLICT in message:
        return _explain_conflict(message, repository)
    if unknown_field(error.__cause__ or error):
        return _place(vars(error.__cause__ or error)["key"], message, repository, groups), one_line(error)
    wanted = next(((found[1] or found[2] or found[3]).lstrip("/") for found in _OPTION.finditer(message)), None)
    place = _place(wanted, message, repository, groups)
    if isinstance(error, MissingConfigException) and wanted:
        group, _, option = wanted.rpartition("/")
        if not repository.group_exists(group):  # the folder is mistyped
            group, _, option = wanted.partition("/")
        # an entry is relative to the group of the config that has it, which need not be its folder
        is_relative = (blamed_config(message) or "").startswith(f"{group}/")
        near = suggest_option(group, option, repository, f"/{group}/" if is_relative else "")
        return place, f"there is no {group or 'config'} {option!r}{near}"
    if groups and (rule := explain_choice(message, wanted or "", groups[0], repository)):
        return place, rule
    if wanted and is_unlisted(message):
        near = suggest_or_list(wanted, groups_of(repository), "There is")
        return place, f"overrides a group that does not exist: {wanted!r}{near}"
    return place, one_line(error)


def _explain_conflict(message: str, repository: IConfigRepository) -> tuple[str, str]:
    """Return place and rule of a key that is a list in one file and a dictionary in another."""
    key, file = message.partition(CONFLICT)[2], file_of(blamed_config(message) or "", repository.get_sources())
    if file is None:
        return "", f"{key}: {CONTAINERS}"
    last = re.compile(rf"\s*(- )?{re.escape(key.rpartition('.')[2])}\s*:")
    lines = [number for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1) if last.match(line)]
    place, value = f"{shown_path(file)}:{lines[-1] if lines else 1}: {key}: ", read_yaml(file).get(key)
    return place, explain_list(key, value) if key in GROUPS and isinstance(value, list) else CONTAINERS


def _place(word: str | None, message: str, repository: IConfigRepository, groups: Sequence[Override]) -> str:
    """Return the line that contains `word` in a file chosen on the command line or named by Hydra."""
    blamed = blamed_config(message)
    last = (word or "").rpartition("/")[2]
    for config in [*reversed(configs_of(groups)), *([blamed] if blamed else [])]:
        file = file_of(config, repository.get_sources())
        if file is None:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if last and re.search(rf"(?<![\w-]){re.escape(last)}(?![\w-])", line.partition("#")[0]):
                return f"{shown_path(file)}:{number}: "
        if blamed and config == blamed:
            return f"{shown_path(file)}: "
    return ""


def unknown_field(error: BaseException) -> str:
    """Return which key was meant by one that the schema of a part of Hydra lacks; empty for other errors."""
    schema: Any = vars(error).get("object_type") if isinstance(error, ConfigKeyError) else None
    if not is_dataclass(schema):
        return ""
    parent, _, name = str(vars(error).get("full_key")).rpartition(".")
    known = [field.name for field in fields(schema)]
    return did_you_mean(name, known) or f". {parent} has {', '.join(known)}"


def one_line(error: Exception) -> str:
    """Return the first line of an error that states a reason, and that of its cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RecursionError):
        return "a defaults list includes its own config, or is nested too deeply. Remove that entry"
    message = re.sub(r"^In '[^']+': ", "", " ".join(lines) if lines[0].startswith(_LONG) else lines[0])
    if message.endswith("while composing config:") and len(lines) > 1:
        message = lines[1]
    if "Could not" not in message:
        key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), "")
        if unknown := unknown_field(error.__cause__ or error):
            return f"{key}: there is no such key{unknown}"
        message = f"{key}: {message}" if key else message
    if "Cannot merge DictConfig with ListConfig" in message or "Cannot merge incompatible container" in message:
        message = CONTAINERS
    cause = str(error.__cause__).splitlines()[0] if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return f"{message}: {cause}" if cause and cause not in message else message
