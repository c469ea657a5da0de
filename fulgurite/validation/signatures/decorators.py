"""Decorators: whether the arguments of a class or function are those that its source shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from fulgurite.validation.signatures.resolve import resolve, statements
from fulgurite.validation.signatures.source import Definition, Module

# decorators that keep the signature of the source
_TRANSPARENT = {
    "abstractmethod", "cache", "classmethod", "contextmanager", "dataclass", "deprecated", "final", "inference_mode",
    "lru_cache", "no_grad", "override", "runtime_checkable", "staticmethod", "total_ordering", "typechecked", "wraps",
}  # fmt: skip


def keep_signature(decorators: Sequence[ast.expr], module: Module) -> bool:
    """Return whether each of some decorators keeps the signature of what it decorates."""
    return all(_keeps_signature(decorator, module) for decorator in decorators)


def _keeps_signature(decorator: ast.expr, module: Module) -> bool:
    written = decorator.func if isinstance(decorator, ast.Call) else decorator
    if ast.unparse(written).rpartition(".")[2] in _TRANSPARENT:
        return True
    found, is_method = _definition(written, module)
    if not isinstance(found, ast.FunctionDef):
        return False
    nodes = [node for node in ast.walk(found) if isinstance(node, ast.FunctionDef)]
    # a wrapper made with functools.wraps has the signature of the wrapped function, as in inspect.signature
    if any("wraps" in ast.unparse(wrapper) for node in nodes for wrapper in node.decorator_list):
        return True
    if not isinstance(decorator, ast.Call):
        return _returns_argument(found, int(is_method))
    returned = {value.id for value in _returned(found) if isinstance(value, ast.Name)}
    inner = [node for node in nodes[1:] if node.name in returned]
    return len(inner) == len(list(_returned(found))) == 1 and _returns_argument(inner[0], 0)


def _definition(written: ast.expr, module: Module) -> tuple[ast.AST | None, bool]:
    """Return the function of a decorator, and whether it is a method such as that of a registry."""
    found = resolve(module, written)
    if isinstance(found, Definition):
        return found.node, False
    holder = resolve(module, written.value) if isinstance(written, ast.Attribute) else None
    if isinstance(holder, Definition) and isinstance(holder.node, ast.Call):  # NETS = Registry()
        holder = resolve(holder.module, holder.node.func)
    methods = statements(holder) if isinstance(holder, Definition) else []
    name = ast.unparse(written).rpartition(".")[2]
    method = next((node for node in methods if isinstance(node, ast.FunctionDef) and node.name == name), None)
    return method, method is not None and "staticmethod" not in map(ast.unparse, method.decorator_list)


def _returns_argument(function: ast.FunctionDef, position: int) -> bool:
    """Return whether a function always returns an argument as it is, as decorators of a registry do."""
    arguments = [argument.arg for argument in function.args.args]
    if len(arguments) <= position:
        return False
    values = list(_returned(function))
    return bool(values) and all(isinstance(value, ast.Name) and value.id == arguments[position] for value in values)


def _returned(node: ast.AST) -> Iterator[ast.expr | None]:
    """Yield the value of each return statement of a function, without those of functions inside."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            yield child.value
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _returned(child)
