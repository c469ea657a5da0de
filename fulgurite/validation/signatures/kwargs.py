"""Follow the `**kwargs` of a constructor: to its base, to names it reads, or out of sight."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Trace:
    """What a constructor does with its `**kwargs`.

    Args:
        call: The call of the base's constructor that they are passed on to; None when there is none.
        named: Names that are looked up in them one by one.
        refuses_rest: What is left over raises.
        leaks: They are used in another way, so any name may be right.
    """

    call: ast.Call | None
    named: tuple[str, ...]
    refuses_rest: bool
    leaks: bool

    def left_over(self, base: Mapping[str, T]) -> dict[str, T]:
        """Return the base's parameters that the call does not fill itself."""
        if self.call is None:
            return {}
        explicit = {keyword.arg for keyword in self.call.keywords}
        positional = [arg for arg in self.call.args if not isinstance(arg, ast.Starred)]
        # `Base.__init__(self, ...)` passes the instance itself, `super().__init__(...)` does not
        filled = len(positional) - (0 if _is_super(self.call) else 1)
        return {name: parameter for name, parameter in list(base.items())[max(filled, 0) :] if name not in explicit}


def trace_kwargs(function: ast.FunctionDef) -> Trace:
    """Follow the `**kwargs` of a constructor through its body.

    Args:
        function: A constructor that declares `**kwargs`.
    """
    assert function.args.kwarg is not None
    name = function.args.kwarg.arg
    call: ast.Call | None = None
    named: list[str] = []
    explained = 0
    nodes = list(_outside_refusals(function, name))
    for node in nodes:
        if isinstance(node, ast.Call) and _passes_on(node, name):
            if _calls_base(node):
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
    """Recognise `if kwargs: raise ...`."""
    return (
        isinstance(node, ast.If)
        and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node.test))
        and isinstance(node.body[-1], ast.Raise)
        and not any(_looked_up(part, name) for part in ast.walk(node.test))
    )


def _passes_on(call: ast.Call, name: str) -> bool:
    return any(k.arg is None and isinstance(k.value, ast.Name) and k.value.id == name for k in call.keywords)


def _calls_base(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"


def _is_super(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value).startswith("super(")


def _looked_up(node: ast.AST, name: str) -> str | None:
    """Return x for `kwargs.pop("x")`, `kwargs["x"]` and `"x" in kwargs`."""
    key: ast.AST | None = None
    holder: ast.AST | None = None
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"pop", "get", "setdefault"}
    ):
        holder, key = node.func.value, node.args[0] if node.args else None
    elif isinstance(node, ast.Subscript):
        holder, key = node.value, node.slice
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
        holder, key = node.comparators[0], node.left
    is_ours = isinstance(holder, ast.Name) and holder.id == name
    return key.value if is_ours and isinstance(key, ast.Constant) and isinstance(key.value, str) else None
