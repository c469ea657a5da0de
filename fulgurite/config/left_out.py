"""Leave out of a config the keys that were written for a class which a later file or override replaces.

OmegaConf merges files key by key: without this, an experiment that names another net would pass it the arguments of
the shipped one. Blocks of `callbacks` and `logger` that name no class, such as settings of a logger that is off, are
left out too. The rest of a composition is Hydra's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, wraps
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from fulgurite.compat.hydra import APPLIES, COMPOSES, ConfigLoaderImpl, raw_node
from fulgurite.config.tags import merge_tags, switch_tags
from fulgurite.config.target_policy import TargetNotFound
from fulgurite.config.target_policy import locate as locate_object
from fulgurite.config.tracing.settings import file_of, read_yaml, shown_path
from fulgurite.config.view import MISSING, is_interpolation
from fulgurite.core.context import current_context
from fulgurite.core.project import project_root
from fulgurite.core.rank_logging import RankedLogger
from fulgurite.trust.expansion import check_expansion
from fulgurite.trust.sources import current_sources
from fulgurite.trust.targets import rejection_of
from fulgurite.trust.walk import join
from fulgurite.validation.signatures.annotations import Match, match, rejects
from fulgurite.validation.signatures.replaced import lacks_argument, replaces_container
from fulgurite.validation.signatures.resolve import locate
from fulgurite.validation.signatures.signature import Parameter, Signature, read_signature, signature_of
from fulgurite.validation.signatures.source import NotFound

Block = Mapping[str, Any]
OF_HYDRA = ("_partial_", "_convert_", "_recursive_", "_args_")  # keys beside _target_ that Hydra itself reads
CONFLICT = "cannot be merged: "  # and the key that is a list in one file and a dictionary in another
# Keys that the files of configs/debug set only where the class takes them: (part, key).
OF_DEBUG = (("data", "num_workers"), ("data", "pin_memory"), ("model", "compile"))

GROUPS = {"callbacks": "callback", "logger": "logger"}
# Similarity from which on a name is a mistyped one: csvv and csv, but not progress_bar and rich_progress_bar.
TYPO = 0.85

log = RankedLogger(__name__)


def leave_out_replaced() -> None:
    """Make Hydra leave out the keys of replaced targets in every config that it composes."""
    compose: Callable[..., DictConfig] = getattr(ConfigLoaderImpl, COMPOSES)
    if hasattr(compose, "__wrapped__"):
        return
    apply: Callable[..., None] = getattr(ConfigLoaderImpl, APPLIES)

    @wraps(compose)
    def compose_files(self: ConfigLoaderImpl, defaults: Sequence[Any], repo: Any) -> DictConfig:
        cfg, targets, sources = OmegaConf.create(), _Targets(), current_sources()
        with flag_override(cfg, "no_deepcopy_set_nodes", True):
            for default in defaults:
                loaded = compose(self, [default], repo)
                sources.add(default, loaded, repo)  # before a target of it is imported
                if not (default.package or "").startswith("hydra"):
                    if (default.config_path or "").startswith("debug/"):
                        _limit_to_taken(cfg, loaded)
                    merge_tags(cfg, loaded)
                    targets.merge(cfg, _plain(loaded), _place(default.config_path, repo))
                try:
                    cfg.merge_with(loaded)
                except OmegaConfBaseException as error:
                    key = next(_conflicts(_plain(cfg), _plain(loaded)), "")
                    raised = f"{type(error).__name__} raised while composing config:\n{error}"
                    raised += f"\n{CONFLICT}{key}" if key else ""
                    raise ConfigCompositionException(f"In '{default.config_path}': {raised}") from error
        check_expansion(cfg)
        return cfg

    @wraps(apply)
    def apply_overrides(overrides: Sequence[Override], cfg: DictConfig) -> None:
        leave_out_for_overrides(overrides, cfg)
        for override in overrides:
            if f"{override.key_or_group}.".startswith("tags.") and not isinstance(override.value(), list):
                switch_tags(cfg)
            apply([override], cfg)
            current_sources().override(override)

    setattr(ConfigLoaderImpl, COMPOSES, compose_files)
    setattr(ConfigLoaderImpl, APPLIES, staticmethod(apply_overrides))


def leave_out_for_overrides(overrides: Sequence[Override], cfg: DictConfig) -> None:
    """Leave out the keys of targets that a command line replaces, whatever the order of its overrides."""
    if not any("_target_" in (override.input_line or "") for override in overrides):
        return
    new: dict[str, Any] = {}
    for override in overrides:
        if override.is_delete() or override.is_sweep_override() or override.is_hydra_override():
            continue
        *parents, last = override.key_or_group.split(".")
        node = new
        for name in parents:
            node = node.setdefault(name, {}) if isinstance(node.get(name, {}), dict) else {}
        node[last] = override.value()
    _Targets().merge(cfg, new, "command line")


def take_messages() -> list[str]:
    """Return one line for each target that was replaced since the last call."""
    messages = list(dict.fromkeys(current_context().left_out))
    current_context().left_out.clear()
    return messages


def log_left_out() -> None:
    """Log what `take_messages` returns."""
    for line in take_messages():
        log.info(line)


class _Targets:
    """The targets of the blocks that were merged so far."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}  # key of a block -> the file that set its target

    def merge(self, cfg: DictConfig | None, new: Block, place: str, key: str = "", *, recursive: bool = True) -> None:
        """Prepare `cfg` for a file whose plain content is `new`: remove keys of the targets that it replaces."""
        target = new.get("_target_")
        if _is_plain(target):
            if cfg is not None:
                self._replace(cfg, new, place, key, recursive=recursive)
            self.places[key] = place
        recursive = recursive and new.get("_recursive_") is not False
        for name, child in new.items():
            if isinstance(child, Mapping):
                self.merge(_block(cfg, str(name)), child, place, join(key, str(name)), recursive=recursive)

    def _replace(self, cfg: DictConfig, new: Block, place: str, key: str, *, recursive: bool) -> None:
        old, target = _plain(cfg), str(new["_target_"])
        former = old.get("_target_")
        if not _is_plain(former) or (recursive and _is_same(str(former), target)):
            return
        signature = _signature(target)
        if isinstance(signature, NotFound):  # reported by the checks
            return
        left_out = [*_left_out(old, new, signature, recursive=recursive)]
        with open_dict(cfg):
            for name in left_out:
                del cfg[name]
        if shown := [name for name in left_out if name not in new]:
            one, other = (name.rpartition(".")[2] for name in (target, str(former)))
            where = f" ({self.places[key]})" if key in self.places else ""
            line = f"{key}: {one} ({place}) replaces {other}{where}; left out {', '.join(shown)}"
            current_context().left_out.append(line)


