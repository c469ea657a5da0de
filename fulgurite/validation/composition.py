"""Explain Hydra's composition errors: all wrong overrides and keys together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    SearchPathException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import (
    VERSION_BASE,
    ConfigLoaderImpl,
    LoaderState,
    config_repository,
    get_args_parser,
    loader_state,
)
from fulgurite.config.compose import compose
from fulgurite.config.left_out import leave_out_without_target
from fulgurite.config.origins import Origins
from fulgurite.core.errors import ConfigError, suggest_or_list
from fulgurite.core.project import project_root
from fulgurite.validation.explanations.defaults_lists import explain_cycle
from fulgurite.validation.hydra_errors import HYDRA_ERRORS, chosen, compose_groups, one_line
from fulgurite.validation.overrides import apply, check_groups, describe_override, explain_several, parse
from fulgurite.validation.validate import find_problems, require_valid

_UNKNOWN_SOURCE = re.compile(r"No config source registered for schema (\S+), supported types : \[(.*)\]")


def explain_composition(error: Exception, arguments: Sequence[str], config_name: str = "train") -> ConfigError | None:
    """Return all errors of a command line that Hydra refused; None if composing a config did not raise the error.

    Args:
        error: Hydra's error.
        arguments: The command line without the program, including flags such as `-m`.
        config_name: The primary config without `--config-name`.
    """
    # TypeError: Hydra joins the name of a group and an option that is no text; the others: it fills a null dictionary
    expected = (*HYDRA_ERRORS, TypeError, AttributeError, AssertionError)
    if not isinstance(error, expected) or isinstance(error, InstantiationException):
        return None
    if isinstance(error, SearchPathException):
        return ConfigError([one_line(error)])
    if isinstance(error, MissingConfigException) and (
        wanted := re.match("Cannot find primary config '(.+?)'", str(error))
    ):
        names = [file.stem for file in sorted((project_root() / "configs").glob("*.yaml"))]
        near = suggest_or_list(wanted[1], names, "There is")
        return ConfigError([f"--config-name={wanted[1]}: there is no configs/{wanted[1]}.yaml{near}"])
    try:
        flags, _ = get_args_parser().parse_known_args([text for text in arguments if text not in {"-h", "--help"}])
    except SystemExit:
        return None
    name = flags.config_name or config_name
    sweep = bool(flags.multirun) or any(text.lstrip("+") == "hydra.mode=MULTIRUN" for text in flags.overrides)
    state = loader_state(error)
    with _loader(state) as loader:
        findings = _examine(loader, name, flags.overrides, state, sweep=sweep)
        if not findings and state is not None and state.override not in {None, *flags.overrides}:
            # a sweeper of Hydra's own, such as optuna, added it for a job
            findings = _examine(loader, name, [*flags.overrides, str(state.override)], state, sweep=sweep)
    if not findings:
        return ConfigError([one_line(error)]) if isinstance(error, (HydraException, OmegaConfBaseException)) else None
    return ConfigError(findings)


def compose_valid(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of a training run, and refuse it as `src/train.py` does.

    Raises:
        ConfigError: All wrong overrides and keys together, one line each.
    """
    cfg = compose_explained(overrides)
    require_valid(cfg)
    return cfg


def compose_explained(overrides: Sequence[str]) -> DictConfig:
    """Compose the config of a training run.

    Raises:
        ConfigError: Hydra refused overrides; all of them together, one line each.
    """
    try:
        return compose(overrides)
    except Exception as error:
        if explained := explain_composition(error, overrides):
            raise explained from error
        raise


@contextmanager
def _loader(state: LoaderState | None) -> Iterator[ConfigLoaderImpl]:
    """Yield Hydra's config loader: of the failed composition, of this process, or a new one."""
    hydra = GlobalHydra.instance()
    if state is not None:
        yield state.loader
    elif hydra.is_initialized():
        yield cast("ConfigLoaderImpl", hydra.config_loader())
    else:
        with initialize_config_dir(config_dir=str(project_root() / "configs"), **VERSION_BASE):
            yield cast("ConfigLoaderImpl", hydra.config_loader())


def _examine(
    loader: ConfigLoaderImpl, name: str, texts: Sequence[str], state: LoaderState | None, *, sweep: bool
) -> list[str]:
    parsed, findings = parse(texts)
    readable = [override.input_line or "" for override in parsed]
    try:
        repository = (state.repository if state else None) or config_repository(loader, name, readable)
    except (ValueError, ConfigCompositionException) as error:
        paths = [one.input_line or "" for one in parsed if one.key_or_group == "hydra.searchpath"]
        path = (paths or ["hydra.searchpath"])[-1]
        return [*findings, describe_override(path, _explain_search_path(one_line(error)))]
    groups, keys, bad = check_groups(parsed, repository)
    findings += bad
    if cycle := explain_cycle(repository, groups):
        return [*findings, cycle]
    lines = [override.input_line or "" for override in keys]
    partial = None if sweep or findings else _usable(state)
    if partial is not None and state is not None and state.override in lines:
        position = lines.index(state.override)
        cfg, good, keys = partial, lines[:position], keys[position:]
    else:
        # these must be set before any group is loaded
        fixed = [one.input_line or "" for one in keys if one.key_or_group in {"hydra.searchpath", "trust"}]
        fresh, groups, bad = compose_groups(loader, repository, name, groups, fixed)
        findings += bad
        if fresh is None:
            return findings
        cfg, good = fresh, []
    sweep = sweep or OmegaConf.select(cfg, "hydra.mode") == RunMode.MULTIRUN
    several = [one for one in groups if one.is_sweep_override() and not sweep]
    findings += [describe_override(one.input_line or "", explain_several(one, is_group=True)) for one in several]
    applied, bad = apply(keys, cfg, repository, sweep=sweep)
    findings += bad
    leave_out_without_target(cfg)  # as in a config without errors
    used = [*chosen(groups, repository), *good, *applied]
    problems = find_problems(cfg, lambda: Origins.traced(loader, name, used))
    return findings + [problem.line for problem in problems if not _is_consequence(problem.key, texts, findings)]


def _explain_search_path(message: str) -> str:
    """Return what is wrong with a `hydra.searchpath` that Hydra refused with a message, and what to do."""
    if unknown := _UNKNOWN_SOURCE.search(message):
        near = suggest_or_list(unknown[1], unknown[2].split(", "), "There is")
        return f"no kind of source is named {unknown[1]!r}{near}"
    if "must be a list" in message:
        return "is not a list of addresses. Write e.g. [https://<host>/configs]"
    return f"{message}. Correct the address"


def _usable(state: LoaderState | None) -> DictConfig | None:
    """Return the config of the failed composition, unless the failed override made a plain value a dictionary."""
    if state is None or state.cfg is None or state.override is None:
        return None
    holder = state.override.lstrip("+~").partition("=")[0].rpartition(".")[0]
    while holder:
        node: Any = OmegaConf.select(state.cfg, holder, throw_on_missing=False)
        if isinstance(node, DictConfig) and len(node) == 0:
            return None
        holder = holder.rpartition(".")[0]
    return state.cfg


def _is_consequence(key: str, texts: Sequence[str], findings: Sequence[str]) -> bool:
    """Return whether a key is missing only because its override was refused."""
    overrides = [text for text in texts if text.lstrip("+~").partition("=")[0] == key]
    return any(override in finding for override in overrides for finding in findings)
