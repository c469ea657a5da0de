"""Read modules and their names from source: parsing a class takes 10 ms, importing lightning 4 CPU seconds.

`None` means unknown: compiled modules, names that a module creates at run time.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.machinery import PathFinder
from itertools import chain
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
    """A dotted path that certainly does not exist."""

    holder: str  # the deepest module or class that exists; empty when the package does not
    missing: str  # the first part that does not exist; empty when the path ends at a module
    valid_names: tuple[str, ...] = ()  # in the holder
    is_module: bool = False  # the missing part names a module


@dataclass(frozen=True)
class Definition:
    """The syntax that a name is bound to."""

    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr
    module: Module  # its names are those that the syntax uses

    @property
    def is_class(self) -> bool:
        """True for a class statement."""
        return isinstance(self.node, ast.ClassDef)


@dataclass(frozen=True)
class Binding:
    """One statement that binds a name."""

    node: ast.AST | None = None
    origin: tuple[str, str] | None = None  # (module, name in it, or "" for the module itself)
    fallback: bool = False  # in `except` or `else`: counts only if the other bindings cannot be followed


@dataclass(eq=False)
class Module:
    """The source of a module, parsed at first use."""

    name: str  # dotted
    file: Path | None  # None when there is no source
    folders: Sequence[str] = ()  # of a package's submodules; empty for a plain module
    opaque: bool = False  # no readable Python source: any name may exist
    stars: list[str] = field(default_factory=list)  # modules of `from module import *`
    imports: list[ast.Import | ast.ImportFrom] = field(default_factory=list)  # at the top level, once `names` is known
    error: SyntaxError | None = None  # of the source, known once `names` is

    @cached_property
    def text(self) -> str:
        """The source; empty when it cannot be read."""
        return self.file.read_text(encoding="utf-8", errors="replace") if self.file else ""

    @cached_property
    def dynamic(self) -> bool:
        """True when the module may have more names than its source shows."""
        self.names  # noqa: B018 - sets `opaque`
        return self.opaque or bool(_BINDS_AT_RUN_TIME.search(self.text))

    @cached_property
    def names(self) -> dict[str, list[Binding]]:
        """The statements at module level that bind each name."""
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError) as error:
            self.opaque = True
            self.error = error if isinstance(error, SyntaxError) else None
            return {}
        self.imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        found: dict[str, list[Binding]] = {}
        self._index(tree.body, found, is_fallback=False)
        return found

    @cached_property
    def exported(self) -> frozenset[str] | None:
        """The names of `__all__`; None without `__all__`, and for one that is not a literal list of strings."""
        names: set[str] | None = None
        for binding in self.names.get("__all__", []):
            if not isinstance(binding.node, (ast.List, ast.Tuple)):
                return None
            items = {item.value if isinstance(item, ast.Constant) else None for item in binding.node.elts}
            texts = {item for item in items if isinstance(item, str)}
            if texts != items:
                return None
            names = (names or set()) | texts
        return None if names is None else frozenset(names)

    def absolute(self, relative: str, level: int) -> str:
        """Return the absolute name of a relative import in this module."""
        parts = self.name.split(".") if self.folders else self.name.split(".")[:-1]
        package = ".".join(parts[: max(len(parts) - level + 1, 0)])
        return relative if level == 0 else f"{package}.{relative}" if relative else package

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
        holds = _version_test(node.test) if isinstance(node, ast.If) else None
        if holds is not False:
            self._index(getattr(node, "body", []), found, is_fallback=is_fallback)
        if holds is not True:
            is_else = isinstance(node, ast.If) and holds is None
            self._index(getattr(node, "orelse", []), found, is_fallback=is_fallback or is_else)
        for handler in getattr(node, "handlers", []):
            self._index(handler.body, found, is_fallback=True)
        self._index(getattr(node, "finalbody", []), found, is_fallback=is_fallback)


Found = Definition | Module


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Return whether a definition only declares one of several signatures to type checkers."""
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


def _version_test(test: ast.expr) -> bool | None:
    """Evaluate `sys.version_info >= (3, 11)` for the running Python; None for any other test."""
    if not (isinstance(test, ast.Compare) and ast.unparse(test.left) == "sys.version_info" and len(test.ops) == 1):
        return None
    try:
        wanted = ast.literal_eval(test.comparators[0])
    except ValueError:
        return None
    if not isinstance(wanted, tuple) or not wanted:
        return None
    here = tuple(sys.version_info[: len(wanted)])
    results = {ast.GtE: here >= wanted, ast.Gt: here > wanted, ast.LtE: here <= wanted, ast.Lt: here < wanted}
    return results.get(type(test.ops[0]))


@cache
def find_module(name: str) -> Module | None:
    """Return the module of a dotted name without importing it or its package; None when there is none."""
    parent, _, last = name.rpartition(".")
    if not last.isidentifier():
        return None
    if parent:
        package = find_module(parent)
        # importlib.util.find_spec of a dotted name imports the package, and PathFinder of a dotted name asks
        # sys.modules for a package without __init__.py
        spec = PathFinder.find_spec(last, list(package.folders)) if package and package.folders else None
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # ValueError: an imported module without a spec
            spec = None
        spec = spec or PathFinder.find_spec(name, [str(project_root())])
    if spec is None:
        return None
    folders = tuple(spec.submodule_search_locations or ())
    file = Path(spec.origin) if spec.origin and spec.has_location and spec.origin.endswith(".py") else None
    return Module(name, file, folders, opaque=file is None and spec.loader is not None and not folders)


def submodules(module: Module) -> Iterator[str]:
    """Yield the names of the modules in a package."""
    entries = chain.from_iterable(folder.iterdir() for folder in map(Path, module.folders) if folder.is_dir())
    yield from (entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file())
