"""Explain one key of a config, or list what differs from the defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fulgurite.config.tracing.settings import COMMAND_LINE, Setting
from fulgurite.config.view import MISSING, UNKNOWN, is_interpolation, leaves_of, parent, paths_of
from fulgurite.core.errors import UserError, did_you_mean, suggest_path
from fulgurite.core.redact import MASK, holds_secret, is_secret_key, mask_override, without_secrets
from fulgurite.explain.composition import TracedConfig, environment_file, written_at
from fulgurite.explain.readers import Reader, parameters_below, reader_of, references, referring_keys

_VARIABLE = re.compile(
    r"\$\{\s*(oc\.env|secret)\s*:\s*(?!PROJECT_ROOT\b|(?:file|vault)\s*,)(?:env\s*,\s*)?([A-Za-z_]\w*)"
)
_SECRET = re.compile(r"\$\{\s*secret\s*:\s*(file|vault)\s*,\s*([^}]*?)\s*\}")
_HOLDERS = {"file": "the file", "vault": "Vault"}
LATER = "known when a run starts"
NEVER = "does not resolve"


@dataclass(frozen=True)
class Place:
    """One place that sets a key."""

    place: str  # configs/trainer/default.yaml:5, or `command line: trainer.max_epochs=3`
    value: Any  # as written; `***` for a secret
    chosen_by: str = ""  # what chose the file
    removes: bool = False


@dataclass(frozen=True)
class Explanation:
    """One key of a config."""

    key: str
    value: Any  # resolved; `***` for a secret, LATER for what only a run resolves, NEVER for what none does
    written: Any
    is_set: bool  # False for a parameter that the config leaves to its default
    places: list[Place]  # the last one wins
    sources: list[str]  # a line for each key and each environment variable that an interpolation reads
    left_out: list[str]  # why a key that a file sets is not in the config
    reader: Reader | None
    referred_by: list[str]  # keys whose interpolations read this one
    below: dict[str, str]  # of a block: each key in it and the place that set it


@dataclass(frozen=True)
class Difference:
    """A key whose value is not that of the defaults."""

    key: str
    value: Any  # None for a removed key
    default: Any  # None for a new key
    place: str
    is_new: bool
    is_removed: bool


def explain(traced: TracedConfig, key: str) -> Explanation:
    """Explain one key.

    Args:
        traced: The composed config.
        key: A dotted key, e.g. `trainer.max_epochs` or `data.augment[0]`.

    Raises:
        UserError: No file, override or class has the key.
    """
    if "" in key.split("."):
        raise UserError(f"{key!r}: is not a key. Write e.g. trainer.max_epochs.")
    _require_block(traced, key)
    written = written_at(traced.written, key)
    reader = reader_of(traced.written, key)
    places = [_shown(one) for one in traced.history(key)]
    blocks = [line for line in traced.left_out if key.startswith(f"{line.partition(':')[0]}.")]
    if written is ...:
        if not places and (reader is None or reader.name == "Hydra" or reader.parameter.startswith("**")):
            raise UserError(f"{key}: the config has no such key{_near(traced, key)}")
        gone = blocks or ([] if not places else [f"{places[-1].place} removes it"])
        return Explanation(key, None, None, False, places, [], gone, reader, [], {})
    sources = list(_sources(traced, written, key, set()))
    value, shown = _value(traced, written, key), mask(written, key)
    below = {name: traced.last(name) for name, _ in leaves_of(written, key)} if isinstance(written, dict) else {}
    last = {name: _shown(setting).place if setting else "" for name, setting in below.items()}
    return Explanation(key, value, shown, True, places, sources, [], reader, referring_keys(traced.written, key), last)


def _require_block(traced: TracedConfig, key: str) -> None:
    """Refuse a key below a number or a text, which has no keys, and an item that a list does not have."""
    child, holder = key, parent(key)
    while holder:
        found = written_at(traced.written, holder)
        if isinstance(found, (bool, int, float)) or (isinstance(found, str) and not is_interpolation(found)):
            raise UserError(f"{key}: {holder} is a value without keys. Explain {holder}.")
        if isinstance(found, list) and written_at(traced.written, child) is ...:
            items = f" of {len(found)}, from {holder}[0]" if found else " without items"
            raise UserError(f"{key}: {holder} is a list{items}. Explain {holder}.")
        child, holder = holder, parent(holder)


def differences(traced: TracedConfig, defaults: TracedConfig) -> list[Difference]:
    """Return what differs from the defaults, in the order of the config."""
    new, old = (dict(leaves_of(one.view.written)) for one in (traced, defaults))
    found = []
    for key in dict.fromkeys([*new, *old]):
        if key in new and key in old and new[key] == old[key] and type(new[key]) is type(old[key]):
            continue
        setting = traced.last(key)
        values = mask(new.get(key), key), mask(old.get(key), key)
        place = _shown(setting).place if setting else ""
        found.append(Difference(key, *values, place, is_new=key not in old, is_removed=key not in new))
    return found


def mask(value: Any, key: str) -> Any:
    """Return a value as written, with `***` in place of secrets; interpolations stay."""
    last = key.rpartition(".")[2]
    if isinstance(value, str) and not is_interpolation(value) and (holds_secret(key, value) or is_secret_key(key)):
        return MASK
    return without_secrets(value, last)


def _shown(setting: Setting) -> Place:
    is_override = setting.place.startswith(COMMAND_LINE)
    place = mask_override(setting.place) if is_override else setting.place
    value = MASK if is_secret_key(setting.key) and setting.value is not None else setting.value
    by = mask_override(setting.chosen_by) if setting.chosen_by.startswith(COMMAND_LINE) else setting.chosen_by
    return Place(place, without_secrets(value, setting.key), by, setting.removes)


def _value(traced: TracedConfig, written: Any, key: str) -> Any:
    if isinstance(written, dict):
        return {name: _value(traced, child, f"{key}.{name}") for name, child in written.items()}
    if isinstance(written, list):
        return [_value(traced, child, f"{key}[{position}]") for position, child in enumerate(written)]
    if _reads_environment(traced, written, key) or (written is not None and is_secret_key(key)):
        return MASK
    if written == MISSING:
        return MISSING
    value = traced.view.resolve(written, key)
    if value is UNKNOWN:
        return LATER if _may_resolve(traced, written, key) else NEVER
    return without_secrets(value, key.rpartition(".")[2])


def _may_resolve(traced: TracedConfig, written: Any, key: str, chain: frozenset[str] = frozenset()) -> bool:
    """Return whether each key that a value refers to is in the config, and none leads back to it."""
    if not is_interpolation(written):
        return written is not ...
    chain |= {key}
    names = set(references(written, key))
    return not names & chain and all(_may_resolve(traced, written_at(traced.written, one), one, chain) for one in names)


def _reads_environment(traced: TracedConfig, written: Any, key: str, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a value, or one that it refers to, is of an environment variable or a secret."""
    if not is_interpolation(written):
        return False
    if _VARIABLE.search(written) or re.search(r"\$\{\s*secret\s*:", written):
        return True
    names = set(references(written, key)) - seen
    return any(_reads_environment(traced, written_at(traced.written, name), name, seen | names) for name in names)


