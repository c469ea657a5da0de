"""Python source read without running it: which file a module is, and where a name in it comes from.

Importing lightning costs four CPU seconds, parsing the file that defines a class costs ten milliseconds: a config can be checked against
signatures long before anything is imported. What source alone cannot tell (compiled modules, names made at run time) is `None`: unknown.
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

from src.base.root import ROOT

# A module that binds names while it is imported has more names than its source shows.
_BINDS_AT_RUN_TIME = re.compile(
    r"globals\(\)\s*(\[[^\]]*\]\s*=[^=]|\.update)|setattr\(\s*sys\.modules|sys\.modules\[__name__\]\s*=|^def __getattr__\(",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Absent:
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
class _Binding:
    """One statement that binds a name; `spare` ones only count where the others lead nowhere (except, else)."""

    node: ast.AST | None = None
    origin: tuple[str, str] | None = None  # (module, name in it, or "" for the module itself)
    spare: bool = False


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
    def names(self) -> dict[str, list[_Binding]]:
        """The statements at module level that bind each name."""
        try:
            tree = ast.parse(self.text)
        except (SyntaxError, ValueError):  # told with its line when the module is imported
            self.opaque = True
            return {}
        found: dict[str, list[_Binding]] = {}
        self._index(tree.body, found, spare=False)
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

    def _index(self, body: Sequence[ast.stmt], found: dict[str, list[_Binding]], *, spare: bool) -> None:
        def bind(name: str, node: ast.AST | None = None, origin: tuple[str, str] | None = None) -> None:
            found.setdefault(name, []).append(_Binding(node, origin, spare))

        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if not any(ast.unparse(d).endswith("overload") for d in node.decorator_list):
                    bind(node.name, node)
            elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name) and node.value is not None:
                        bind(target.id, node.value)
                    elif isinstance(target, (ast.Tuple, ast.List)):
                        for item in target.elts:
                            if isinstance(item, ast.Name):
                                bind(item.id)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    bind(alias.asname or name, origin=(name, ""))
            elif isinstance(node, ast.ImportFrom):
                module = self.absolute(node.module or "", node.level)
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(module)
                    else:
                        bind(alias.asname or alias.name, origin=(module, alias.name))
            elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
                self._index_block(node, found, spare=spare)

    def _index_block(
        self, node: ast.If | ast.Try | ast.With | ast.For | ast.While, found: dict[str, list[_Binding]], *, spare: bool
    ) -> None:
        taken = _version_test(node.test) if isinstance(node, ast.If) else None
        orelse = getattr(node, "orelse", [])
        if taken is not None:
            self._index(node.body if taken else orelse, found, spare=spare)
            return
        self._index(node.body, found, spare=spare)
        self._index(orelse, found, spare=spare or isinstance(node, ast.If))
        for handler in getattr(node, "handlers", []):
            self._index(handler.body, found, spare=True)
        self._index(getattr(node, "finalbody", []), found, spare=spare)


Found = Definition | Module


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
    # a path given to the finder keeps it from importing the package to learn where its submodules lie
    return _as_module(name, PathFinder.find_spec(name, list(package.folders)))


def _top_level_spec(name: str) -> ModuleSpec | None:
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: already imported by something that gave it no spec
        spec = None
    return spec or PathFinder.find_spec(name, [str(ROOT)])


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


@cache
def lookup(module: Module, name: str) -> Found | Absent | None:
    """Return what `name` means in `module`, through imports and aliases; None when the source does not tell."""
    return _lookup(module, name, frozenset())


def _lookup(module: Module, name: str, seen: frozenset[tuple[str, str]]) -> Found | Absent | None:
    if (module.name, name) in seen:  # `from package import part as part` in the package itself
        return find_module(f"{module.name}.{name}")
    seen = seen | {(module.name, name)}
    bindings = module.names.get(name, [])
    kinds = {b.spare for b in bindings if isinstance(b.node, (ast.ClassDef, ast.FunctionDef))}
    if len(kinds) == 2:  # defined once in `if` and once in `else`: which one holds is known only at run time
        return None
    for binding in sorted(reversed(bindings), key=lambda b: b.spare):
        found = _follow(module, binding, seen)
        if isinstance(found, (Definition, Module)):
            return found
    if bindings:
        return None
    unsure = module.dynamic
    for star in reversed(module.stars):
        source = find_module(star)
        hidden = source is not None and (
            name not in source.exported if source.exported is not None else name.startswith("_")
        )
        found = None if source is None else Absent(star, name) if hidden else _lookup(source, name, seen)
        if isinstance(found, (Definition, Module)):
            return found
        unsure = unsure or found is None
    return find_module(f"{module.name}.{name}") or (None if unsure else Absent(module.name, name, known_names(module)))


def _follow(module: Module, binding: _Binding, seen: frozenset[tuple[str, str]]) -> Found | Absent | None:
    if binding.origin is not None:
        source = find_module(binding.origin[0])
        if source is None or not binding.origin[1]:
            return source
        return _lookup(source, binding.origin[1], seen)
    if isinstance(binding.node, (ast.Name, ast.Attribute)):
        found = resolve(module, binding.node, seen)
        return found if isinstance(found, (Definition, Module)) else Definition(binding.node, module)
    if isinstance(binding.node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.expr)):
        return Definition(binding.node, module)
    return None


def resolve(module: Module, node: ast.expr, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | Absent | None:
    """Return what a name or a dotted name written in `module` means there."""
    if isinstance(node, ast.Name):
        return _lookup(module, node.id, seen) if seen else lookup(module, node.id)
    if isinstance(node, ast.Attribute):
        holder = resolve(module, node.value, seen)
        return lookup(holder, node.attr) if isinstance(holder, Module) else None
    return None


def known_names(module: Module) -> tuple[str, ...]:
    """Return the public names a module is known to have, those of its star imports and its submodules included."""
    names = {name for name in module.names if not name.startswith("_")}
    names.update(name for name in submodules(module) if not name.startswith("_"))
    for star in module.stars:
        source = find_module(star)
        if source is not None and source is not module:
            names.update(
                source.exported if source.exported is not None else (n for n in source.names if not n.startswith("_"))
            )
    return tuple(sorted(names))
