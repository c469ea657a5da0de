"""Check each override: its syntax, its group option, its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from hydra.core.override_parser.types import Glob, Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import IConfigRepository, apply_overrides, raw_node
from fulgurite.config.left_out import GROUPS, leave_out_for_overrides
from fulgurite.config.schema import describe_move
from fulgurite.config.tracing.settings import COMMAND_LINE, file_of, read_yaml
from fulgurite.config.view import MISSING, is_interpolation, paths_of
from fulgurite.core.errors import did_you_mean, suggest_or_list, suggest_path
from fulgurite.validation.explanations.group_options import (
    explain_option,
    groups_of,
    options_of,
    single,
    suggest_option,
)
from fulgurite.validation.explanations.other_names import suggest_other_name
from fulgurite.validation.explanations.override_syntax import join_divided, read_override
from fulgurite.validation.findings import Finding
from fulgurite.validation.signatures.signature import Signature, read_signature

NULL_DICTIONARY = "{} is null, and the command line cannot fill it. Set it in a config file"


def describe_override(override: str, rule: str) -> str:
    """Return the finding about one override as a line, with secrets masked."""
    key = override.partition("=")[0].lstrip("+~").strip()
    return Finding(key, rule, place=COMMAND_LINE + override).line


def parse(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Return the overrides that Hydra can parse, and a finding for each of the others."""
    good: list[Override] = []
    bad: list[str] = []
    for text, divided in join_divided(texts):
        read = divided or read_override(text)
        if isinstance(read, Override):
            good.append(read)
        else:
            bad.append(describe_override(text, read))
    return good, bad


def check_groups(
    overrides: Sequence[Override], repository: IConfigRepository
) -> tuple[list[Override], list[Override], list[str]]:
    """Return the valid overrides of groups, the overrides of keys, and a finding for each invalid group option."""
    groups: list[Override] = []
    keys: list[Override] = []
    bad: list[str] = []
    for override in overrides:
        group = override.key_or_group
        if isinstance(override.value(), dict) or not repository.group_exists(group):
            keys.append(override)
            continue
        if rule := _missing_option(override, repository):
            bad.append(describe_override(override.input_line or "", rule))
        else:
            groups.append(override)
    return groups, keys, bad


def _missing_option(override: Override, repository: IConfigRepository) -> str | None:
    """Return why a group option is invalid; None for a valid one."""
    group, value = override.key_or_group, cast(Any, override.value())
    options: list[str] = repository.get_group_options(group)
    if isinstance(value, Glob) and not value.filter(list(options)):
        return f"no {group} matches{suggest_or_list('', options, 'There is')}"
    if wrong := explain_option(group, value):
        return wrong
    named = options_of(override) if value is not None else None  # group=null composes none of its files
    unlisted = [option for option in named or () if option not in {*options, "null"}]  # of a folder or a web server
    missing = [option for option in unlisted if not repository.config_exists(f"{group}/{option}")]
    return f"there is no {group} {missing[0]!r}{suggest_option(group, missing[0], repository)}" if missing else None


def apply(
    overrides: Sequence[Override], cfg: DictConfig, repository: IConfigRepository, *, sweep: bool
) -> tuple[list[str], list[str]]:
    """Apply overrides of keys to `cfg`; return those that were applied, and a finding for each other.

    Args:
        overrides: Overrides of keys.
        cfg: The config composed from the groups, in struct mode; it is changed.
        repository: The config groups.
        sweep: Several values are several jobs.
    """
    good: list[str] = []
    bad: list[str] = []
    leave_out_for_overrides(overrides, cfg)  # of all of them: Hydra does so before it applies the first
    for override in overrides:
        text = override.input_line or ""
        if override.is_sweep_override() and not sweep:
            bad.append(describe_override(text, explain_several(override)))
            continue
        if rule := describe_move(text) or _blocked(override, cfg, repository):
            bad.append(describe_override(text, rule))
            continue
        try:
            one = single(override)
            if not one.is_sweep_override():  # only the key of an interval can be checked
                apply_overrides([one], cfg)
            elif not override.is_add() and OmegaConf.select(cfg, override.key_or_group) is None:
                raise ConfigCompositionException("Could not override")
            good.append(one.input_line or text)
        except (ConfigCompositionException, ValueError) as error:
            bad.append(describe_override(text, _explain(override, error, cfg, repository)))
    return good, bad


def _blocked(override: Override, cfg: DictConfig, repository: IConfigRepository) -> str | None:
    """Return the plain parent value that blocks an override; applying it would replace that by a dictionary."""
    if isinstance(override.value(), dict) and _is_null_dictionary(cfg, override.key_or_group):
        return NULL_DICTIONARY.format(override.key_or_group)
    holder = override.key_or_group.rpartition(".")[0]
    while holder and not override.is_delete():
        if _is_null_dictionary(cfg, holder):
            return NULL_DICTIONARY.format(holder)
        node = OmegaConf.select(cfg, holder, default=..., throw_on_missing=False, throw_on_resolution_failure=False)
        if node is not ... and OmegaConf.is_config(node):
            return None
        if node is not ... and not (node is None and (override.is_add() or override.is_force_add())):
            kind, key = "null" if node is None else "a value", override.key_or_group[len(holder) + 1 :]
            if isinstance(node, (bool, int, float)):
                near = suggest_path(override.key_or_group, _known_paths(override.key_or_group, cfg, repository))
                return f"{holder} is a value, so it has no {key!r}{near or '. Remove it'}"
            return f"{holder} is {kind}, so it has no {key!r}. Set all of it, '{holder}={{{key}: ...}}'"
        holder = holder.rpartition(".")[0]
    return None