def _signature(target: str) -> Signature | NotFound | None:
    """Return the signature of a target from source, or else of the object, which a run imports anyway."""
    signature = read_signature(target)
    if signature is not None or rejection_of(target, ()):
        return signature
    try:
        return signature_of(locate_object(target))
    except TargetNotFound:  # reported by the checks
        return None


def _left_out(old: Block, new: Block, signature: Signature | None, *, recursive: bool) -> Iterator[str]:
    """Yield the keys of a replaced block that its new target does not take.

    A target takes the arguments that it names; those that its `**kwargs` would accept are of the replaced one. Without
    a known signature it may take all. A class with `_recursive_: false` calls its blocks itself, with all arguments.
    """
    for name, value in old.items():
        if name in {"_target_", "_partial_"}:
            continue
        parameter = signature.parameters.get(name) if signature else None
        if name in OF_HYDRA or (signature and (parameter is None or parameter.positional_only)):
            yield name
        elif name in new:
            if replaces_container(value, new[name], parameter):
                yield name
        elif parameter is not None and not parameter.required and _is_foreign(value, parameter):
            yield name
    if "_partial_" in old and not ("_partial_" in new or (recursive and lacks_argument(old, new, signature))):
        yield "_partial_"


def _is_foreign(value: Any, parameter: Parameter) -> bool:
    """Return whether a value was meant for another class: the annotation of the new one excludes it."""
    if is_interpolation(value) or value == MISSING or (value is None and parameter.default_is_none):
        return False
    if isinstance(value, dict) and "_target_" in value:  # an object, where only numbers, text or booleans fit
        containers: tuple[object, ...] = ({}, [])
        return all(match(container, parameter.annotation, parameter.module) is Match.NO for container in containers)
    return rejects(value, parameter.annotation, parameter.module)


