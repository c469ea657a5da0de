"""Read a composed config for the checks: values as written, and resolved if no run is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fulgurite.trust import walk

MISSING = "???"
join, parent, nodes, leaves, leaves_of = walk.join, walk.parent, walk.nodes, walk.leaves, walk.leaves_of
# resolvers that work only during a run, or must not run before a value is used
RUNTIME_RESOLVERS = ("hydra", "now", "secret", "data_attr", "steps")
# Numbers of optimizer steps, which a partial block gets when it is called.
STEP_COUNT = re.compile(r"\$\{\s*steps\s*:\s*(total|per_epoch)\s*\}")
RUNTIME = re.compile(r"\$\{\s*(" + "|".join(RUNTIME_RESOLVERS) + r")\s*:")
REFERENCE = re.compile(r"\$\{\s*([A-Za-z_][\w.\-\[\]]*)\s*\}")
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")  # of a path: a name, or a position in a list


class Unresolved:
    """A value that only a run can resolve, or whose error another check reports."""


UNKNOWN = Unresolved()


class ConfigView:
    """A composed config, with or without its `hydra` part, written and resolved; it is not changed."""

    def __init__(self, cfg: DictConfig) -> None:
        content = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(content, dict)
        self.cfg = cfg
        self.hydra = content.get("hydra")
        self.written: dict[str, Any] = {str(key): value for key, value in content.items() if key != "hydra"}
        self._resolved: dict[str, Any] = {}

    def resolve(self, written: Any, key: str) -> Any:
        """Return the value at `key` with its interpolations resolved, `UNKNOWN` for unresolved ones."""
        if isinstance(written, dict):
            return {name: self.resolve(child, join(key, str(name))) for name, child in written.items()}
        if isinstance(written, list):
            return [self.resolve(child, join(key, position)) for position, child in enumerate(written)]
        if written == MISSING:
            return UNKNOWN
        if not is_interpolation(written):
            return written
        value = self.resolve_interpolation(written, key)
        return UNKNOWN if isinstance(value, Exception) else value

    def resolve_interpolation(self, written: str, key: str) -> Any:
        """Return what an interpolation resolves to, `UNKNOWN`, or the error it raises."""
        if key not in self._resolved:
            self._resolved[key] = UNKNOWN if self._is_runtime(written) else self._select(key)
        return self._resolved[key]

    def _select(self, key: str) -> Any:
        try:
            value = OmegaConf.select(self.cfg, key, throw_on_missing=True, throw_on_resolution_failure=True)
            return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        except (OmegaConfBaseException, ValueError) as error:
            return error

    def _is_runtime(self, written: Any, depth: int = 0) -> bool:
        """Return whether an interpolation, or one it refers to, needs a running job."""
        if not is_interpolation(written) or depth > 8:
            return False
        if RUNTIME.search(written):
            return True
        return any(self._is_runtime(self._written_at(name), depth + 1) for name in REFERENCE.findall(written))

    def parent_of(self, key: str) -> Any:
        """Return the dictionary or the list, as written, that holds a key; None for a missing one."""
        return self._written_at(parent(key))

    def _written_at(self, key: str) -> Any:
        node: Any = self.written
        for name, position in _PART.findall(key):
            if isinstance(node, list):
                node = node[int(position)] if position and int(position) < len(node) else None
            else:
                node = node.get(name or position) if isinstance(node, dict) else None
        return node


def is_interpolation(written: Any) -> bool:
    """Return whether a written value is, or contains, an interpolation."""
    return isinstance(written, str) and "${" in written


def paths_of(written: Any) -> Iterator[str]:
    """Yield the path of every key of a config outside of lists, those of dictionaries before those inside them."""
    return (path for path, _ in nodes(written) if path and "[" not in path)
