"""Convert what changed in objects to what `torch.load(weights_only=True)` reads, and compare what was converted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch

from fulgurite.core.redact import hide_secrets, without_secrets
from fulgurite.exact_resume.objects.memory import layout_of
from fulgurite.exact_resume.objects.walk import CONTENT, Node, Same, Walk, children_of, holds_weights
from fulgurite.exact_resume.values.kinds import ATOMS, CONTAINERS, can_make, class_name, describe, has_position
from fulgurite.exact_resume.values.leaves import leaf_size, leaf_to_plain, size_of

MAX_BYTES = 8 * 2**20  # of all plain values of a rank
MAX_DEPTH = 84  # of lists in lists: checkpoints lack what is deeper than 100, with its place and a leaf's own lists
KEPT = ["kept"]  # in place of what did not change
FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}


class TooLargeError(Exception):
    """The plain values of a rank take more than `MAX_BYTES`."""


class Encoder:
    """Converts values that changed since the start.

    A value is an atom or a list [kind, content]; what did not change is `KEPT`, and an object that was converted before
    is a reference to the path of its first visit.

    Args:
        walk: The walk over all values.
        start: Signs at the start, by path.
        existing: Signs of the objects that exist when a run starts or resumes, by path.
        changed: Paths that changed once: they are saved from then on. The encoder adds to it.
        report: Gets the path of what changed and cannot be saved, and the reason.
        is_part: Whether the walk visits a part of the owners only.
    """

    def __init__(
        self,
        walk: Walk,
        start: Mapping[str, Any],
        existing: Mapping[str, Any],
        changed: set[str],
        report: Callable[[str, str], None],
        *,
        is_part: bool = False,
    ) -> None:
        self._walk, self._start, self._existing, self._changed = walk, start, existing, changed
        self._report, self._is_part = report, is_part
        self._num_bytes = self._depth = 0

    def encode(self, value: Any, path: str, *, whole: bool = False, weights: bool = False) -> tuple[Any, bool]:
        """Return the converted value and whether it changed; whole: take it as changed."""
        sticky = whole or path in self._changed
        node = self._walk.visit(value, path, signed=not sticky, weights=weights)
        changed = sticky or not self._is_as_at_start(path, node)
        self._depth += (levels := 2 if isinstance(value, (list, tuple)) else 3)
        if node.form in ("items", "object"):
            plain, changed = self._encode_children(value, path, node, whole=whole, weights=weights, changed=changed)
        elif node.form == "atom" and isinstance(value, str) and hide_secrets(value) != value:
            plain = KEPT  # the resumed run has its own
            if changed:
                self._report(path, "changed and holds a secret, which is not saved")
        elif node.form == "atom":
            self._count(len(value) if isinstance(value, (str, bytes)) else 8, weights=weights)
            plain = value
        elif node.form in ("known", "same"):
            plain = [node.form, str(node.sign)]
        elif node.form == "constant":
            plain, changed = KEPT, self._is_new_item(value, path)
        elif not changed:
            plain = KEPT
        elif node.form == "leaf":
            plain = self._encode_leaf(value, path, weights=weights)
        elif node.form == "bulk":
            plain = self._encode_items(value, path, node, whole=True, weights=weights)[0]
        else:
            plain, changed = self._encode_opaque(value, path, node)
        if changed and self._depth > MAX_DEPTH:
            raise RecursionError
        self._depth -= levels
        if changed and not whole and node.form != "constant":
            self._changed.add(path)
        return plain, changed

    def encode_part(self, value: Any, path: str, *, whole: bool = False, weights: bool = False) -> tuple[Any, bool]:
        """Return the converted attribute of an object and whether it changed; report it where it is too large."""
        num_bytes, depth = self._num_bytes, self._depth
        try:
            return self.encode(value, path, whole=whole, weights=weights)
        except TooLargeError:
            self._num_bytes = num_bytes
            self._report(path, f"changed, and the saved attributes take {MAX_BYTES // 2**20} MB at most")
        except RecursionError:
            if depth:
                raise  # a part of what is nested is of no use
            self._report(path, "is nested too deeply to be saved")
        self._depth = depth
        return KEPT, False

    def _is_as_at_start(self, path: str, node: Node) -> bool:
        sign = self._start.get(path, self)
        if not self._is_part or sign == node.sign:
            return bool(sign == node.sign)
        # this walk may not visit the path of the sign, and come to the object or its memory by another one first
        first = self._first_path(sign) if isinstance(sign, Same) else path
        if node.form == "same":
            return isinstance(sign, Same) and self._first_path(node.sign) == first
        start: Any = self._start.get(first)
        if node.form == "leaf" and isinstance(start, tuple):
            return bool(start[0] == node.sign[0])
        return bool(start == node.sign)

    def _first_path(self, path: str) -> str:
        while isinstance(sign := self._start.get(path), Same):
            path = sign
        return str(path)

    def _count(self, num_bytes: int, *, weights: bool) -> None:
        self._num_bytes += 0 if weights else num_bytes
        if self._num_bytes > MAX_BYTES:
            raise TooLargeError

    def _encode_leaf(self, value: Any, path: str, *, weights: bool) -> Any:
        self._count(leaf_size(value), weights=weights)
        plain = leaf_to_plain(value)
        if plain is None:
            self._report(path, f"changed and is an object of class {type(value).__qualname__}, which cannot be saved")
            return KEPT
        self._count(size_of(plain) - leaf_size(value), weights=weights)
        if plain[0] in ("tensor", "array"):
            plain[1].append(layout_of(value, self._walk.shared_with(value, path)))
        return plain

    def _encode_children(
        self, value: Any, path: str, node: Node, *, whole: bool, weights: bool, changed: bool
    ) -> tuple[Any, bool]:
        """Return a converted container or object, and whether something in it changed."""
        if node.form == "items":
            plain, inner = self._encode_items(value, path, node, whole=whole, weights=weights)
            return (plain if changed or inner else KEPT), changed or inner
        label = node.sign[0]
        is_there = self._existing.get(path, ("",))[0] == label
        if not is_there and not can_make(cast("Any", type(value))):
            self._report(path, f"was set to {describe(value)}, which cannot be saved")
            return KEPT, True
        parts: dict[str, Any] = {}
        weights = weights or holds_weights(value)
        for name, child in node.children:
            plain, inner = self.encode_part(child, path + name, whole=whole or not is_there, weights=weights)
            parts[name.removeprefix(".")], changed = plain, changed or inner
        return (["object", [label, parts]] if changed else KEPT), changed

    def _encode_items(self, value: Any, path: str, node: Node, *, whole: bool, weights: bool) -> tuple[Any, bool]:
        kind, changed = type(value), False
        if kind in (list, tuple) and all(type(item) in ATOMS for item in value):
            self._count(sum(len(item) if isinstance(item, (str, bytes)) else 8 for item in value), weights=weights)
            if node.form == "bulk" and without_secrets(value) is value:
                return [kind.__name__, list(value)], True
        plain: dict[str, Any] = {}
        for name, child in node.children or children_of(value):
            plain[name], inner = self.encode(child, path + name, whole=whole, weights=weights)
            changed = changed or inner
        parts = iter(plain.values())
        if not isinstance(value, Mapping):
            content: list[Any] = list(parts)
        else:
            content = [[key if type(key) in ATOMS else next(parts), next(parts)] for key in value]
        if kind is defaultdict:
            factory: Any = value.default_factory
            content = [factory.__name__ if factory in FACTORIES.values() else None, content]
        elif kind.__name__ == "deque":
            content = [value.maxlen, content]
        elif kind in (set, frozenset):
            # numbers come in the same order in each process where they are added in that order
            content = content if all(type(item) is int for item in content) else sorted(content, key=repr)
        return [kind.__name__, content], changed

    def _is_new_item(self, value: Any, path: str) -> bool:
        """Return whether a container got an object that cannot be saved; such attributes are made at each start."""
        if not path.endswith("]") or path in self._existing:
            return False
        self._report(path, f"changed and holds {describe(value)}, which cannot be saved")
        return True

    def _encode_opaque(self, value: Any, path: str, node: Node) -> tuple[Any, bool]:
        if self._existing.get(path) == node.sign:
            return KEPT, False
        what = "changed, and its state"
        if isinstance(value, BaseProcess):
            what = "is a process, whose state"
        elif has_position(cast("Any", type(value))):
            what = "is an iterator, whose position"
        self._report(path, f"{what} cannot be saved ({class_name(type(value)).replace(':', '.')})")
        return KEPT, True


def changed_paths(plain: Any, path: str) -> Iterator[str]:
    """Yield the path of each value that `Encoder.encode` converted, in a converted value at a path."""
    if plain == KEPT:
        return
    yield path
    kind: str
    content: Any
    kind, content = plain if isinstance(plain, list) else ("", None)
    if kind == "object":
        for name, part in content[1].items():
            yield from changed_paths(part, f"{path}{name if name == CONTENT else f'.{name}'}")
    elif kind in CONTAINERS:
        items = content[1] if kind in ("defaultdict", "deque") else content
        if not issubclass(CONTAINERS[kind], dict):
            for number, item in enumerate(items):
                yield from changed_paths(item, f"{path}[{number}]")
            return
        for number, (key, item) in enumerate(items):
            if isinstance(key, list):
                yield from changed_paths(key, f"{path}[key {number}]")
            yield from changed_paths(item, f"{path}[item {number}]" if isinstance(key, list) else f"{path}[{key!r}]")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two converted values are equal, also in their types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(part, other[name]) for name, part in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