def _limit_to_taken(cfg: DictConfig, debug: DictConfig) -> None:
    """Remove what a file of configs/debug sets for shipped classes where another class does not take it."""
    for part, name in OF_DEBUG:
        block, given = _block(cfg, part), _block(debug, part)
        if block is None or given is None or name not in given or name in block:
            continue
        target = _plain(block).get("_target_")
        signature = _signature(str(target)) if _is_plain(target) else None
        if not isinstance(signature, Signature) or name not in signature.parameters:
            with open_dict(given):
                del given[name]


def _conflicts(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield the keys that are a list in one config and a dictionary in the other."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in new.keys() & old.keys():
            yield from _conflicts(old[name], new[name], join(key, str(name)))
    elif {type(old), type(new)} == {dict, list}:
        yield key


def _block(cfg: DictConfig | None, name: str) -> DictConfig | None:
    """Return the dictionary at a key; None for a missing key, null, an interpolation or another value."""
    node = raw_node(cfg, name) if cfg is not None else None
    return node if isinstance(node, DictConfig) and isinstance(_plain(node), dict) else None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the content as written, without Hydra's own part, whose types take long to convert."""
    if "hydra" in cfg:
        cfg = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    return content  # type: ignore[no-any-return]  # a dictionary unless the node is null or an interpolation


def _is_plain(target: Any) -> bool:
    return isinstance(target, str) and target not in {"", MISSING} and not is_interpolation(target)


def _is_same(one: str, other: str) -> bool:
    """Return whether two dotted paths name the same object, e.g. `torch.optim.Adam` and `torch.optim.adam.Adam`."""
    if one == other:
        return True
    found = locate(one)
    return found is not None and not isinstance(found, NotFound) and found == locate(other)


def _place(config_path: str | None, repo: Any) -> str:
    file = file_of(config_path or "", repo.get_sources())
    return shown_path(file) if file is not None else str(config_path)


def leave_out_without_target(cfg: DictConfig) -> None:
    """Remove each dictionary of `callbacks` and `logger` without `_target_`; the checks report a mistyped name."""
    for group in GROUPS:
        node = raw_node(cfg, group)
        entries: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
        if not isinstance(entries, dict):
            continue
        for name, entry in entries.items():
            if not isinstance(entry, dict) or "_target_" in entry or mistyped(group, name, entries):
                continue
            with open_dict(node):
                del node[name]
            has_file = (project_root() / "configs" / group / f"{name}.yaml").is_file()
            remedy = f". To use it, choose it with {group}={name}" if has_file else ""
            current_context().left_out.append(f"{group}.{name}: has no _target_ and is left out{remedy}")


def mistyped(group: str, name: str, entries: Collection[str]) -> list[str]:
    """Return the names that an entry of a group is probably a mistyped form of."""
    known = dict.fromkeys([*(other for other in entries if other != name), *group_keys(group)])
    return [] if name in known else get_close_matches(str(name), list(known), n=2, cutoff=TYPO)


@cache
def group_keys(group: str) -> tuple[str, ...]:
    """Return the keys that the files of `configs/<group>` set, e.g. `early_stopping` of `callbacks`."""
    names: dict[str, None] = {}
    for file in sorted((project_root() / "configs" / group).glob("*.yaml")) if group else ():
        names.update(dict.fromkeys(name for name in read_yaml(file) if name != "defaults"))
    return tuple(names)
