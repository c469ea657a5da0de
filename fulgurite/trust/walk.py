"""Paths of the values of a config, and where its interpolations lead, without running a resolver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fulgurite.core.formatting import parse_count

# Resolvers that neither read anything outside of the config nor make objects of text. A foreign file may not call those
# that make a list: of keys, which are not judged, or of values, which are judged at their own place only.
FOREIGN = frozenset({"hydra", "now", "steps", "oc.select"})
HARMLESS = FOREIGN | {"oc.dict.keys", "oc.dict.values"}
RUN_DIR = ("hydra:runtime.output_dir", "hydra.runtime.output_dir", "paths.output_dir")
MAX_EXPANSIONS = 200
_NAME = re.compile(r"\$\{\s*([^:}]*)([:}]?)")
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_REFERENCE = re.compile(r"\s*\$\{([^${}]*)\}\s*")  # a value that is one interpolation
MAX_INLINED = 20_000  # values
_PART = re.compile(r"[^.\[\]]+")


def join(key: str, part: str | int) -> str:
    """Return the path of a child: `a.b` or `a[0]`."""
    return f"{key}[{part}]" if isinstance(part, int) else f"{key}.{part}" if key else str(part)


def parent(key: str) -> str:
    """Return the path of what holds a value: `a` for `a.b` and `a[0]`, empty for `a`."""
    return key[: max(key.rfind("."), key.rfind("["), 0)]


def nodes(written: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a config with its path, dictionaries and lists before what is in them."""
    yield key, written
    if isinstance(written, dict):
        for name, child in written.items():
            yield from nodes(child, join(key, str(name)))
    elif isinstance(written, list):
        for position, child in enumerate(written):
            yield from nodes(child, join(key, position))


def leaves(written: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each plain value of a config with its path; empty dictionaries and lists have none."""
    return ((path, value) for path, value in nodes(written, key) if not isinstance(value, (dict, list)))


def leaves_of(written: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each plain value, list and empty dictionary of a config with its key."""
    if isinstance(written, dict) and written:
        for name, child in written.items():
            yield from leaves_of(child, join(key, str(name)))
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
    """Return the value at a dotted path as written; None for a missing one. References on the way are followed."""
    return _find(config, path, MAX_EXPANSIONS)[1]


def _find(config: Any, path: str, budget: int) -> tuple[str, Any]:
    """Return where a path leads to, with the references on the way followed, and the value there as written."""
    node, place = config, ""
    for part in _PART.findall(path):
        while isinstance(node, str) and budget and (named := _reference(node, place)):
            budget -= 1
            place, node = _find(config, named, budget)
        if isinstance(node, Mapping):
            node = node.get(part)
        else:
            position = parse_count(part) if isinstance(node, list) else None
            node = node[position] if position is not None and position < len(node) else None
        place = join(place, part)
    return place, node


def _reference(text: str, key: str) -> str:
    """Return the path that a value names which is one interpolation; empty for other values."""
    found = _REFERENCE.fullmatch(text)
    name, colon, argument = (part.strip() for part in found[1].partition(":")) if found else ("", "", "")
    if colon and name not in {"oc.select", "hydra"}:
        return ""
    first = argument.partition(",")[0].strip(" \t'\"")
    return f"hydra.{argument}" if name == "hydra" else _absolute(first if colon else name, key)


def inlined(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield the values that references to dictionaries and lists bring to other places.

    Each comes as its path there, the paths of what brings it (the value where it is written, and each reference), and
    the value. Where they are too many, the last one is None and has a path that is empty.
    """
    budget = [MAX_INLINED]

    def of(key: str, value: Any, place: str, via: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        named, source, node = (_reference(value, key) if isinstance(value, str) else ""), "", None
        for _ in range(MAX_EXPANSIONS if named else 0):
            source, node = _find(config, named, MAX_EXPANSIONS)
            via = (*via, source)
            named = _reference(node, source) if isinstance(node, str) else ""
            if not named:
                break
        for below, child in leaves(node, source) if isinstance(node, (dict, list)) else ():
            budget[0] -= 1
            if budget[0] < 0 or len(via) > MAX_EXPANSIONS:
                yield "", (via[0],), None
                return
            moved = place + below[len(source) :]
            yield moved, (below, *via), child
            yield from of(below, child, moved, (*via, below))

    for key, value in leaves(dict(config)):
        yield from of(key, value, key, (key,))


def expand(config: Mapping[str, Any], text: str, key: str, run_dir: str = "run") -> tuple[str, set[str]]:
    """Return a text with its interpolations replaced, and the canonical paths of the values that it was made of.

    A reference gives the value that it names, the folder of the run gives `run_dir`, a variable of the environment its
    value, `now` its format, and other resolvers the word `runtime`. Interpolations beyond `MAX_EXPANSIONS` stay, and so
    does one that values make.
    """
    seen: set[str] = set()
    budget = [MAX_EXPANSIONS]

    def replace(text: str, key: str) -> str:
        while budget[0] and (found := _INNERMOST.search(text)):
            budget[0] -= 1
            before, value, after = text[: found.start()], value_of(found[1].strip(), key), text[found.end() :]
            if (before.endswith("$") and value.startswith("{")) or (value.endswith("$") and after.startswith("{")):
                budget[0] = 0  # it would be resolved once more where the text is put into another config
                return f"{before}{value}{after}"
            text = before + value + after
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
