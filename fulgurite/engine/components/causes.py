"""Explain in one line why a component rejects its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from traceback import walk_tb
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.target_policy import locate
from fulgurite.config.view import leaves
from fulgurite.core.errors import ConfigError, suggest_or_list
from fulgurite.validation.findings import Finding, with_places

UNUSED = "trainer.strategy.find_unused_parameters"
UNUSED_BY_NAME = "trainer.strategy=ddp_find_unused_parameters_true"
# Errors of torch and Lightning, and what the user does about them.
USAGE = {
    "Expected to have finished reduction|parameters that were not used in producing the loss": (
        "the loss does not depend on all parameters, whose gradients DDP waits for. Set {unused}"
    ),
    r"can't inject a \(distributed\) sampler|Trying to inject a modified sampler": (
        "trainer.use_distributed_sampler: Lightning cannot divide the batches of your batch sampler over the "
        "processes. Let it yield those of its rank only, and set +trainer.use_distributed_sampler=false"
    ),
    r"multiple `\w+`, but no `dataloader_idx` argument in `([^`]+)\(\)`": (
        "{0}: there are several loaders. Add the argument dataloader_idx=0 to it"
    ),
    r"only a single `\w+`, but have included `dataloader_idx` in `([^`]+)\(\)`": (
        "{0}: there is one loader only. Give its argument dataloader_idx the default 0"
    ),
}


# How a message names an argument, the surest first.
_NAMES_IT = (r"^(?i:{name}) ", r"[`'\"]{name}[`'\"]|\b{name}=", r"\b{name}\b", r"(?<![\w.]){value}(?![\w.]\w)")


def first_cause(error: Exception, key: str, node: Any) -> Exception:
    """Return the error that Hydra's InstantiationException wraps; as a ConfigError for rejected arguments."""
    cause = error.__cause__
    is_rejection = isinstance(cause, (TypeError, ValueError)) or type(cause).__name__ == "MisconfigurationException"
    if type(error).__name__ == "InstantiationException" and cause is not None:
        found = next(_enum_findings(cause, key, node), None) or _unknown_name(cause, key, node)
        if found or is_rejection:
            return ConfigError([found or rejection(cause, key, node)])
    return cause if isinstance(cause, Exception) else error


def _unknown_name(cause: BaseException, key: str, node: Any) -> str | None:
    """Return one line about a name that a registry lacks, such as timm's: its error contains the name only."""
    if not isinstance(cause, (LookupError, RuntimeError)):
        return None
    message = (str(cause).splitlines() or [""])[0]
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    found = [
        Finding(path, f"{type(cause).__name__}: {message}", value).line
        for path, value in leaves(plain, key)
        if isinstance(value, str) and len(value) > 2 and not path.endswith("_target_")
        and re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.]\w)", message)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def rejection(cause: BaseException, key: str, node: Any) -> str:
    """Return one line about rejected arguments, with the key of the one that the message names.

    `node` is the config of the component `key`, or its plain arguments.
    """
    message = (str(cause).splitlines() or [""])[0]
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    values = dict(leaves(plain, key))
    for pattern in _NAMES_IT:
        found = [
            path for path, value in values.items() if re.search(_filled(pattern, path, value), message, re.IGNORECASE)
        ]
        if len(found) == 1:
            return Finding(found[0], message, values[found[0]]).line
    return f"{key}: {type(cause).__name__}: {message}"


def _filled(pattern: str, path: str, value: Any) -> str:
    name, text = path.rpartition(".")[2].partition("[")[0], str(value)
    return pattern.format(name=re.escape(name), value=re.escape(text) if len(text) > 1 else "(?!)")


def addition(cfg: DictConfig, key: str) -> str:
    """Return a key as an override sets it: with a plus unless the config has it, since Hydra refuses a plus then."""
    holder, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, holder)
    return key if isinstance(node, DictConfig) and name in node else f"+{key}"


def explain_usage(error: BaseException, cfg: DictConfig | None) -> str | None:
    """Return one line about an error that a setting or an argument of the user's code prevents; None for others."""
    message = str(error)
    for pattern, rule in USAGE.items():
        if (found := re.search(pattern, message)) is not None:
            setting = UNUSED_BY_NAME
            if cfg is not None and isinstance(OmegaConf.select(cfg, "trainer.strategy"), DictConfig):
                setting = f"{addition(cfg, UNUSED)}=true"
            return rule.format(*found.groups(), unused=setting)
    if cfg is None or not isinstance(error, (TypeError, ValueError)):
        return None
    return next(_rejected_later(error, cfg), None)


def _rejected_later(error: TypeError | ValueError, cfg: DictConfig) -> Iterator[str]:
    """Yield the optimizer or scheduler of torch that rejects its arguments when the model makes it."""
    last = [frame for frame, _ in walk_tb(error.__traceback__)][-1:]
    of_torch = [frame for frame in last if str(frame.f_globals.get("__name__")).startswith("torch.optim.")]
    kinds = {type(frame.f_locals["self"]) for frame in of_torch if "self" in frame.f_locals}  # also of the user's own
    names = {kind.__name__ for kind in kinds}
    lacking = re.match(r"(\w+)\.__init__\(\) missing \d+ required", str(error))
    for path, target in leaves(OmegaConf.to_container(cfg, resolve=False)):
        key, _, name = path.rpartition(".")
        last_name = str(target).rpartition(".")[2]
        if name != "_target_" or not (last_name in names or str(target).startswith("torch.optim.")):
            continue
        kind = locate(str(target))
        if kind in kinds or (lacking is not None and lacking[1] == kind.__name__):
            yield from with_places([rejection(error, key, OmegaConf.select(cfg, key))], cfg)


def _enum_findings(cause: BaseException, key: str, node: Any) -> Iterator[str]:
    """Yield the keys of a value that an Enum does not have, with its choices."""
    frames = walk_tb(cause.__traceback__)
    for kind in dict.fromkeys(frame.f_locals.get("cls") for frame, _ in frames if "cls" in frame.f_locals):
        if not (isinstance(kind, type) and issubclass(kind, Enum)):
            continue
        choices = [str(member.value) for member in kind]
        for path, value in leaves(OmegaConf.to_container(node, resolve=True), key):
            if str(cause) == f"{value!r} is not a valid {kind.__qualname__}":
                near = suggest_or_list(str(value), choices, "It has")
                yield Finding(path, f"is not a value of {kind.__name__}{near}", value).line
