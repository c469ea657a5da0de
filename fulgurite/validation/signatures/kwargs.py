"""Follow the `**kwargs` of a constructor: to its base class, or to the names that it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Trace:
    """What a constructor does with its `**kwargs`."""

    call: ast.Call | None  # of the base's constructor, with the kwargs
    named: tuple[str, ...]  # names that the body reads from the kwargs
    refuses_rest: bool  # the body raises for remaining names
    leaks: bool  # the body uses them in another way, so any name may be valid

    def left_over(self, base: Mapping[str, T]) -> dict[str, T]:
        """Return the base's parameters that the call itself does not pass."""
        if self.call is None:
            return {}
        explicit = {keyword.arg for keyword in self.call.keywords}
        positional = [arg for arg in self.call.args if not isinstance(arg, ast.Starred)]
        # `Base.__init__(self, ...)` passes the instance itself, `super().__init__(...)` does not
        filled = len(positional) - (not ast.unparse(self.call.func).startswith("super("))
        return {name: parameter for name, parameter in list(base.items())[max(filled, 0) :] if name not in explicit}


def trace_kwargs(function: ast.FunctionDef) -> Trace:
    """Follow the `**kwargs` of a constructor through its body."""
    assert function.args.kwarg is not None
    name = function.args.kwarg.arg
    call: ast.Call | None = None
    named: list[str] = []
    explained = 0
    nodes = list(_outside_refusals(function, name))
    for node in nodes:
        if isinstance(node, ast.Call) and _passes_on(node, name):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
                call = node
                explained += 1
        elif (looked_up := _looked_up(node, name)) is not None:
            named.append(looked_up)
            explained += 1
    mentions = sum(isinstance(node, ast.Name) and node.id == name for node in nodes)
    refuses = any(_is_refusal(node, name) for node in ast.walk(function))
    return Trace(call, tuple(named), refuses, leaks=mentions > explained)


def _outside_refusals(node: ast.AST, name: str) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not _is_refusal(child, name):
            yield child
            yield from _outside_refusals(child, name)


def _is_refusal(node: ast.AST, name: str) -> bool:
    """Return whether a node is `if kwargs: raise ...`."""
    return (
        isinstance(node, ast.If)
        and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.test))
        and isinstance(node.body[-1], ast.Raise)
        and not any(_looked_up(part, name) for part in ast.walk(node.test))
    )


def _passes_on(call: ast.Call, name: str) -> bool:
    return any(k.arg is None and isinstance(k.value, ast.Name) and k.value.id == name for k in call.keywords)


def _looked_up(node: ast.AST, name: str) -> str | None:
    """Return x for `kwargs.pop("x")`, `kwargs["x"]` and `"x" in kwargs`."""
    key: ast.AST | None = None
    holder: ast.AST | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in {"pop", "get", "setdefault"} and node.args:
            holder, key = node.func.value, node.args[0]
    elif isinstance(node, ast.Subscript):
        holder, key = node.value, node.slice
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
        holder, key = node.comparators[0], node.left
    is_ours = isinstance(holder, ast.Name) and holder.id == name
    return key.value if is_ours and isinstance(key, ast.Constant) and isinstance(key.value, str) else None
