"""What Hydra refuses before a run starts, told in lines a user can act on: all bad overrides together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException, SearchPathException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import VERSION_BASE, ConfigLoaderImpl, IConfigRepository, get_args_parser
from fulgurite.config.origins import Origins
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import project_root
from fulgurite.validation.hydra_errors import HYDRA_ERRORS, chosen, compose_groups, one_line
from fulgurite.validation.overrides import apply, check_groups, describe_override, explain_several, parse
from fulgurite.validation.validate import find_problems


class PartialComposition(NamedTuple):
    """A composition that Hydra left half done.

    Args:
        loader: Hydra's own.
        repository: The configs it can reach; None when it did not come so far.
        cfg: Composed from all groups, with the overrides before the refused one; None when it did not come so far.
        refused: The override that stopped it; None when that is not what did.
    """

    loader: ConfigLoaderImpl
    repository: IConfigRepository | None
    cfg: DictConfig | None
    refused: str | None


def explain_composition(error: Exception, arguments: Sequence[str], config_name: str = "train") -> ConfigError | None:
    """Return everything that is wrong with a command line that Hydra refused.

    Args:
        error: What Hydra raised.
        arguments: The command line without the program, flags such as `-m` included.
        config_name: The primary config, where the command line names none.

    Returns:
        All findings; None when the error did not come from composing a config.
    """
    if not isinstance(error, HYDRA_ERRORS) or isinstance(error, InstantiationException):
        return None
    if isinstance(error, SearchPathException):
        return ConfigError([one_line(error)])
    try:
        flags, _ = get_args_parser().parse_known_args([text for text in arguments if text not in {"-h", "--help"}])
    except SystemExit:
        return None
    name = flags.config_name or config_name
    sweep = bool(flags.multirun) or any(text.lstrip("+") == "hydra.mode=MULTIRUN" for text in flags.overrides)
    stopped = _partial_composition(error)
    with _loader(stopped) as loader:
        findings = _examine(loader, name, flags.overrides, stopped, sweep=sweep)
    if not findings:
        return ConfigError([one_line(error)]) if isinstance(error, (HydraException, OmegaConfBaseException)) else None
    return ConfigError(findings)


def _partial_composition(error: Exception) -> PartialComposition | None:
    """Take Hydra's loader, and the config it was changing, out of the traceback: composing again costs 0.1 s of CPU."""
    found: PartialComposition | None = None
    trace = error.__traceback__
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_locals
        if code is ConfigLoaderImpl._load_configuration_impl.__code__:
            found = PartialComposition(names["self"], names.get("caching_repo"), names.get("cfg"), None)
        elif code is ConfigLoaderImpl._apply_overrides_to_config.__code__ and found is not None:
            override = names.get("override")
            found = found._replace(refused=override.input_line if isinstance(override, Override) else None)
        trace = trace.tb_next
    return found


@contextmanager
def _loader(stopped: PartialComposition | None) -> Iterator[ConfigLoaderImpl]:
    """Give Hydra's config loader: the one that stopped, the living one, or a new one for the time of the block."""
    state = GlobalHydra.instance()
    if stopped is not None:
        yield stopped.loader
    elif state.is_initialized():
        yield _of(state)
    else:
        with initialize_config_dir(config_dir=str(project_root() / "configs"), **VERSION_BASE):
            yield _of(state)


def _of(state: GlobalHydra) -> ConfigLoaderImpl:
    loader = state.config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    return loader


def _examine(
    loader: ConfigLoaderImpl, name: str, texts: Sequence[str], stopped: PartialComposition | None, *, sweep: bool
) -> list[str]:
    parsed, findings = parse(texts)
    repository = stopped.repository if stopped is not None else None
    if repository is None:
        readable = [override.input_line or "" for override in parsed]
        _, repository = loader._parse_overrides_and_create_caching_repo(name, readable)
    groups, keys, bad = check_groups(parsed, repository)
    findings += bad
    lines = [override.input_line or "" for override in keys]
    begun = None if sweep or findings else _usable(stopped)
    if begun is not None and stopped is not None and stopped.refused in lines:
        place = lines.index(stopped.refused)
        cfg, good, keys = begun, lines[:place], keys[place:]
    else:
        # where configs are looked for must be known before any group is
        fixed = [one.input_line or "" for one in keys if one.key_or_group == "hydra.searchpath"]
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
    used = [*chosen(groups, repository), *good, *applied]
    problems = find_problems(cfg, lambda: Origins.traced(loader, name, used))
    return findings + [problem.line for problem in problems if not _is_consequence(problem.key, texts, findings)]


def _usable(stopped: PartialComposition | None) -> DictConfig | None:
    """Return the config that was being changed, unless trying has made a plain value in it a dictionary."""
    if stopped is None or stopped.cfg is None or stopped.refused is None:
        return None
    holder = stopped.refused.lstrip("+~").partition("=")[0].rpartition(".")[0]
    node: Any = OmegaConf.select(stopped.cfg, holder, throw_on_missing=False) if holder else None
    return None if isinstance(node, DictConfig) and len(node) == 0 else stopped.cfg


def _is_consequence(key: str, texts: Sequence[str], findings: Sequence[str]) -> bool:
    """Tell whether a key is only open because the override that answers it was refused."""
    answers = [text for text in texts if text.lstrip("+~").partition("=")[0] == key]
    return any(answer in finding for answer in answers for finding in findings)
