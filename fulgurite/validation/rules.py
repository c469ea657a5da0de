"""Check keys, types, tags, checkpoints, resume settings, groups and cross-validation folds of a config."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from fulgurite.config.left_out import GROUPS, group_keys, mistyped
from fulgurite.config.schema import GROUPS as SCHEMAS
from fulgurite.config.schema import TOP_LEVEL, describe_move, field_types
from fulgurite.config.view import MISSING, UNKNOWN, ConfigView, is_interpolation, join, leaves, paths_of
from fulgurite.core.download import is_secure
from fulgurite.core.errors import did_you_mean, suggest_path
from fulgurite.core.project import project_root
from fulgurite.data.fold_rules import find_fold_problems
from fulgurite.validation.explanations.defaults_lists import PACKAGE, is_global, lacks_package
from fulgurite.validation.explanations.group_options import explain_list
from fulgurite.validation.explanations.other_names import suggest_other_name
from fulgurite.validation.findings import Finding, shown
from fulgurite.validation.parallelism import source_mentions
from fulgurite.validation.signatures.annotations import Match, describe, match

NESTED = {schema.group: field_types(schema) for schema in SCHEMAS}
PARTS = ("data", "model", "trainer")
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one
# a switch of the trainer to the callbacks that Lightning refuses beside its false
SWITCHED_OFF = {
    "enable_progress_bar": ("progress_bar", "ProgressBar", "TQDMProgressBar", "RichProgressBar"),
    "enable_checkpointing": ("ModelCheckpoint", "LastCheckpoint"),
}
_INSIDE = re.compile(r"\$\{([^}]*)")
_WORD = re.compile(r"[A-Za-z_][\w\-]*(?:\.[\w\-]+)*")


def check_keys(view: ConfigView) -> Iterator[Finding]:
    """Yield the keys that nothing reads: at the top level and in the library's groups."""
    raw = view.written
    unread = [key for key in raw if key not in TOP_LEVEL]
    for group, types in NESTED.items():
        valid = {*group_keys(group), *types}
        unread += [f"{group}.{name}" for name in raw.get(group) or {} if name not in valid]
    if not unread:
        return
    referred = _referred(view)
    paths = [*TOP_LEVEL, *paths_of({key: value for key, value in raw.items() if key not in unread})]
    for key in unread:
        group, _, name = key.rpartition(".")
        value = raw[group][name] if group else raw[key]
        if moved := describe_move(key if isinstance(value, (dict, list)) else f"{key}={shown(key, value)}"):
            yield Finding(key, moved, value)
        elif not any(word == key or word.startswith((f"{key}.", f"{key}[")) for word in referred):
            choices = [path for path in paths if path not in unread]
            if not group and isinstance(value, dict) and is_global(key):
                rule = f"nothing reads this key. For the package of the whole config, write '{PACKAGE}'"
                yield Finding(key, rule, value, in_header=True)
                continue
            if not group and isinstance(value, dict) and _is_chosen(key, view):
                yield Finding(key, lacks_package(key), in_header=True)
                continue
            known = [*choices, *(f"{group}.{other}" for other in group_keys(group) if group)]
            if not group and isinstance(value, list):
                known.append("defaults")  # which composing takes out of a config
            near = suggest_other_name(key, known) or suggest_path(key, known)
            remedy = ". Remove it" if group else f". Remove it, or put values of your own below vars: vars.{name}"
            yield Finding(key, f"nothing reads this key{near or remedy}", value)


def _is_chosen(group: str, view: ConfigView) -> bool:
    """Return whether the project has a group of this name, and the defaults list does not have it with null."""
    choices = (view.hydra or {}).get("runtime", {}).get("choices", {})
    return (project_root() / "configs" / group).is_dir() and choices.get(group, "") not in {None, "null"}


def _referred(view: ConfigView) -> set[str]:
    """Return every dotted word inside an interpolation of the config or of Hydra's own part."""
    live = HydraConfig.instance().cfg
    hydra = OmegaConf.to_container(live, resolve=False) if live is not None else {"hydra": view.hydra}
    hydra = hydra.get("hydra") if isinstance(hydra, dict) else None
    if isinstance(hydra, dict):  # overrides and job only repeat the command line
        hydra = {key: value for key, value in hydra.items() if key not in {"overrides", "job"}}
    words: set[str] = set()
    for _, text in leaves([view.written, hydra]):
        words.update(_words(text))
    for group in NESTED:  # ${.x} inside the group is relative to it
        for _, text in leaves(view.written.get(group) or {}):
            words.update(f"{group}.{word}" for word in _words(text))
    return words


