"""Publish new values of a store as a transaction: merge, check, run hooks; then all at once, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fulgurite.core.errors import ConfigError, suggest_path
from fulgurite.core.redact import without_secrets
from fulgurite.store.snapshot import Change, Snapshot, compare
from fulgurite.store.state import SET, Entry, Family, Stopped, StoreState, call_logged
from fulgurite.store.values.convert import ABSENT, Problems, convert
from fulgurite.store.values.layers import Layer, merge

SHOWN_CHARACTERS = 60


@dataclass
class Part:
    """What one store gets in a transaction.

    Attributes:
        store: The store.
        layers: New layers by their loaders.
        values: Dotted keys that `Store.set` sets.
        change: Filled by `commit`.
    """

    store: StoreState
    layers: Mapping[Entry, Layer]
    values: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None


def commit(family: Family, parts: Sequence[Part]) -> None:
    """Publish new values of one store or of several, or of none.

    Raises:
        ConfigError: A required key is missing, or a value is not of the type that the program reads.
        Stopped: The store was closed.
        Exception: Whatever a hook raised.
    """
    with family.transaction():
        _require_open(parts)
        lines: list[str] = []
        for part in parts:
            new, problems = _candidate(part)
            lines += [problem_line(part.store, new, *problem) for problem in problems]
            loaders = tuple(entry.loader.name for entry in part.layers) or (SET,)
            part.change = compare(part.store.name, loaders, part.store.current, new)
        if lines:
            raise ConfigError(list(dict.fromkeys(lines)))
        _run_hooks(parts)
        _require_open(parts)
        for part in parts:
            assert part.change is not None
            for entry, layer in part.layers.items():
                entry.layer = layer
            part.store.overrides = _overrides(part)
            part.store.current = part.change.new  # the one assignment that readers see


def _require_open(parts: Sequence[Part]) -> None:
    for part in parts:
        if part.store.stopping.is_set():
            raise Stopped(part.store.name)


def _candidate(part: Part) -> tuple[Snapshot, Problems]:
    """Return the snapshot to come, and what is wrong with it."""
    store = part.store
    layers = [part.layers.get(entry, entry.layer) for entry in store.entries]
    merged = merge([layer for layer in (*layers, _overrides(part)) if layer is not None])
    snapshot = Snapshot(*merged, store.current.version + 1)
    problems: Problems = [(key, ABSENT, "is missing") for key in store.strict_keys if _is_empty(snapshot, key)]
    for key, kinds in store.kinds.copy().items():
        if key in snapshot:
            for at, kind in enumerate(kinds):
                snapshot.keep(key, kind, convert(snapshot[key], kind, key, problems), is_first=at == 0)
    snapshot.bound = tuple(build(snapshot, problems) for build in store.bindings)
    return snapshot, problems


def _overrides(part: Part) -> Layer:
    return Layer(SET, merge([part.store.overrides, Layer(SET, part.values)])[0])


def _is_empty(snapshot: Snapshot, key: str) -> bool:
    return key not in snapshot or snapshot[key] is None  # `key:` in YAML


def _run_hooks(parts: Sequence[Part]) -> None:
    """Run the hooks of the loaders that were loaded, then those of keys that changed; each once.

    Where one raises, what the others asked for by `Change.on_rollback` is called.
    """
    try:
        for part in parts:
            assert part.change is not None
            for hook in [hook for entry in part.layers for hook in entry.hooks]:
                hook(part.change)
            for prefix, hook in [*part.store.key_hooks]:
                narrowed = part.change.below(prefix)
                if narrowed.keys:
                    hook(narrowed)
    except BaseException:
        rollbacks = [function for part in parts if part.change is not None for function in part.change.rollbacks]
        for function in reversed(rollbacks):
            call_logged(function, "a function of Change.on_rollback failed")
        raise


def problem_line(store: StoreState, snapshot: Snapshot, key: str, value: Any, problem: str) -> str:
    """Return one line about a value, without secrets: key, value, what is wrong, and where to correct it."""
    group = f"store={store.name}: " if store.is_group else ""
    origin = snapshot.origins.get(key.partition("[")[0])
    if value is ABSENT and origin is None:
        names = [entry.loader.name for entry in store.entries]
        near = suggest_path(key, snapshot.leaves)
        return f"{group}{key}: {sentence(problem + near)} Set it in {' or '.join(names)}."
    what = key if value is ABSENT else f"{key}={shown(key.partition('[')[0], value)}"
    return f"{group}{what}: {sentence(problem)} Correct it in {origin or 'its source'}."


def sentence(text: str) -> str:
    """Return a text with its end; a suggestion ends with a question mark."""
    return text if text.endswith("?") else f"{text}."


def shown(key: str, value: Any) -> str:
    """Return a value for a message: short, on one line, and `***` for a secret."""
    text = " ".join(str(without_secrets(value, key)).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
