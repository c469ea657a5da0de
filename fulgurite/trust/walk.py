"""Paths of the values of a config, and where its interpolations lead, without running a resolver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Resolvers that neither read anything outside of the config nor make objects of text.
HARMLESS = frozenset({"hydra", "now", "steps", "oc.select", "oc.dict.keys", "oc.dict.values"})
RUN_DIR = ("hydra:runtime.output_dir", "hydra.runtime.output_dir", "paths.output_dir")
MAX_EXPANSIONS = 200
_NAME = re.compile(r"\$\{\s*([^:}]*)([:}]?)")
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_PART = re.compile(r"[^.\[\]]+")


def join(key: str, part: str | int) -> str:
    """Return the path of a child: `a.b` or `a[0]`."""
    return f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}" if key else str(part)


def leaves(written: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each plain value of a config with its path; empty dictionaries and lists have none."""
    if isinstance(written, dict):
        for name, child in written.items():
            yield from leaves(child, join(key, str(name)))
    elif isinstance(written, list):
        for position, child in enumerate(written):
            yield from leaves(child, join(key, position))
    else:
        yield key, written


def last_part(key: str) -> str:
    """Return the last name of a path, without a position in a list."""
    return re.sub(r"(\[\d+\])+$", "", key).rpartition(".")[2]


def resolvers(text: str) -> Iterator[tuple[str, str]]:
    """Yield each resolver that a text calls and the start of its arguments; the name is "" for a computed one."""
    for found in _NAME.finditer(text):
        name, end = found.groups()
        if "$" in name:
            yield "", ""
        elif end == ":":
            yield name.strip(), text[found.end() :].lstrip()


def canonical(path: str) -> str:
    """Return a path with positions as names, `a.0.b` for `a[0].b`, as relative interpolations give them."""
    return ".".join(_PART.findall(path))


def look_up(config: Any, path: str) -> Any:
    """Return the value at a dotted path as written; None for a missing one."""
    node = config
    for part in _PART.findall(path):
        if isinstance(node, Mapping):
            node = node.get(part)
        else:
            node = node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else None
    return node


def expand(config: Mapping[str, Any], text: str, key: str, run_dir: str = "run") -> tuple[str, set[str]]:
    """Return a text with its interpolations replaced, and the canonical paths of the values that it was made of.

    A reference gives the value that it names, the folder of the run gives `run_dir`, a variable of the environment its
    value, `now` its format, and other resolvers the word `runtime`. Interpolations beyond `MAX_EXPANSIONS` stay.
    """
    seen: set[str] = set()
    budget = [MAX_EXPANSIONS]

    def replace(text: str, key: str) -> str:
        while budget[0] and (found := _INNERMOST.search(text)):
            budget[0] -= 1
            text = text[: found.start()] + value_of(found[1].strip(), key) + text[found.end() :]
        return text

    def value_of(inside: str, key: str) -> str:
        name, colon, argument = (part.strip() for part in inside.partition(":"))
        first, _, default = (part.strip(" \t'\"") for part in argument.partition(","))
        if f"{name}{colon}{argument}" in RUN_DIR:
            return run_dir
        if name == "oc.env":
            return os.environ.get(first, default)
        if colon and name not in {"oc.select", "hydra"}:
            return argument.strip("'\"") if name == "now" else "runtime"  # a format may be any text
        path = f"hydra.{argument}" if name == "hydra" else _absolute(first if colon else inside, key)
        value = look_up(config, path)
        seen.update([canonical(path), *(canonical(below) for below, _ in leaves(value, path))])
        return "runtime" if isinstance(value, (dict, list)) else default if value is None else replace(str(value), path)

    return replace(text, key), seen


def _absolute(path: str, key: str) -> str:
    """Return the path that an interpolation at a key names: `.x` is relative to the key's parent."""
    dots = len(path) - len(path.lstrip("."))
    if not dots:
        return path
    parts = _PART.findall(key)
    return ".".join([*parts[: max(len(parts) - dots, 0)], path.lstrip(".")])
