"""Walk over what objects hold, visiting each object once, so that what several share stays shared."""

from __future__ import annotations

import random
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from operator import length_hint
from os import urandom
from types import FunctionType, GeneratorType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.fabric.utilities import AttributeDict

from fulgurite.exact_resume.inspection.nesting import bulk_sign, holds_tuples
from fulgurite.exact_resume.objects.memory import memory_of
from fulgurite.exact_resume.objects.signs import LargeSign, atom_sign, digest, leaf_sign, proxy_content
from fulgurite.exact_resume.values.kinds import (
    ATOMS,
    CODE,
    CONTAINERS,
    has_position,
    is_database,
    is_infrastructure,
    label_of,
    parts_of,
)
from fulgurite.exact_resume.values.leaves import is_leaf, is_shared

MAX_ITEMS = 1000  # of a container whose items are compared one by one
MAX_HASHED_ITEMS = 100_000  # of a container that is read as a whole at each save
NUM_SAMPLED_ITEMS = MAX_ITEMS // 2
NUM_BRIEF = 64
MAX_DEPTH = 1000  # what is deeper is named: no save reaches it
CONTENT = "/content"  # the items of an object whose class inherits from a container
BASES = (AttributeDict, OrderedDict, Counter, defaultdict, dict, deque, list, set, frozenset, tuple)


class Same(str):
    """Sign of an object that was visited before, at this path."""

    __slots__ = ()


class Node(NamedTuple):
    """What a walk found at a path.

    Args:
        form: "atom", "leaf", "items", "bulk" (items that are compared as a whole), "object", "known" (saved by others),
            "same" (visited before at the path `sign`), "opaque" or "constant".
        sign: Differs after the node itself changed, without its children.
        children: What it holds, by what their paths add to its own; `children_of` has those of a bulk.
    """

    form: str
    sign: Any
    children: tuple[tuple[str, Any], ...] = ()


class Known:
    """Objects that a checkpoint saves otherwise.

    Args:
        pairs: Each object and its name; an empty name: it holds no state. The first name of an object counts.
    """

    def __init__(self, pairs: Iterable[tuple[Any, str]] = ()) -> None:
        self._pairs = list(pairs)
        self.names = {id(value): name for value, name in reversed(self._pairs)}

    @property
    def objects(self) -> dict[str, Any]:
        """The objects by name."""
        return {name: value for value, name in self._pairs if name}

    @cached_property
    def memory(self) -> dict[int, str]:
        """Names of tensors by the address of their memory."""
        return {address: name for value, name in reversed(self._pairs) if (address := memory_of(value))}


