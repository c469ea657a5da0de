"""Read the members of an Enum from its source."""

from __future__ import annotations

import ast

from fulgurite.validation.signatures.resolve import ancestry, statements
from fulgurite.validation.signatures.source import Definition

_KINDS = {"Enum", "IntEnum", "StrEnum"}
# methods that let an Enum accept more than the names and the values of its members
_CONVERT = {"_missing_", "__new__", "__init__", "_generate_next_value_", "__eq__"}


def enum_members(cls: Definition) -> dict[str, object]:
    """Return the members of an Enum, name to value; empty for other classes and those that may accept other values.

    The value of `auto()` is the name, which text is compared with; `...` stands for a value that the source does not
    show.
    """
    if not isinstance(cls.node, ast.ClassDef) or not _is_enum(cls):
        return {}
    members: dict[str, object] = {}
    for node in statements(cls):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in _CONVERT:
            return {}
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if not name.startswith("_"):
                members[name] = _value(node.value)
    return members


def _is_enum(cls: Definition) -> bool:
    """Return whether a class is a plain Enum: its bases are those of the standard library only, or text or numbers."""
    assert isinstance(cls.node, ast.ClassDef)
    names = [ast.unparse(base).rpartition(".")[2] for base in cls.node.bases]
    own = [one for one in ancestry(cls)[1:] if one is not None and one.module.name.partition(".")[0] != "enum"]
    return bool(_KINDS & set(names)) and not own and not cls.node.keywords


def _value(node: ast.expr) -> object:
    if ast.unparse(node) in {"auto()", "enum.auto()"}:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def accepts(members: dict[str, object], value: object) -> bool | None:
    """Return whether a value names a member or is the value of one, in any case; None if the source does not show it.

    Code of the user may look members up by name or by value.
    """
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        texts = {str(text).lower() for text in (*members, *members.values())}
        return True if value.lower() in texts else None if ... in members.values() else False
    is_shown = not any(member in (None, ...) for member in members.values())
    return True if value in members.values() else False if is_shown else None


def choices_of(members: dict[str, object]) -> list[str]:
    """Return how the members are written: by their values if all are text, else by their names."""
    is_text = all(isinstance(value, str) for value in members.values())
    return [str(value) if is_text else name for name, value in members.items()]
