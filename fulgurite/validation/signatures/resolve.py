"""Find what a name in a module refers to, through imports, aliases and bases, from source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache

from fulgurite.validation.signatures.source import Binding, Definition, Found, Module, NotFound, find_module, submodules

# bases without a constructor
_EMPTY_BASES = {"object", "ABC", "Generic", "Protocol", "Hashable", "Callable"}


@cache
def lookup(module: Module, name: str) -> Found | NotFound | None:
    """Return what `name` refers to in `module`; None when the source does not show it."""
    return _lookup(module, name, frozenset())


def _lookup(module: Module, name: str, seen: frozenset[tuple[str, str]]) -> Found | NotFound | None:
    if (module.name, name) in seen:  # `from package import part as part` in the package itself
        return find_module(f"{module.name}.{name}")
    seen = seen | {(module.name, name)}
    bindings = module.names.get(name, [])
    kinds = {b.fallback for b in bindings if isinstance(b.node, (ast.ClassDef, ast.FunctionDef))}
    if len(kinds) == 2:  # defined in `if` and in `else`
        return None
    latest_first = bindings[::-1]
    for binding in sorted(latest_first, key=lambda binding: binding.fallback):
        found = _follow(module, binding, seen)
        if isinstance(found, (Definition, Module)):
            return found
    if bindings:
        return None
    is_uncertain = module.dynamic
    for star in reversed(module.stars):
        source = find_module(star)
        hidden = source is not None and not _is_exported(source, name)
        found = None if source is None else NotFound(star, name) if hidden else _lookup(source, name, seen)
        if isinstance(found, (Definition, Module)):
            return found
        is_uncertain = is_uncertain or found is None
    missing = None if is_uncertain else NotFound(module.name, name, valid_names(module))
    return find_module(f"{module.name}.{name}") or missing


def _is_exported(module: Module, name: str) -> bool:
    return name in module.exported if module.exported is not None else not name.startswith("_")


def _follow(module: Module, binding: Binding, seen: frozenset[tuple[str, str]]) -> Found | NotFound | None:
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


def resolve(module: Module, node: ast.expr, seen: frozenset[tuple[str, str]] = frozenset()) -> Found | NotFound | None:
    """Return what a name or a dotted name in `module` refers to."""
    if isinstance(node, ast.Name):
        return _lookup(module, node.id, seen) if seen else lookup(module, node.id)
    if isinstance(node, ast.Attribute):
        holder = resolve(module, node.value, seen)
        return lookup(holder, node.attr) if isinstance(holder, Module) else None
    return None


def valid_names(module: Module) -> tuple[str, ...]:
    """Return the public names of a module that source shows, also those of star imports, and its submodules."""
    names = {name for name in (*module.names, *submodules(module)) if not name.startswith("_")}
    for star in module.stars:
        source = find_module(star)
        if source is not None and source is not module:
            names.update(name for name in source.exported or source.names if _is_exported(source, name))
    return tuple(sorted(names))


def locate(target: str) -> tuple[Definition, Definition | None] | NotFound | None:
    """Return the definition at a dotted path, and for a method its class."""
    first, *rest = target.split(".")
    module = find_module(first)
    if module is None:
        return NotFound("", first, is_module=True)
    for position, part in enumerate(rest):
        last = position == len(rest) - 1
        module_here = None if last else find_module(f"{module.name}.{part}")
        if module_here is not None:
            module = module_here
            continue
        found = lookup(module, part)
        if isinstance(found, Module):
            module = found
        elif isinstance(found, Definition):
            return _member(found, rest[position + 1 :])
        elif not last:
            names = tuple(name for name in submodules(module) if not name.startswith("_"))
            # a package may bind names at run time, but only those that its source mentions
            if found is not None or (names and part not in module.text and not module.opaque):
                return NotFound(module.name, part, names, is_module=True)
            return None
        else:
            return found
    return None if module.opaque else NotFound(module.name, "", valid_names(module))


def _member(holder: Definition, path: Sequence[str]) -> tuple[Definition, Definition | None] | NotFound | None:
    if not path:
        return holder, None
    if not isinstance(holder.node, ast.ClassDef) or len(path) > 1:
        return None
    members: list[str] = []
    for cls in ancestry(holder):
        if cls is None:
            return None
        for node in statements(cls):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                members.append(node.name)
                if node.name == path[0]:
                    inner = Definition(node, cls.module)
                    return (inner, None) if inner.is_class else (inner, holder)
            elif path[0] in ast.unparse(node).partition("=")[0]:
                return None
    public = tuple(name for name in members if not name.startswith("_"))
    return NotFound(f"{holder.module.name}.{holder.node.name}", path[0], public)


def statements(cls: Definition) -> list[ast.stmt]:
    """Return the statements of a class."""
    return cls.node.body if isinstance(cls.node, ast.ClassDef) else []


def ancestry(cls: Definition) -> list[Definition | None]:
    """Return a class and its bases in the order of Python's lookup; None stands for a base of unknown source."""
    order: list[Definition | None] = []
    for ancestor in _depth_first(cls, depth=0):
        if ancestor in order:  # shared by two bases: it comes after both
            order.remove(ancestor)
        order.append(ancestor)
    return order


def _depth_first(cls: Definition, depth: int) -> Iterator[Definition | None]:
    yield cls
    if not isinstance(cls.node, ast.ClassDef):
        return
    metaclasses = [ast.unparse(keyword.value) for keyword in cls.node.keywords if keyword.arg == "metaclass"]
    if depth > 30 or any(not name.endswith("ABCMeta") for name in metaclasses):
        yield None
    for base in cls.node.bases:
        written = base.value if isinstance(base, ast.Subscript) else base
        if ast.unparse(written).rpartition(".")[2] in _EMPTY_BASES:
            continue
        found = resolve(cls.module, written)
        if found == cls:  # `class MLP(MLP)`: its base is what the name meant before
            found = _earlier(cls)
        if isinstance(found, Definition) and found.is_class:
            yield from _depth_first(found, depth + 1)
        else:
            yield None


def _earlier(cls: Definition) -> Found | NotFound | None:
    """Return what the name of a class referred to before the class statement."""
    assert isinstance(cls.node, ast.ClassDef)
    bindings = cls.module.names.get(cls.node.name, [])
    position = next((place for place, binding in enumerate(bindings) if binding.node is cls.node), 0)
    return _follow(cls.module, bindings[position - 1], frozenset()) if position else None
