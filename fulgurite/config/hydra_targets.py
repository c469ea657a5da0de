"""Allow-list for what Hydra itself instantiates: callbacks, launcher, sweeper and log handlers.

The deny-list of Hydra 1.3 lacks `shutil.copy` and `torch.hub.load`. The check is on the object, not on its name.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import LOADS, ConfigLoaderImpl, raw_node, unchecked
from fulgurite.config.left_out import leave_out_without_target
from fulgurite.config.override_text import without_null_groups
from fulgurite.config.target_policy import TargetNotFound, locate
from fulgurite.config.view import MISSING
from fulgurite.core.errors import ConfigError, did_you_mean
from fulgurite.sources.secrets import read_secret
from fulgurite.trust import composed, secrets
from fulgurite.trust.sources import begin_composition
from fulgurite.trust.targets import is_within
from fulgurite.trust.walk import leaves

PARTS = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")
CALLED = ("_target_", "()", "class")  # Hydra's key, and the two of logging.config
PACKAGES = ("hydra", "hydra_plugins", "optuna", "logging", "colorlog", "rich", "src", "fulgurite")


def guard_hydra_part() -> None:
    """Check the `hydra` node of every config that Hydra composes, and leave out the blocks without a target."""
    secrets.watch_secrets(read_secret)
    plain: Callable[..., DictConfig] = getattr(ConfigLoaderImpl, LOADS)
    if hasattr(plain, "__wrapped__"):
        return

    @wraps(plain)
    def load_configuration(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        texts = without_null_groups(overrides, self.repository.group_exists)
        sources = begin_composition(texts)
        cfg = plain(self, config_name, texts, *args, **kwargs)
        sources.check_composed(cfg)  # the others resolve values
        composed.check_composed(cfg, texts)
        check_hydra_part(cfg)
        leave_out_without_target(cfg)
        return cfg

    setattr(ConfigLoaderImpl, LOADS, load_configuration)


def check_hydra_part(cfg: DictConfig) -> None:
    """Refuse targets in the `hydra` node of a composed config that are not on the allow-list."""
    hydra = raw_node(cfg, "hydra")
    if not isinstance(hydra, DictConfig):
        return
    # a dictionary or a list below `class` or `()` is an ordinary argument
    findings = [
        f"{key}: {target!r} {problem}"
        for part in PARTS
        for key, target in leaves(_content(hydra, part), f"hydra.{part}")
        if key.rpartition(".")[2] in CALLED and (problem := _problem(target))
    ]
    findings = findings or [*_unknown_arguments(hydra)]
    if findings:
        raise ConfigError(findings)


def _content(hydra: DictConfig, part: str) -> dict[Any, Any]:
    node = raw_node(hydra, part)
    content = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
    return content if isinstance(content, dict) else {}


def _unknown_arguments(hydra: DictConfig) -> Iterator[str]:
    """Yield the arguments that the launcher or the sweeper does not take; Hydra's error is a traceback."""
    for part in ("launcher", "sweeper"):
        content = _content(hydra, part)
        module, _, name = str(content.get("_target_")).rpartition(".")
        if not module:
            continue
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        for key in map(str, content):
            if key not in parameters and not key.startswith("_"):
                near = did_you_mean(key, parameters) or f". It takes {', '.join(parameters) or 'none'}"
                yield f"hydra.{part}.{key}: {name} takes no such argument{near}"


def _problem(target: Any) -> str:
    """Return why Hydra may not instantiate a target, or an empty string."""
    refusal = f"is not a class of {', '.join(PACKAGES)}. Remove it, or put your class below src/"
    if target in (None, MISSING):
        return ""
    if not isinstance(target, str) or not is_within(target, PACKAGES):
        return refusal  # nothing else is imported
    try:
        found = locate(target)
    except TargetNotFound as error:
        module, _, name = target.rpartition(".")
        return f"{error}{did_you_mean(name, vars(sys.modules[module])) if module in sys.modules else ''}"
    return "" if inspect.isclass(found) and is_within(found.__module__, PACKAGES) else refusal


def make_part(node: Any, key: str) -> Any:
    """Instantiate a sampler, a pruner or a storage of a sweeper.

    Args:
        node: Config with a `_target_`.
        key: Its dotted key, for the message.
    """
    check_hydra_part(OmegaConf.create({"hydra": {"sweeper": node}}))
    try:
        return instantiate(node, _recursive_=True, _convert_="all", **unchecked())
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError([f"{key}: {node.get('_target_')} rejects its arguments: {reason}. Correct them"]) from error
