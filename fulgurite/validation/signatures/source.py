"""Python source read without running it: which file a module is, and where a name in it comes from.

Importing lightning costs four CPU seconds, parsing the file that defines a class costs ten milliseconds: a config can
be checked against signatures long before anything is imported. What source alone cannot tell (compiled modules, names
made at run time) is `None`: unknown.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from fulgurite.core.project import project_root

# A module that binds names while it is imported has more names than its source shows.
_BINDS_AT_RUN_TIME = re.compile(
    r"globals\(\)\s*(\[[^\]]*\]\s*=[^=]|\.update)"
    r"|setattr\(\s*sys\.modules|sys\.modules\[__name__\]\s*=|^\s*def __getattr__\(name",
    re.MULTILINE,
)
_BLOCKS = (ast.If, ast.Try, ast.With, ast.For, ast.While)


@dataclass(frozen=True)
class NotFound:
    """A name that surely does not exist.

    Args:
        holder: The deepest module or class that does exist; empty when not even the package is there.
        missing: The first part of the dotted path that is not there; empty when the path ends at a module.
        known: Names that would have been right in its place.
        is_module: A module is missing, rather than a name in a module.
    """

    holder: str
    missing: str
    known: tuple[str, ...] = ()
    is_module: bool = False


@dataclass(frozen=True)
class Definition:
    """Where a name is bound: the syntax and the module whose names that syntax uses."""

    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr
    module: Module

    @property
    def is_class(self) -> bool:
        """True for a class statement."""
        return isinstance(self.node, ast.ClassDef)


@dataclass(frozen=True)
class Binding:
    """One statement that binds a name; `spare` ones only count where the others lead nowhere (except, else)."""

    node: ast.AST | None = None
    origin: tuple[str, str] | None = None  # (module, name in it, or "" for the module itself)
    fallback: bool = False


@dataclass(eq=False)
class Module:
    """A module's source, parsed when first asked for.

    Args:
        name: Dotted name.
        file: The source file; None when there is none to read.
        folders: Where the package's submodules lie; empty for a plain module.
        opaque: Not written in Python that could be read: any name may be in it.
    """

    name: str
    file: Path | None
    folders: Sequence[str] = ()
    opaque: bool = False
    stars: list[str] = field(default_factory=list)

    @cached_property
    def text(self) -> str:
        """The source; empty when it cannot be read."""
        return self.file.read_text(encoding="utf-8", errors="replace") if self.file else ""

    @cached_property
    def dynamic(self) -> bool:
        """More names may be in it than the source shows."""
        self.names  # noqa: B018 - finds out whether the source can be parsed
        return self.opaque or bool(_BINDS_AT_RUN_TIME.search(self.text))

    @cached_property
    def names(self) -> dict[str, list[Binding]]:
        """The statements at module level that bind each name."""
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError):  # told with its line when the module is imported
            self.opaque = True
            return {}
        found: dict[str, list[Binding]] = {}
        self._index(tree.body, found, is_fallback=False)
        return found

    @cached_property
    def exported(self) -> frozenset[str] | None:
        """What `from module import *` brings, where `__all__` says so in plain strings; else None."""
        bindings = self.names.get("__all__", [])
        names: set[str] = set()
        for binding in bindings:
            if not isinstance(binding.node, (ast.List, ast.Tuple)):
                return None
            for item in binding.node.elts:
                if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
                    return None
                names.add(item.value)
        return frozenset(names) if bindings else None

    def absolute(self, relative: str, level: int) -> str:
        """Return the full name of what a relative import names from here."""
        if level == 0:
            return relative
        package = self.name if self.folders else self.name.rpartition(".")[0]
        for _ in range(level - 1):
            package = package.rpartition(".")[0]
        return f"{package}.{relative}" if relative else package

    def _index(self, body: Sequence[ast.stmt], found: dict[str, list[Binding]], *, is_fallback: bool) -> None:
        for node in body:
            if isinstance(node, _BLOCKS):
                self._index_block(node, found, is_fallback=is_fallback)
            elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                self.stars.append(self.absolute(node.module or "", node.level))
            for name, bound, origin in self._bound_by(node):
                found.setdefault(name, []).append(Binding(bound, origin, is_fallback))

    def _bound_by(self, node: ast.stmt) -> Iterator[tuple[str, ast.AST | None, tuple[str, str] | None]]:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if not is_overload(node):
                yield node.name, node, None
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and node.value is not None:
                    yield target.id, node.value, None
                for item in target.elts if isinstance(target, (ast.Tuple, ast.List)) else ():
                    if isinstance(item, ast.Name):  # what it is bound to is known only at run time
                        yield item.id, None, None
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or name, None, (name, "")
        elif isinstance(node, ast.ImportFrom):
            module = self.absolute(node.module or "", node.level)
            for alias in node.names:
                yield alias.asname or alias.name, None, (module, alias.name)

    def _index_block(self, node: ast.stmt, found: dict[str, list[Binding]], *, is_fallback: bool) -> None:
        taken = _version_test(node.test) if isinstance(node, ast.If) else None
        orelse = getattr(node, "orelse", [])
        if taken is not None:
            self._index(getattr(node, "body" if taken else "orelse"), found, is_fallback=is_fallback)
            return
        self._index(getattr(node, "body", []), found, is_fallback=is_fallback)
        self._index(orelse, found, is_fallback=is_fallback or isinstance(node, ast.If))
        for handler in getattr(node, "handlers", []):
            self._index(handler.body, found, is_fallback=True)
        self._index(getattr(node, "finalbody", []), found, is_fallback=is_fallback)


Found = Definition | Module


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Tell whether a definition only declares one of several signatures to type checkers."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _version_test(test: ast.expr) -> bool | None:
    """Answer `sys.version_info >= (3, 11)` for the running Python; None for any other test."""
    if not (isinstance(test, ast.Compare) and ast.unparse(test.left) == "sys.version_info" and len(test.ops) == 1):
        return None
    try:
        wanted = ast.literal_eval(test.comparators[0])
    except ValueError:
        return None
    here = tuple(sys.version_info[: len(wanted)]) if isinstance(wanted, tuple) else ()
    answers = (
        {ast.GtE: here >= wanted, ast.Gt: here > wanted, ast.LtE: here <= wanted, ast.Lt: here < wanted} if here else {}
    )
    return answers.get(type(test.ops[0]))


@cache
def find_module(name: str) -> Module | None:
    """Return the module of a dotted name without importing it or its package; None when there is none.

    Args:
        name: Dotted name, e.g. `lightning.pytorch.callbacks`.
    """
    parent, _, last = name.rpartition(".")
    if not parent:
        return _as_module(name, _top_level_spec(name))
    package = find_module(parent)
    if package is None or not package.folders or not last.isidentifier():
        return None
    # a path given to the finder keeps it from importing the package to learn where its submodules lie, and the last
    # part of the name from asking a package without an __init__.py for one that was imported
    return _as_module(name, PathFinder.find_spec(last, list(package.folders)))


def _top_level_spec(name: str) -> ModuleSpec | None:
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: already imported by something that gave it no spec
        spec = None
    return spec or PathFinder.find_spec(name, [str(project_root())])


def _as_module(name: str, spec: ModuleSpec | None) -> Module | None:
    if spec is None:
        return None
    folders = tuple(spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.origin and spec.has_location and spec.origin.endswith(".py") else None
    return Module(name, file, folders, opaque=file is None and spec.loader is not None and not folders)


def submodules(module: Module) -> Iterator[str]:
    """Yield the names of the modules that lie in a package."""
    for folder in map(Path, module.folders):
        if folder.is_dir():
            yield from (
                entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file()
            )
