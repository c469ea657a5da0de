"""Find the line that makes the import of a user's own module fail, from source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from fulgurite.validation.signatures.resolve import lookup
from fulgurite.validation.signatures.source import Module, NotFound, find_module

INSTALLED = {"site-packages", "dist-packages"}


class BrokenLine(NamedTuple):
    """A line that raises an error when its file is imported."""

    file: Path
    number: int
    reason: str


def find_broken_line(target: str) -> BrokenLine | None:
    """Return the line that fails when the modules of a dotted path are imported; None unless it fails for certain."""
    seen: set[str] = set()
    return next(_broken_on_import(target, seen), None)


def _broken_on_import(name: str, seen: set[str]) -> Iterator[BrokenLine]:
    """Yield the broken lines of a module, of its packages, and of the own modules that they import."""
    parts = name.split(".")
    yield from chain.from_iterable(_broken(".".join(parts[:end]), seen) for end in range(1, len(parts) + 1))


def _broken(name: str, seen: set[str]) -> Iterator[BrokenLine]:
    module = find_module(name)
    if name in seen or module is None or module.file is None or not _is_own(module):
        return
    seen.add(name)
    is_readable = not module.dynamic or not module.opaque  # `dynamic` parses the file
    if module.error is not None:
        yield BrokenLine(module.file, module.error.lineno or 1, f"SyntaxError: {module.error.msg}. Correct the line")
    if not is_readable or "sys.path" in module.text:  # more may be found at run time
        return
    for node in module.imports:  # those in `try` and `if` may be meant to fail
        for wanted, reason in _imports(node, module):
            if reason:
                yield BrokenLine(module.file, node.lineno, reason)
            yield from _broken_on_import(wanted, seen)


def _imports(node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[tuple[str, str]]:
    """Yield each module that a statement imports, and why that fails, or nothing."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, _explain_missing(alias.name)) for alias in node.names)
        return
    base = module.absolute(node.module or "", node.level)
    yield base, _explain_missing(base)
    source = find_module(base)
    for alias in node.names if source is not None and _is_own(source) else ():
        if alias.name != "*" and source is not None:
            # names of `import *` may be those that a compiled module has
            is_missing = not source.stars and isinstance(lookup(source, alias.name), NotFound)
            reason = f"ImportError: {base} has no {alias.name!r}. Correct the line" if is_missing else ""
            yield f"{base}.{alias.name}", reason


def _explain_missing(name: str) -> str:
    """Return why a module cannot be imported; below installed packages a name may exist at run time."""
    parts = name.split(".")
    if parts[0] in sys.builtin_module_names or parts[0] in sys.modules:
        return ""
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        found = find_module(path)
        if found is None:
            own = "Import from lightning.pytorch" if path == "pytorch_lightning" else "Install it or correct the line"
            return f"ModuleNotFoundError: No module named {path!r}. {own}"
        if not _is_own(found):
            break
    return ""


def _is_own(module: Module) -> bool:
    """Return whether a module is the user's: neither of Python, nor installed, nor of this library."""
    top = module.name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "fulgurite" or module.opaque:
        return module.error is not None
    return not any(INSTALLED & set(Path(place).parts) for place in (module.file, *module.folders) if place)