def _sources(traced: TracedConfig, written: Any, key: str, seen: set[str]) -> Iterator[str]:
    """Yield a line for each key and variable that an interpolation reads, those of references after it."""
    if not is_interpolation(written):
        return
    for _, name in _VARIABLE.findall(written):
        yield f"environment variable {name}: {_variable_place(name)}"
    for kind, name in _SECRET.findall(written):
        yield f"secret of {_HOLDERS[kind]} {name}: read when a run uses it"
    for name in references(written, key):
        if name in seen:
            continue
        seen.add(name)
        child, setting = written_at(traced.written, name), traced.last(name)
        shown = "" if isinstance(child, (dict, list)) or child is ... else f"={text_of(mask(child, name))}"
        place = "is not in the config" if child is ... else _shown(setting).place if setting else "set by Hydra"
        yield f"{name}{shown}: {place}"
        yield from _sources(traced, child, name, seen)


def _variable_place(name: str) -> str:
    file = environment_file()
    if name not in os.environ:
        return "not set"
    from dotenv import dotenv_values

    in_file = dotenv_values(file) if file.is_file() else {}
    # the variables of .env are in the environment by now; one that was set before wins
    return "set in .env" if in_file.get(name) == os.environ[name] else "set in the environment"


def _near(traced: TracedConfig, key: str) -> str:
    """Return the end of the message about a key that does not exist."""
    holder, _, name = key.rpartition(".")
    parameters = parameters_below(traced.written, holder)
    known = [*paths_of(traced.written), *(f"{holder}.{one}" for one in parameters)]
    near = suggest_path(key, known)
    if near or not parameters:
        return near or ". Without a key, explain lists what differs from the defaults"
    return did_you_mean(name, parameters) or f". {holder} takes {', '.join(parameters)}"


def default_of(explanation: Explanation) -> str:
    """Return the line about a parameter that the config does not set."""
    reader, key = explanation.reader, explanation.key
    default = "has no default" if reader is None or reader.default is None else f"has the default {reader.default}"
    return f"not set; the parameter {default}. Set it with +{key}=<value>"


def text_of(value: Any) -> str:
    """Return a value as a command line writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {text_of(child)}' for name, child in value.items())}}}"
    return str(value) if value != "" else "''"
