"""Restore what `Encoder` converted, in the objects of a resumed run where this is possible."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fulgurite.core.exactness import name_inexact
from fulgurite.exact_resume.objects.encoding import FACTORIES, KEPT
from fulgurite.exact_resume.objects.memory import view_of
from fulgurite.exact_resume.objects.walk import BASES, CONTENT, Walk, base_container
from fulgurite.exact_resume.values.kinds import (
    ATOMS,
    CONTAINERS,
    can_make,
    find_class,
    is_users,
    label_of,
    parts_of,
    set_part,
)
from fulgurite.exact_resume.values.leaves import leaf_from_plain

FIXED = (tuple, frozenset)  # what they hold cannot be replaced
MISSING: Any = object()  # there is nothing at a path
NOT_IMPORTED = (
    "the interrupted run had an object of {} here, a class that is not imported when the run resumes. Import it at the "
    "top of the module that uses it."
)
NOT_MADE = (
    "the interrupted run had {} here, and this run has not. Make it before training starts, with the code of the "
    "interrupted run."
)


class Restorer:
    """Restores values in place, so that others who hold an object see what was restored.

    Args:
        walk: A walk that visited the objects of the resumed run.
        objects: What it found, by path.
        device: The device of tensors of an accelerator.
        changed: Gets the paths of what is restored.
    """

    def __init__(self, walk: Walk, objects: Mapping[str, Any], device: torch.device, changed: set[str]) -> None:
        self._walk, self._objects, self._device, self._changed = walk, objects, device, changed
        self._known = walk.known.objects
        self._restored: dict[str, Any] = {}

    def restore(self, plain: Any, current: Any, path: str) -> Any:
        """Return the value that `Encoder.encode` converted. `current` is what is at the path now, or `MISSING`."""
        if plain == KEPT:
            return current
        kind, content = plain if isinstance(plain, list) else ("", "")
        if kind in ("known", "same"):
            found = self._known.get(content, current) if kind == "known" else self._objects.get(content, current)
            restored = self._restored.get(content, found) if kind == "same" else found
            if restored is not current:
                self._changed.add(path)
            return restored
        self._changed.add(path)
        if not isinstance(plain, list):
            return plain
        if kind == "object":
            restored = self._restore_object(content, current, path)
        elif kind in CONTAINERS:
            restored = self._restore_items(kind, content, current, path)
        else:
            restored = self._restore_leaf(kind, content, current, path)
        self._restored[path] = restored
        return restored

    def _is_own(self, current: Any, path: str) -> bool:
        """Return whether no other path leads to an object; a path that no longer does gets an object of its own."""
        return self._walk.first.setdefault(id(current), (path, current))[0] == path

    def _restore_leaf(self, kind: str, content: Any, current: Any, path: str) -> Any:
        layout: list[Any] = [""]
        if kind in ("tensor", "array"):
            *content, found = content
            layout = found if isinstance(found, list) else [found]
        plain, shared = [kind, content], layout[0]
        is_alike = len(layout) == 1 or (
            _shape_of(current) == tuple(content[1] if kind == "array" else content[0].shape)
            and _strides_of(current) == _strides(layout[2], _shape_of(current))
        )
        if not (is_alike and self._is_own(current, path) and self._is_own_memory(current, path, shared)):
            holders = (self._restored.get(shared), self._objects.get(shared), self._known.get(shared))
            holder = next((each for each in holders if each is not None), None)
            can_view = len(layout) > 1 and (holder is not None or not shared)
            current = view_of(holder, layout, plain, self._device) if can_view else None
            if isinstance(current, torch.Tensor) and 0 in current.stride():
                return current  # an expanded view has its elements now, and cannot be written as a whole
        return leaf_from_plain(plain, current, self._device)

    def _is_own_memory(self, current: Any, path: str, shared: str) -> bool:
        """Return whether a tensor or an array shares its memory with what it shared it with when it was saved."""
        if not isinstance(current, (torch.Tensor, np.ndarray)):
            return True
        return self._walk.first_in_memory(current, path) == (shared or path)

    def _restore_items(self, kind: str, content: Any, current: Any, path: str) -> Any:
        factory, maxlen = "", None
        if kind == "defaultdict":
            factory, content = content
        elif kind == "deque":
            maxlen, content = content
        container = CONTAINERS[kind]
        if type(current) is not container or not self._is_own(current, path):
            current = MISSING
        if kind == "deque" and current is not MISSING and current.maxlen != maxlen:
            current = MISSING
        if kind in ("tuple", "frozenset", "Size"):
            held = [] if current is MISSING else list(current)
            return container(self._items(content, held, path))
        target = current
        if target is MISSING:
            target = deque(maxlen=maxlen) if kind == "deque" else container()
            if kind == "defaultdict":
                target = defaultdict(FACTORIES.get(factory))
        self._restored[path] = target
        if isinstance(target, dict):
            _fill(target, self._pairs(content, target, path))
        else:
            _fill(target, self._items(content, list(target), path))
        return target

    def _items(self, content: list[Any], held: list[Any], path: str) -> list[Any]:
        if all(type(plain) in ATOMS for plain in content):
            return content
        held = held + [MISSING] * (len(content) - len(held))
        found = (self.restore(plain, held[number], f"{path}[{number}]") for number, plain in enumerate(content))
        return [item for item in found if item is not MISSING]

    def _pairs(self, content: list[Any], target: dict[Any, Any], path: str) -> dict[Any, Any]:
        keys, pairs = list(target), {}
        for number, (plain_key, plain) in enumerate(content):
            key, name = plain_key, f"[{plain_key!r}]"
            if isinstance(plain_key, list):
                held = keys[number] if number < len(keys) else MISSING
                key, name = self.restore(plain_key, held, f"{path}[key {number}]"), f"[item {number}]"
            if key is not MISSING:
                item = self.restore(plain, target.get(key, MISSING), path + name)
                pairs.update({} if item is MISSING else {key: item})
        return pairs

    def _restore_object(self, content: Any, current: Any, path: str) -> Any:
        label, parts = content
        is_alike = current is not MISSING and label_of(current) == label
        if not is_alike or isinstance(current, FIXED) or not self._is_own(current, path):
            kind: Any = type(current) if is_alike else find_class(label)
            if not isinstance(kind, type) or not (can_make(kind) or issubclass(kind, FIXED)):
                name_inexact(path, _why_unknown(label))
                return current
            if issubclass(kind, FIXED):
                held = base_container(current) if is_alike else MISSING
                items = self.restore(parts.get(CONTENT, KEPT), held, path + CONTENT)
                if items is MISSING:
                    return current
                made, attributes = _make_fixed(kind, items), vars(current) if hasattr(current, "__dict__") else {}
                getattr(made, "__dict__", {}).update(attributes)
                current = made
            else:
                current = kind.__new__(kind)
        if isinstance(current, type):
            return current
        self._restored[path] = current
        held = parts_of(current)
        for name, plain in parts.items():
            if name == CONTENT:
                self._restore_content(plain, current, path)
                continue
            part = self.restore(plain, held.get(name, MISSING), f"{path}.{name}")
            if part is not held.get(name, MISSING):
                set_part(current, name, part)
        if is_users(type(current).__module__):
            for name in held.keys() - parts.keys() & getattr(current, "__dict__", {}).keys():
                del vars(current)[name]
        return current

    def _restore_content(self, plain: Any, current: Any, path: str) -> None:
        if plain == KEPT:
            return
        if isinstance(current, random.Random):
            current.setstate(self.restore(plain, MISSING, path + CONTENT))
        elif isinstance(current, dict):
            _fill(current, self._pairs(plain[1], current, path + CONTENT))
        elif not isinstance(current, FIXED):
            _fill(current, self._items(plain[1], list(current), path + CONTENT))


def _why_unknown(label: str) -> str:
    """Return why an object cannot be made in a resumed run, by its label."""
    what, _, name = label.rpartition(" ")
    if not what and "<locals>" not in name and find_class(name) is None:
        return NOT_IMPORTED.format(name.replace(":", "."))
    described = name.replace(":", ".", 1).replace(":", ", line ")
    return NOT_MADE.format(f"{what or 'an object of class'} {described}")


def _shape_of(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, (torch.Tensor, np.ndarray)) else None


def _strides_of(value: Any) -> tuple[int, ...]:
    """Return the strides of a tensor or an array: results of a product differ with them."""
    return _strides(value.stride() if isinstance(value, torch.Tensor) else value.strides, value.shape)


def _strides(strides: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of the axes that have more than one element."""
    return tuple(stride for stride, size in zip(strides, shape, strict=True) if size > 1)


def _make_fixed(kind: Any, items: Any) -> Any:
    base: Any = tuple if issubclass(kind, tuple) else frozenset
    try:
        return base.__new__(kind, items)
    except TypeError:  # of C, such as torch.return_types.max
        return kind(items)


def _fill(target: Any, items: Any) -> None:
    """Give a container other items, without calling code of the user."""
    base: Any = next(kind for kind in BASES if isinstance(target, kind))
    base.clear(target)
    (base.update if issubclass(base, (dict, set)) else base.extend)(target, items)
