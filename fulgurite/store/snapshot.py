"""The values of a store at one moment, and what a reload changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from fulgurite.store.values.layers import is_same, nested, plain


class Snapshot(Mapping[str, Any]):
    """All values of a store at one moment, which a reload replaces as a whole and never changes.

    Iterates over the dotted keys of values; a group such as `snapshot["optimizer"]` is a read-only dictionary.

    Args:
        leaves: Dotted key to value.
        origins: Dotted key to the name of the loader that gave its value.
        version: Number of snapshots before this one.

    Attributes:
        reads: Dotted key, also of a group, to the value.
        typed: Dotted key to the value in the type in which it was read first.
        converted: Type to dotted key to the value in that type.
        own_reads: What getters return.
        bound: The dataclass instances, in the order of their bindings.
    """

    __slots__ = ("bound", "converted", "leaves", "origins", "own_reads", "reads", "root", "typed", "version")

    def __init__(self, leaves: Mapping[str, Any], origins: Mapping[str, str], version: int) -> None:
        self.leaves, self.origins, self.version = MappingProxyType(leaves), MappingProxyType(origins), version
        self.root, groups = nested(leaves)
        self.reads: dict[str, Any] = {**leaves, **groups}
        self.typed: dict[str, Any] = {}
        self.converted: dict[Any, dict[str, Any]] = {}
        self.own_reads: dict[object, Any] = {}
        self.bound: tuple[Any, ...] = ()

    def __getitem__(self, key: str) -> Any:
        if key in self.leaves:
            return self.leaves[key]
        group = self.find_group(key)
        if group is None:
            raise KeyError(key)
        return group

    def __contains__(self, key: object) -> bool:
        return key in self.leaves or (isinstance(key, str) and self.find_group(key) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)

    def find_group(self, key: str) -> Mapping[str, Any] | None:
        """Return the group of keys below a dotted key, or None; "" is the whole."""
        node: Any = self.root
        for part in key.split(".") if key else ():
            node = node.get(part) if isinstance(node, Mapping) else None
        return node if isinstance(node, Mapping) else None

    def keep(self, key: str, kind: Any, value: Any, *, is_first: bool) -> Any:
        """Keep a converted value for later reads, unless a reader could change it; return it."""
        if not isinstance(value, (list, dict)):
            self.converted.setdefault(kind, {})[key] = value
            if is_first:
                self.typed[key] = value
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return a nested copy that may be changed, pickled and saved."""
        found: dict[str, Any] = plain(self.root)
        return found


@dataclass(frozen=True)
class Change:
    """What one reload changes; a hook gets it before the values are published, and refuses them with an exception.

    Attributes:
        store: Name of the store.
        loaders: Names of the loaders that were loaded.
        old: The snapshot before, which the store still shows.
        new: The snapshot to come.
        added: Dotted keys.
        changed: Dotted keys.
        removed: Dotted keys.
        rollbacks: See `on_rollback`.
    """

    store: str
    loaders: tuple[str, ...]
    old: Snapshot
    new: Snapshot
    added: frozenset[str] = frozenset()
    changed: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    rollbacks: list[Callable[[], object]] = field(default_factory=list, repr=False)

    @property
    def keys(self) -> frozenset[str]:
        """All keys that were added, changed or removed."""
        return self.added | self.changed | self.removed

    def on_rollback(self, function: Callable[[], object]) -> None:
        """Have a function called if a later hook refuses the reload, the last one first."""
        self.rollbacks.append(function)

    def below(self, prefix: str) -> Change:
        """Return the part of the change that concerns a key and the keys below it; "" is all."""
        named = [frozenset(filter(_is_below(prefix), keys)) for keys in (self.added, self.changed, self.removed)]
        return replace(self, added=named[0], changed=named[1], removed=named[2])


def compare(store: str, loaders: tuple[str, ...], old: Snapshot, new: Snapshot) -> Change:
    """Return what differs between two snapshots."""
    both = old.leaves.keys() & new.leaves.keys()
    changed = frozenset(key for key in both if not is_same(old.leaves[key], new.leaves[key]))
    added, removed = new.leaves.keys() - both, old.leaves.keys() - both
    return Change(store, loaders, old, new, frozenset(added), changed, frozenset(removed))


def _is_below(prefix: str) -> Callable[[str], bool]:
    return lambda key: not prefix or key == prefix or key.startswith(f"{prefix}.")
