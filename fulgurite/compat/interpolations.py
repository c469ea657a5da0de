"""Read YAML, and count what the interpolations of a config expand to, without calling its resolvers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container, Node

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is faster, and some builds of PyYAML lack it
# resolvers that only read the config or make a part of it; others could read the environment or a server
READ_CONFIG = ("oc.select", "oc.dict.keys", "oc.dict.values", "oc.create", "oc.decode", "oc.deprecated")
MAX_IN_TEXT = 2_000  # interpolations in one text, which its parser takes half a second to read


class _TooLarge(BaseException):
    """The limit is reached; OmegaConf wraps other exceptions."""


class Expansion:
    """The number of values of a config with each interpolation replaced by its value, each computed once.

    Args:
        max_values: Most values that interpolations may add.
        max_text: Most characters of a text.
    """

    def __init__(self, max_values: int, max_text: int) -> None:
        self.max_values, self.max_text = max_values, max_text
        self._counts = [0]  # of the values that are being resolved, the innermost last
        self._resolved: dict[int, tuple[Node, Node | None, int]] = {}  # by id of the node: it, its value, its count
        self._sizes: dict[int, tuple[Node, int]] = {}  # of containers, by id

    def find_excess(self, cfg: DictConfig) -> str:
        """Return the key with which a config reaches the limit, an empty string for a config within it."""
        with self._counting():
            return self._find_excess(cfg, "")

    def _find_excess(self, node: Any, key: str) -> str:
        if isinstance(node, Container) and not OmegaConf.is_interpolation(node):
            form = "{}[{}]" if isinstance(node, ListConfig) else "{}.{}" if key else "{}{}"
            found = (self._find_excess(child, form.format(key, name)) for name, child in _children(node))
            return next(filter(None, found), "")
        try:
            self._add(self._size(node))
        except _TooLarge:
            return key
        return ""

    def _size(self, node: Any) -> int:
        """Return the number of values that a node and the interpolations in it stand for."""
        if isinstance(node, Node) and node._is_interpolation():
            if str(node._value()).count("${") > MAX_IN_TEXT:
                raise _TooLarge
            self._counts.append(0)
            try:
                node = node._maybe_dereference_node()
            except Exception:  # noqa: BLE001 - as below
                node = None
            count = self._counts.pop()
            return count + (self._size(node) if isinstance(node, Container) else 0)
        if not isinstance(node, Container):
            return 0
        if id(node) not in self._sizes:
            self._sizes[id(node)] = node, 0  # while open: a circle is reported elsewhere
            size = len(node) if isinstance(node, (DictConfig, ListConfig)) and not node._is_none() else 0
            for _, child in _children(node):
                size += self._size(child)
                self._check(size)
            self._sizes[id(node)] = node, size
        return self._sizes[id(node)][1]

    def _add(self, count: int) -> None:
        self._counts[-1] += count
        self._check(self._counts[-1])

    def _check(self, count: int) -> None:
        if count > self.max_values:
            raise _TooLarge

    @contextmanager
    def _counting(self) -> Iterator[None]:
        resolve, call = Container._resolve_interpolation_from_parse_tree, Container._evaluate_custom_resolver

        def resolve_once(container: Container, parent: Any, value: Node, *args: Any, **kwargs: Any) -> Node | None:
            if id(value) not in self._resolved:
                self._counts.append(1)
                try:
                    result = resolve(container, parent, value, *args, **kwargs)
                except Exception:  # noqa: BLE001 - of any kind; who uses the value reports it
                    result = AnyNode("")
                if result is not None and not isinstance(result, Container) and len(str(result)) > self.max_text:
                    raise _TooLarge
                self._resolved[id(value)] = value, result, self._counts.pop()
            _, result, count = self._resolved[id(value)]
            self._add(count)
            return result

        def call_if_it_reads(container: Container, key: Any, node: Node, inter_type: str, *args: Any, **kw: Any) -> Any:
            if inter_type not in READ_CONFIG:
                return ""
            return call(container, key, node, inter_type, *args, **kw)

        Container._resolve_interpolation_from_parse_tree = resolve_once  # type: ignore[method-assign, assignment]
        Container._evaluate_custom_resolver = call_if_it_reads  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Container._resolve_interpolation_from_parse_tree = resolve  # type: ignore[method-assign]
            Container._evaluate_custom_resolver = call  # type: ignore[method-assign]


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the children of a container as they are written, by key."""
    content = node._content
    if isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, list):
        yield from enumerate(content)