def _words(text: Any) -> list[str]:
    inside = _INSIDE.findall(text) if is_interpolation(text) else []
    return [word for part in inside for word in _WORD.findall(part)]


def check_types(view: ConfigView) -> Iterator[Finding]:
    """Yield the values of the wrong type among the keys the project itself reads."""
    raw = view.written
    declared = {key: TOP_LEVEL[key] for key in raw if TOP_LEVEL.get(key)}
    for group, types in NESTED.items():
        if isinstance(inside := raw.get(group), dict):
            declared |= {f"{group}.{name}": types[name] for name in inside if name in types}
    for key, annotation in declared.items():
        group, _, name = key.rpartition(".")
        written = raw[group][name] if group else raw[key]
        value = written if isinstance(written, dict) else view.resolve(written, key)
        syntax = ast.parse(annotation, mode="eval").body
        if value is not UNKNOWN and not (isinstance(written, str) and isinstance(value, dict)):
            if key in GROUPS and isinstance(value, list):
                yield Finding(key, explain_list(key, value))
            elif match(value, syntax, None) is Match.NO or (value is None and "None" not in annotation):
                yield Finding(key, f"must be {describe(syntax, None)}", written)
            elif key == "seed" and isinstance(value, int) and not 0 <= value <= LARGEST_SEED:
                yield Finding(key, f"must be between 0 and {LARGEST_SEED}", written)


def check_tags(view: ConfigView) -> Iterator[Finding]:
    """Yield tags that are neither a list of strings nor a dictionary of switches."""
    raw = view.written
    tags = view.resolve(raw.get("tags"), "tags")
    if isinstance(tags, dict):
        for name, wanted in tags.items():
            if not isinstance(wanted, bool) and wanted is not None and wanted is not UNKNOWN:
                remedy = f"Write tags.{name}=true, or the text '{name}={wanted}' in a list"
                rule = f"a tag is switched on with true and off with false. {remedy}"
                yield Finding(f"tags.{name}", rule, raw["tags"][name])
    elif isinstance(tags, list):
        for position, tag in enumerate(tags):
            if not isinstance(tag, str) and tag is not UNKNOWN:
                yield Finding(join("tags", position), "a tag is text. Put it in quotes", raw["tags"][position])
    elif tags is not None and tags is not UNKNOWN:
        rule = 'must be a list of text, e.g. tags=["mnist"], or a dictionary of switches, e.g. +tags.mnist=true'
        yield Finding("tags", rule, raw["tags"])


def check_checkpoint(view: ConfigView) -> Iterator[Finding]:
    """Yield a checkpoint that does not exist, and a missing `ckpt_path`."""
    raw = view.written
    written = raw.get("ckpt_path")
    path = view.resolve(written, "ckpt_path")
    if written == MISSING:
        yield Finding("ckpt_path", "missing, and eval scores a checkpoint. Add ckpt_path=<file or https URL>")
    elif isinstance(path, str):
        if "://" in path and not is_secure(path):
            yield Finding("ckpt_path", "must be a file or an https URL", written)
        elif "://" not in path and not Path(path).expanduser().exists():
            yield Finding("ckpt_path", f"no such file{_near_file(path)}", written)
    elif path is None and raw.get("train") is False and raw.get("test") is True:
        rule = "train=false tests a checkpoint and none is given. Add ckpt_path=<file or https URL>"
        yield Finding("ckpt_path", rule, written)
    digest = view.resolve(raw.get("ckpt_sha256"), "ckpt_sha256")
    if isinstance(digest, str) and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        yield Finding("ckpt_sha256", "must be 64 hex digits", raw["ckpt_sha256"])


def check_resume(view: ConfigView) -> Iterator[Finding]:
    """Yield the settings of `resume` that do not fit its mode, or need a run when none is given."""
    raw = view.written.get("resume")
    if not isinstance(raw, dict):
        return
    if raw.get("skip"):
        yield from _check_skip(view, raw)
    if raw.get("run"):
        return
    if raw.get("apply"):
        rule = "needs a run, whose config shows what changed. Add resume=<run directory>"
        yield Finding("resume.apply", rule, raw["apply"])
    if raw.get("reset") and not view.written.get("ckpt_path"):
        rule = "there is no state to reset. Add resume=<run directory> or ckpt_path=<file>"
        yield Finding("resume.reset", rule, raw["reset"])


