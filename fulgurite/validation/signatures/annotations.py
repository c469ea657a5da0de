"""Match config values against annotations by syntax; an undecidable value matches."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from enum import Enum

from fulgurite.validation.signatures.resolve import resolve
from fulgurite.validation.signatures.source import Definition, Module

Value = object  # null, bool, int, float, str, list or dict, as YAML gives them


class Match(Enum):
    """The result of matching a value against an annotation."""

    YES = "fits"
    NO = "does not fit"
    OBJECT = "only an object that YAML cannot write fits"
    UNKNOWN = "not known"


def _is_int(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Value) -> bool:
    return isinstance(value, list)


def _is_dict(value: Value) -> bool:
    return isinstance(value, dict)


# annotation -> (test, what to call it in a message)
_PLAIN: dict[str, tuple[Callable[[Value], bool], str]] = {
    "int": (_is_int, "a whole number"),
    "float": (lambda value: isinstance(value, float) or _is_int(value), "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str), "text"),
    **dict.fromkeys(("Path", "PathLike", "PurePath"), (lambda value: isinstance(value, str), "a path")),
    **dict.fromkeys(("dict", "Dict", "Mapping", "MutableMapping", "OrderedDict"), (_is_dict, "a dictionary")),
    **dict.fromkeys(("list", "List", "Sequence", "Iterable", "Collection", "MutableSequence"), (_is_list, "a list")),
    **dict.fromkeys(("tuple", "Tuple"), (_is_list, "a list")),
    **dict.fromkeys(("set", "Set", "frozenset", "FrozenSet"), (_is_list, "a list")),
}  # fmt: skip
_ANYTHING = {"Any", "object", "Optional", "Union", "Literal", "TypeVar", "Self"}
_NEVER_IN_YAML = {"Callable", "type", "Type", "Tensor"}
_TRANSPARENT = {"Annotated", "Final", "Required", "NotRequired"}
_STDLIB_OBJECTS = {
    "timedelta",
    "datetime",
    "date",
}  # its other classes may stand for plain values: numbers.Number
# classes whose values may be written as text, numbers or dictionaries after all
_SPECIAL_BASES = {
    "Enum",
    "StrEnum",
    "IntEnum",
    "Protocol",
    "TypedDict",
    "NamedTuple",
    "str",
    "int",
    "float",
    "list",
    "dict",
    "tuple",
}


def match(value: Value, annotation: ast.expr | None, module: Module | None, depth: int = 0) -> Match:
    """Match a value against an annotation.

    Args:
        value: As YAML gives it; dictionaries with `_target_` are skipped.
        annotation: Syntax of the annotation.
        module: The module whose names it uses; None for annotations of plain names only.
        depth: How many aliases led here.
    """
    if annotation is None or depth > 8 or (isinstance(value, dict) and "_target_" in value):
        return Match.UNKNOWN
    if isinstance(annotation, ast.Constant):
        return _match_constant(value, annotation, module, depth)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _match_any(value, [annotation.left, annotation.right], module, depth)
    if isinstance(annotation, ast.Subscript):
        return _match_subscript(value, annotation, module, depth)
    if isinstance(annotation, (ast.Name, ast.Attribute)):
        return _match_name(value, annotation, module, depth)
    return Match.UNKNOWN


def _match_constant(value: Value, annotation: ast.Constant, module: Module | None, depth: int) -> Match:
    if annotation.value is None:
        return Match.YES if value is None else Match.OBJECT
    if isinstance(annotation.value, str):
        try:
            return match(value, ast.parse(annotation.value, mode="eval").body, module, depth + 1)
        except SyntaxError:
            return Match.UNKNOWN
    return Match.UNKNOWN


def _match_any(value: Value, members: list[ast.expr], module: Module | None, depth: int) -> Match:
    fits = set()
    for member in members:  # plain members come first in most unions, and stop the search before sources are read
        fits.add(match(value, member, module, depth + 1))
        if Match.YES in fits:
            return Match.YES
    return next((kind for kind in (Match.UNKNOWN, Match.NO) if kind in fits), Match.OBJECT)


def _match_subscript(value: Value, annotation: ast.Subscript, module: Module | None, depth: int) -> Match:
    name = ast.unparse(annotation.value).rpartition(".")[2]
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if name == "Literal":
        return Match.YES if any(_is_literal(value, item) for item in inner) else Match.NO
    if name == "Optional":
        return Match.YES if value is None else match(value, inner[0], module, depth + 1)
    if name == "Union":
        return _match_any(value, inner, module, depth)
    if name in _TRANSPARENT:
        return match(value, inner[0], module, depth + 1)
    if name in _NEVER_IN_YAML:
        return Match.OBJECT
    if name not in _PLAIN:
        return Match.UNKNOWN
    if not _PLAIN[name][0](value):
        return Match.NO
    return _match_items(value, name, inner, module, depth)


def _match_items(value: Value, name: str, inner: list[ast.expr], module: Module | None, depth: int) -> Match:
    if isinstance(value, dict):
        pairs = [(item, inner[-1]) for item in value.values()]
    elif isinstance(value, list) and name in {"tuple", "Tuple"} and ast.unparse(inner[-1]) != "...":
        if len(value) != len(inner):
            return Match.NO
        pairs = list(zip(value, inner, strict=True))
    else:
        pairs = [(item, inner[0]) for item in value] if isinstance(value, list) else []
    fits = {match(item, kind, module, depth + 1) for item, kind in pairs}
    return Match.NO if Match.NO in fits else Match.UNKNOWN if fits - {Match.YES} else Match.YES


def _is_literal(value: Value, item: ast.expr) -> bool:
    return isinstance(item, ast.Constant) and type(item.value) is type(value) and item.value == value


def _match_name(value: Value, annotation: ast.Name | ast.Attribute, module: Module | None, depth: int) -> Match:
    name = ast.unparse(annotation).rpartition(".")[2]
    if name in _ANYTHING:
        return Match.UNKNOWN
    if name in _NEVER_IN_YAML:
        return Match.OBJECT
    if name in _PLAIN:
        return Match.YES if _PLAIN[name][0](value) else Match.NO
    meant = resolve(module, annotation) if module is not None else None
    if not isinstance(meant, Definition):
        return Match.UNKNOWN
    if isinstance(meant.node, ast.expr):  # an alias: Number = Union[int, float]
        return match(value, meant.node, meant.module, depth + 1)
    if isinstance(meant.node, ast.ClassDef) and not _may_be_plain(meant, 0):
        return Match.OBJECT
    return Match.UNKNOWN


def _may_be_plain(cls: Definition, depth: int) -> bool:
    assert isinstance(cls.node, ast.ClassDef)
    if cls.module.name.partition(".")[0] in sys.stdlib_module_names and cls.node.name not in _STDLIB_OBJECTS:
        return True
    for base in cls.node.bases:
        written = base.value if isinstance(base, ast.Subscript) else base
        name = ast.unparse(written).rpartition(".")[2]
        if name in _SPECIAL_BASES or depth > 8:
            return True
        if name in {"object", "ABC", "Generic"}:
            continue
        found = resolve(cls.module, written)
        if not (isinstance(found, Definition) and found.is_class) or _may_be_plain(found, depth + 1):
            return True
    return False


def rejects(value: Value, annotation: ast.expr | None, module: Module | None) -> bool:
    """Tell whether a value cannot fit, including a plain value where an object is needed."""
    kind = match(value, annotation, module)
    return kind is Match.NO or (kind is Match.OBJECT and value is not None and not isinstance(value, dict))


def choices(annotation: ast.expr | None, module: Module | None) -> list[str]:
    """Return all values that a `Literal` in an annotation allows."""
    found = [item.value for item in _members(annotation, module, 0) if isinstance(item, ast.Constant)]
    return list(dict.fromkeys(str(item) for item in found if item is not None))


def describe(annotation: ast.expr | None, module: Module | None) -> str:
    """Describe the values of an annotation, e.g. `a whole number, text or null`."""
    words: dict[str, None] = {}
    for member in _members(annotation, module, 0):
        name = ast.unparse(member.value if isinstance(member, ast.Subscript) else member).rpartition(".")[2]
        if isinstance(member, ast.Constant):
            word = "null" if member.value is None else repr(member.value)
        elif name in {"tuple", "Tuple"} and isinstance(member, ast.Subscript) and isinstance(member.slice, ast.Tuple):
            items = [item for item in member.slice.elts if ast.unparse(item) != "..."]
            word = f"a list of {len(items)}" if len(items) == len(member.slice.elts) else "a list"
        elif name in {"list", "List", "Sequence", "Iterable"} and isinstance(member, ast.Subscript):
            literal = ast.unparse(member.slice).startswith("Literal[")
            each = describe(member.slice, module) if literal else f"{ast.unparse(member.slice)} each"
            word = f"a list ({each})"
        else:
            word = _PLAIN[name][1] if name in _PLAIN else f"an object ({name})"
        words[word] = None
    ordered = [*(word for word in words if word != "null"), *(word for word in words if word == "null")]
    return " or ".join(filter(None, [", ".join(ordered[:-1]), *ordered[-1:]]))


def _members(annotation: ast.expr | None, module: Module | None, depth: int) -> Iterator[ast.expr]:
    """Yield what a union is made of, aliases and nested unions opened; literals one by one."""
    if annotation is None or depth > 8:
        return
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str) and depth >= 0:
        try:
            yield from _members(ast.parse(annotation.value, mode="eval").body, module, depth + 1)
        except SyntaxError:
            return
        return
    if isinstance(annotation, ast.BinOp):
        yield from _members(annotation.left, module, depth + 1)
        yield from _members(annotation.right, module, depth + 1)
        return
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value).rpartition(".")[2]
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if name == "Literal":
            yield from inner
            return
        if name in {"Union", "Optional"} | _TRANSPARENT:
            for item in inner[:1] if name in _TRANSPARENT else inner:
                yield from _members(item, module, depth + 1)
            if name == "Optional":
                yield ast.Constant(None)
            return
    if isinstance(annotation, (ast.Name, ast.Attribute)) and ast.unparse(annotation).rpartition(".")[2] not in _PLAIN:
        meant = resolve(module, annotation) if module is not None else None
        if isinstance(meant, Definition) and isinstance(meant.node, ast.expr):
            yield from _members(meant.node, meant.module, depth + 1)
            return
    yield annotation