class Walk:
    """One walk over the objects of a run.

    Args:
        known: Objects that a checkpoint saves otherwise.
        thorough: Whether what is too large to be saved is read as a whole.
        large: Signs of large containers, so that each is read once, also those that hold each other.
    """

    def __init__(self, known: Known, *, thorough: bool = True, large: dict[Any, Any] | None = None) -> None:
        self.known = known
        self._large: dict[Any, Any] = {} if large is None else large  # with the container, so that its id stays
        self.thorough = thorough
        self.first: dict[int, tuple[str, Any]] = {}  # path of the first visit, and the object, so that its id stays
        self.memory: dict[int, str] = {}  # path of the first tensor or array in a block of memory
        self.code: dict[Any, Any] = {}  # a class and an object of it; the code of a function and the function

    def visit(self, value: Any, path: str, *, signed: bool = True, weights: bool = False) -> Node:
        """Return what is at a path.

        Args:
            value: The object there.
            path: How it is reached.
            signed: Whether the signs of leaves and bulks are needed.
            weights: Whether it is part of a module or an optimizer, and read as a whole.
        """
        kind: Any = type(value)
        if kind in ATOMS:
            return Node("atom", atom_sign(value))
        if (name := self.known.names.get(id(value))) is not None:
            return Node("known" if name else "constant", name)
        if is_leaf(kind):
            if is_shared(kind) and (earlier := self._seen(value, path)):
                return Node("same", Same(earlier))
            thorough = self.thorough or weights
            sign = (self._leaf_sign(value, thorough=thorough), self.shared_with(value, path)) if signed else None
            return Node("leaf", sign)
        is_container = CONTAINERS.get(kind.__name__) is kind
        if not is_container and is_infrastructure(kind):
            return Node("constant", None)
        is_own = kind not in (tuple, frozenset, torch.Size) or holds_tuples(value)
        if is_own and (earlier := self._seen(value, path)):
            return Node("same", Same(earlier))
        if is_container:
            return self._visit_items(value, signed=signed)
        return self._visit_object(value)

    def _leaf_sign(self, value: Any, *, thorough: bool) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            return self._large_sign(value)
        return leaf_sign(value, thorough=thorough)

    def _seen(self, value: Any, path: str) -> str:
        earlier = self.first.setdefault(id(value), (path, value))[0]
        return earlier if earlier != path else ""

    def shared_with(self, value: Any, path: str) -> str:
        """Return the path of the first tensor or array in the same memory; empty: this one."""
        first = self.first_in_memory(value, path)
        return first if first != path else ""

    def first_in_memory(self, value: Any, path: str) -> str:
        """Return the name or the path of the first tensor or array in the memory of one."""
        if not (address := memory_of(value)):
            return path
        return self.known.memory.get(address) or self.memory.setdefault(address, path)

    def _visit_items(self, value: Any, *, signed: bool) -> Node:
        name, size = type(value).__name__, len(value)
        if size > MAX_ITEMS:
            return Node("bulk", (name, size, self._large_sign(value) if signed else None))
        if (sign := bulk_sign(value)) is not None:
            return Node("bulk", (name, size, sign))
        return Node("items", (name, size, _keys_sign(value)), children_of(value))

    def _large_sign(self, value: Any) -> Any:
        key = id(value), self.thorough
        if key not in self._large:
            self._large[key] = value, None  # its sign where it holds itself
            items = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
            sign = bulk_sign(items) if len(items) <= MAX_HASHED_ITEMS else None
            self._large[key] = value, self._sign_of_large(items) if sign is None else sign
        return self._large[key][1]

    def _sign_of_large(self, value: Any) -> LargeSign:
        items = list(value.items() if isinstance(value, Mapping) else value)
        sampled = [*items[:: -(-len(items) // NUM_SAMPLED_ITEMS)], *items[-NUM_SAMPLED_ITEMS:]]
        total = bulk_sign(value) if self.thorough and len(items) > MAX_HASHED_ITEMS else None
        if self.thorough and len(items) <= MAX_HASHED_ITEMS:
            parts = (tuple(items[start : start + MAX_ITEMS]) for start in range(0, len(items), MAX_ITEMS))
            total = hash(tuple(fingerprint(part, self.known, large=self._large) for part in parts))
        return LargeSign(fingerprint(tuple(sampled), self.known, thorough=False, large=self._large), total)

    def _visit_object(self, value: Any) -> Node:
        kind: Any = type(value)
        label = label_of(value)
        is_function = isinstance(value, FunctionType)
        self.code.setdefault(value.__code__ if is_function else value if isinstance(value, type) else kind, value)
        if has_position(kind):
            return Node("opaque", (label, _position_of(value)))
        if kind.__module__ == "multiprocessing.managers":  # its attributes are addresses in the manager's process
            return Node("opaque", (label, proxy_content(value)))
        parts = parts_of(value)
        children = tuple((f".{name}", part) for name, part in parts.items())
        if isinstance(value, CODE) or parts or isinstance(value, (*BASES, random.Random)):
            items = base_container(value)
            inner = () if items is None else ((CONTENT, items),)
            return Node("object", (label, tuple(parts)), (*inner, *children))
        return Node("object", (label, ())) if hasattr(value, "__dict__") else Node("opaque", (label, _reduced(value)))


def children_of(container: Any) -> tuple[tuple[str, Any], ...]:
    """Return the items of a container, by what their paths add; keys that are objects come before their values."""
    if not isinstance(container, Mapping):
        return tuple((f"[{number}]", item) for number, item in enumerate(container))
    found: list[tuple[str, Any]] = []
    for number, (key, item) in enumerate(container.items()):
        if type(key) in ATOMS:
            found.append((f"[{key!r}]", item))
        else:
            found += [(f"[key {number}]", key), (f"[item {number}]", item)]
    return tuple(found)


def base_container(value: Any) -> Any:
    """Return the content of an object whose class inherits from a container, as a plain container."""
    if isinstance(value, random.Random):
        return value.getstate()
    base: Any = next((kind for kind in BASES if isinstance(value, kind)), None)
    if base is None:
        return None
    if issubclass(base, dict):
        return dict(base.items(value))
    return {set: set, tuple: tuple}.get(base, list)(base.__iter__(value))


def fingerprint(value: Any, known: Known, *, thorough: bool = True, large: dict[Any, Any] | None = None) -> int:
    """Return a hash that differs after something in a value changed; the other arguments are those of a `Walk`."""
    signs = (
        repr((path, node.sign)).encode()
        for path, _, node in scan(Walk(known, thorough=thorough, large=large), value, "")
    )
    return digest(b"|".join(signs))


def scan(walk: Walk, value: Any, path: str, *, signed: bool = True) -> Iterator[tuple[str, Any, Node]]:
    """Yield the path, the object and the node of each thing in a value, without the items of a bulk."""
    pending = [(path, value, False, 0)]
    while pending:
        path, value, weights, depth = pending.pop()
        node = walk.visit(value, path, signed=signed, weights=weights)
        yield path, value, node
        if node.form in ("items", "object") and depth < MAX_DEPTH:
            weights = weights or holds_weights(value)
            pending += [(path + name, child, weights, depth + 1) for name, child in reversed(node.children)]


def holds_weights(value: Any) -> bool:
    """Return whether what an object holds is weights, of any size."""
    return isinstance(value, (torch.nn.Module, torch.optim.Optimizer))


def _keys_sign(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(repr(key) if type(key) in ATOMS else "" for key in value) if len(value) <= MAX_ITEMS else None
    return getattr(value, "maxlen", None)


def _position_of(iterator: Any) -> Any:
    """Return what differs after an iterator moved; something new each time where nothing can be read."""
    if isinstance(iterator, GeneratorType):
        frame = iterator.gi_frame
        return frame and (frame.f_lasti, _brief([*frame.f_locals.values()]))
    position = getattr(iterator, "_num_yielded", None)  # of a DataLoader
    hint = length_hint(iterator, -1) if position is None else position
    if hint >= 0:
        return hint
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 and 3.13 deprecate it for itertools
            kind, *content = iterator.__reduce__()
    except Exception:  # noqa: BLE001 - any class may refuse in a way of its own
        return urandom(8)
    return _brief(content) if kind is type(iterator) else urandom(8)


def _brief(value: Any, depth: int = 3) -> Any:
    """Return what differs, in this process, after plain values or iterators in lists and tuples changed."""
    if type(value) in ATOMS:
        return repr(value)
    if isinstance(value, (list, tuple)):
        return len(value), *(_brief(part, depth - 1) for part in value[: NUM_BRIEF if depth else 0])
    return _position_of(value) if has_position(cast("Any", type(value))) else id(value)


def _reduced(value: Any) -> Any:
    """Return what pickle reads of an object without attributes, such as a C type; None where it reads nothing."""
    try:
        if is_database(cast("Any", type(value))):
            return getattr(value, "connection", value).total_changes
        return repr(value.__reduce_ex__(4)[1:])
    except Exception:  # noqa: BLE001 - any class may refuse in a way of its own
        return None