def _check_skip(view: ConfigView, raw: dict[str, Any]) -> Iterator[Finding]:
    rule = ""
    if raw.get("mode") == "continue":
        rule = "the interrupted run needs all of its weights. Start a new run with resume.mode=weights"
    elif view.written.get("train") is False:
        rule = "train=false tests the weights of the checkpoint as they are. Remove it"
    elif not raw.get("run") and not view.written.get("ckpt_path"):
        rule = "no weights are loaded. Add resume=<run directory> or ckpt_path=<file>"
    if rule:
        yield Finding("resume.skip", rule, raw["skip"])


def _near_file(path: str) -> str:
    """Return the end of a message about a missing file: its deepest folder, or the files beside it."""
    file = Path(path).expanduser()
    folder = next((folder for folder in file.parents if folder.is_dir()), None)
    if folder is not None and folder != file.parent:
        return f". The folder {folder} has no {file.relative_to(folder).parts[0]!r}"
    names = sorted(entry.name for entry in file.parent.glob(f"*{file.suffix}")) if folder and file.suffix else []
    return f"; {file.parent} has {', '.join(names[:5])}" if names else ". Give an existing file or an https URL"


def check_parts(view: ConfigView) -> Iterator[Finding]:
    """Yield missing components and those without `_target_`."""
    raw = view.written
    for part in PARTS:
        is_block = isinstance(raw.get(part), dict)
        if raw.get(part) is None or (is_block and "_target_" not in raw[part]):
            fault = "has no _target_" if is_block else "missing"
            yield Finding(part, f"{fault}. Choose one with {part}=<a file of configs/{part}>")


def check_groups(view: ConfigView) -> Iterator[Finding]:
    """Yield the entries of `callbacks` and `logger` without `_target_`."""
    raw = view.written
    for group, noun in GROUPS.items():
        entries = raw.get(group)
        if not isinstance(entries, dict):
            continue
        for name, entry in entries.items():
            if entry is None or is_interpolation(entry) or (isinstance(entry, dict) and "_target_" in entry):
                continue
            key = f"{group}.{name}"
            near = did_you_mean(str(name), mistyped(group, str(name), entries))
            remedy = near or ". Add one, or set the entry to null"
            yield Finding(key, f"has no _target_, so it is not a {noun}{remedy}", entry)


def check_epochs(view: ConfigView) -> Iterator[Finding]:
    """Yield a minimum of epochs or steps above the maximum."""
    raw = view.written
    trainer = raw.get("trainer")
    if not isinstance(trainer, dict):
        return
    for unit in ("epochs", "steps"):
        low, high = (view.resolve(trainer.get(f"{side}_{unit}"), f"trainer.{side}_{unit}") for side in ("min", "max"))
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (low, high))
        if numbers and high >= 0 and low > high:
            rule = f"must not be more than trainer.max_{unit}={high}. Lower it or raise trainer.max_{unit}"
            yield Finding(f"trainer.min_{unit}", rule, low)


def check_switches(view: ConfigView) -> Iterator[Finding]:
    """Yield a switch of the trainer that is off, beside callbacks that need it on."""
    trainer, callbacks = (view.written.get(name) for name in ("trainer", "callbacks"))
    if not isinstance(trainer, dict) or not isinstance(callbacks, dict):
        return
    for switch, names in SWITCHED_OFF.items():
        targets = {key: str(entry.get("_target_", "")) for key, entry in callbacks.items() if isinstance(entry, dict)}
        found = [key for key, target in targets.items() if target.rpartition(".")[2] in names]
        if found and trainer.get(switch) is False:
            removed = " ".join(f"'~callbacks.{key}'" for key in found)
            rule = f"excludes {', '.join(f'callbacks.{key}' for key in found)}. Add {removed}, or leave it true"
            yield Finding(f"trainer.{switch}", rule, value=False)


def check_folds(view: ConfigView) -> Iterator[Finding]:
    """Yield wrong values of `fold`, `num_folds` and `val_size` for a data module that calls `fold_findings`."""
    data = view.written.get("data")
    if not isinstance(data, dict) or not {"fold", "num_folds"} <= data.keys():
        return
    if not source_mentions(str(data.get("_target_")), "fold_findings"):  # another class may count folds otherwise
        return
    names = ("fold", "num_folds", "val_size")
    fold, num_folds, val_size = (view.resolve(data.get(name), f"data.{name}") for name in names)
    if UNKNOWN in (fold, num_folds):
        return
    for name, rule in find_fold_problems(fold, num_folds, None if val_size is UNKNOWN else val_size):
        yield Finding(f"data.{name}", rule, ... if data.get(name) is None else data[name])