def _is_null_dictionary(cfg: DictConfig, key: str) -> bool:
    """Return whether a key is a dictionary with a type that is null now, as `hydra.sweeper.params` of optuna."""
    holder, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, holder, throw_on_missing=False, throw_on_resolution_failure=False) if holder else cfg
    is_dictionary = isinstance(node, DictConfig) and isinstance(raw_node(node, name), DictConfig)
    return is_dictionary and OmegaConf.select(cfg, key, throw_on_resolution_failure=False) is None


def explain_several(override: Override, *, is_group: bool = False) -> str:
    """Return why an override of several values cannot be used in a single run."""
    key, _, value = (override.input_line or "").partition("=")
    a_list = f", or write '{key}=[{value}]' for a list" if "(" not in value and not is_group else ""
    return f"several values. Add -m to run one job each{a_list}"


def _explain(override: Override, error: Exception, cfg: DictConfig, repository: IConfigRepository) -> str:
    """Return why an override could not be applied."""
    message, key = str(error).splitlines()[0], override.key_or_group
    if message.startswith("Could not append"):
        return f"{key} is in the config already. Leave out the +"
    if isinstance(override.value(), dict) and OmegaConf.select(cfg, key, throw_on_missing=False) is not None:
        text = (override.input_line or "").lstrip("+~")
        return f"{key} lacks some of these keys. Add them with '+{text}', or replace it with '~{key}' '+{text}'"
    if message.startswith(("Could not override", "Could not delete")) or "looks like a config group" in message:
        return _explain_key(override, cfg, repository)
    cause = str(error.__cause__ or error).splitlines()[0]
    if "Cannot merge DictConfig with ListConfig" in cause:
        replacing = f"'~{key}' '+{override.input_line}'"
        return f"{key} is a dictionary. Add to it with +{key}.<name>=<value>, or replace it with {replacing}"
    return cause[:1].lower() + cause[1:]


def _explain_key(override: Override, cfg: DictConfig, repository: IConfigRepository) -> str:
    key, text = override.key_or_group, (override.input_line or "").lstrip("+~")
    holder, _, name = key.rpartition(".")
    if repository.group_exists(key):
        return f"{key} chooses a file of configs/{key} by name. Write {key}=<name>"
    takes = _parameters(cfg, holder)
    if name in takes and not override.is_delete():
        return f"not in the config yet. Add it with +{text}"
    if choice := _choice_of(override, cfg, repository):
        return choice
    paths = [*_known_paths(key, cfg, repository), *(f"{holder}.{parameter}" for parameter in takes)]
    near = suggest_other_name(key, paths) or suggest_path(key, paths)
    if holder.partition(".")[0] == "vars" and not near and not override.is_delete():
        return f"not in the config yet. Add it with +{text}"
    here = OmegaConf.to_container(node, resolve=False) if (node := _at(cfg, holder)) is not None else None
    if near or not isinstance(here, dict):
        return f"there is no such key{near or did_you_mean(holder, paths)}"
    names = [*(str(key) for key in here if not str(key).startswith("_")), *sorted({*takes} - {*here})]
    return f"there is no such key{suggest_or_list(name, names, f'{holder} has') if holder else ''}"


def _known_paths(key: str, cfg: DictConfig, repository: IConfigRepository) -> list[str]:
    """Return the keys that a key may be a mistyped form of: Hydra's own only for one of them."""
    paths = paths_of(OmegaConf.to_container(cfg, resolve=False))
    is_of_hydra = key.partition(".")[0] == "hydra"
    known = [path for path in paths if is_of_hydra or not path.startswith("hydra.")]
    return known if "." in key else [*known, *groups_of(repository)]


def _choice_of(override: Override, cfg: DictConfig, repository: IConfigRepository) -> str:
    """Return the rule about a key below a file of a group that is not chosen, such as callbacks.ema.decay."""
    group, _, name = override.key_or_group.partition(".")
    name = name.partition(".")[0]
    options = repository.get_group_options(group) if name else []
    if override.is_delete() or OmegaConf.select(cfg, f"{group}.{name}", throw_on_missing=False) is not None:
        return ""
    if name == "_target_" and group in GROUPS:
        kind = str(override.value()).rpartition(".")[2]
        files = ((option, file_of(f"{group}/{option}", repository.get_sources())) for option in options)
        blocks = ((option, block) for option, file in files if file for block in read_yaml(file).values())
        targets = {option: block.get("_target_") for option, block in blocks if isinstance(block, dict)}
        same = [option for option, target in targets.items() if str(target).rpartition(".")[2] == kind]
        remedy = (
            f"Choose one with {_chosen_by(group, same[0])}" if same else f"Add one with +{group}.<name>._target_=..."
        )
        return f"{group} holds several {GROUPS[group]}s, each below its name. {remedy}"
    return f"{name} is not chosen. Choose it with {_chosen_by(group, name)}" if name in options else ""


def _chosen_by(group: str, option: str) -> str:
    return f"{group}=[default,{option}]" if group == "callbacks" else f"{group}={option}"


def _at(cfg: DictConfig, key: str) -> DictConfig | None:
    node: Any = OmegaConf.select(cfg, key, throw_on_missing=False, throw_on_resolution_failure=False) if key else cfg
    return node if isinstance(node, DictConfig) else None


def _parameters(cfg: DictConfig, holder: str) -> list[str]:
    """Return the parameters of the target of a block."""
    node = _at(cfg, holder) if holder else None
    block = OmegaConf.to_container(node, resolve=False) if node is not None else {}
    target = block.get("_target_") if isinstance(block, dict) else None
    is_plain = isinstance(target, str) and not is_interpolation(target) and target != MISSING
    signature = read_signature(str(target)) if is_plain else None
    return list(signature.parameters) if isinstance(signature, Signature) else []
