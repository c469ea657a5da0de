"""Match config values against annotations by syntax; an undecidable value matches."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from enum import Enum

from fulgurite.validation.signatures.enums import accepts, choices_of, enum_members
from fulgurite.validation.signatures.resolve import resolve
from fulgurite.validation.signatures.source import Definition, Module

Value = object  # null, bool, int, float, str, list or dict, as YAML gives them
_OF_YAML = (type(None), bool, int, float, str, list, dict)


class Match(Enum):
    """The result of matching a value against an annotation."""

    YES = "fits"
    NO = "does not fit"
    OBJECT = "only an object that YAML cannot write fits"
    UNKNOWN = "not known"


def _is_int(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Plain = tuple[Callable[[Value], bool], str, str]  # test, what to call the values in a message, type of JSON
_DICTIONARY: _Plain = (lambda value: isinstance(value, dict), "a dictionary", "object")
_LIST: _Plain = (lambda value: isinstance(value, list), "a list", "array")
_PLAIN: dict[str, _Plain] = {
    "int": (_is_int, "a whole number", "integer"),
    "float": (lambda value: isinstance(value, float) or _is_int(value), "a number", "number"),
    "bool": (lambda value: isinstance(value, bool), "true or false", "boolean"),
    "str": (lambda value: isinstance(value, str), "text", "string"),
    **dict.fromkeys(("Path", "PathLike", "PurePath"), (lambda value: isinstance(value, str), "a path", "string")),
    **dict.fromkeys(("dict", "Dict", "Mapping", "MutableMapping", "OrderedDict"), _DICTIONARY),
    **dict.fromkeys(("list", "List", "Sequence", "Iterable", "Collection", "MutableSequence"), _LIST),
    **dict.fromkeys(("tuple", "Tuple", "set", "Set", "frozenset", "FrozenSet"), _LIST),
}
_ANYTHING = {"Any", "object", "Optional", "Union", "Literal", "TypeVar", "Self"}
_NEVER_IN_YAML = {"Callable", "type", "Type", "Tensor"}
_TRANSPARENT = {"Annotated", "Final", "Required", "NotRequired"}
_STDLIB_OBJECTS = {"timedelta", "datetime", "date"}  # other classes may stand for plain values: numbers.Number
# subclasses of these may be written as text, numbers or dictionaries
_PLAIN_BASES = {"Enum", "StrEnum", "IntEnum", "Protocol", "TypedDict", "NamedTuple"}
_PLAIN_BASES |= {"str", "int", "float", "list", "dict", "tuple"}


def match(value: Value, annotation: ast.expr | None, module: Module | None) -> Match:
    """Match a value against an annotation.

    Args:
        value: As YAML gives it; dictionaries with `_target_` and values that are not known yet are skipped.
        annotation: Syntax of the annotation.
        module: The module whose names it uses; None for annotations of plain names only.
    """
    if not isinstance(value, _OF_YAML) or (isinstance(value, dict) and "_target_" in value):
        return Match.UNKNOWN
    results = set()
    for member, home in members_of(annotation, module):  # lazily: plain members of a union need no source
        results.add(_match_member(value, member, home))
        if Match.YES in results:
            return Match.YES
    return next((kind for kind in (Match.UNKNOWN, Match.NO, Match.OBJECT) if kind in results), Match.UNKNOWN)


def _match_member(value: Value, member: ast.expr, module: Module | None) -> Match:
    if isinstance(member, ast.Constant) and member.value is None:
        return Match.YES if value is None else Match.OBJECT
    if isinstance(member, ast.Constant):  # of a Literal
        return Match.YES if type(member.value) is type(value) and member.value == value else Match.NO
    name = short_name(member)
    if name in _NEVER_IN_YAML:
        return Match.OBJECT
    if name in _PLAIN and not _PLAIN[name][0](value):
        return Match.NO
    if isinstance(member, ast.Subscript):
        return _match_items(value, name, arguments_of(member), module) if name in _PLAIN else Match.UNKNOWN
    if name in _PLAIN:
        return Match.YES
    found = definition_of(member, module) if name not in _ANYTHING else None
    if found is not None and (members := enum_members(found)):
        return {True: Match.YES, False: Match.NO, None: Match.UNKNOWN}[accepts(members, value)]
    return Match.OBJECT if found is not None and found.is_class and not _may_be_plain(found) else Match.UNKNOWN


def _match_items(value: Value, name: str, inner: list[ast.expr], module: Module | None) -> Match:
    pairs: list[tuple[Value, ast.expr]] = []
    if isinstance(value, dict):
        pairs = [(item, inner[-1]) for item in value.values()]
    elif isinstance(value, list) and name in {"tuple", "Tuple"} and ast.unparse(inner[-1]) != "...":
        if len(value) != len(inner):
            return Match.NO
        pairs = list(zip(value, inner, strict=True))
    elif isinstance(value, list):
        pairs = [(item, inner[0]) for item in value]
    results = {match(item, kind, module) for item, kind in pairs}
    return Match.NO if Match.NO in results else Match.UNKNOWN if results - {Match.YES} else Match.YES


def _may_be_plain(cls: Definition, depth: int = 0) -> bool:
    assert isinstance(cls.node, ast.ClassDef)
    if cls.module.name.partition(".")[0] in sys.stdlib_module_names and cls.node.name not in _STDLIB_OBJECTS:
        return True
    for base in cls.node.bases:
        written = base.value if isinstance(base, ast.Subscript) else base
        name = short_name(written)
        if name in _PLAIN_BASES or depth > 8:
            return True
        if name in {"object", "ABC", "Generic"}:
            continue
        found = resolve(cls.module, written)
        if not (isinstance(found, Definition) and found.is_class) or _may_be_plain(found, depth + 1):
            return True
    return False


def rejects(value: Value, annotation: ast.expr | None, module: Module | None) -> bool:
    """Return whether a value cannot fit, including a plain value where an object is needed."""
    kind = match(value, annotation, module)
    return kind is Match.NO or (kind is Match.OBJECT and value is not None and not isinstance(value, dict))


def contradicts_default(annotation: ast.expr | None, module: Module | None, default: ast.expr | None) -> bool:
    """Return whether the class's own default breaks an annotation, as in `sizes: Tuple[int] = (8, 16)`."""
    try:
        value = ast.literal_eval(default) if default is not None else ...
    except ValueError:  # not a literal
        return False
    return value is not ... and match(_as_yaml(value), annotation, module) in {Match.NO, Match.OBJECT}


def _as_yaml(value: Value) -> Value:
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_as_yaml(item) for item in value]
    return {key: _as_yaml(item) for key, item in value.items()} if isinstance(value, dict) else value


def choices(annotation: ast.expr | None, module: Module | None) -> list[str]:
    """Return all values that each `Literal` and each Enum in an annotation allows."""
    found: list[str] = []
    for member, home in members_of(annotation, module):
        if isinstance(member, ast.Constant):
            found += [str(member.value)] if member.value is not None else []
        elif (definition := definition_of(member, home)) is not None:
            found += choices_of(enum_members(definition))
    return list(dict.fromkeys(found))


def describe(annotation: ast.expr | None, module: Module | None) -> str:
    """Describe the values of an annotation, e.g. `a whole number, text or null`."""
    kinds = list(dict.fromkeys(_describe_member(member, home) for member, home in members_of(annotation, module)))
    kinds.sort(key=lambda kind: kind == "null")
    return " or ".join(filter(None, [", ".join(kinds[:-1]), *kinds[-1:]]))


def _describe_member(member: ast.expr, module: Module | None) -> str:
    if isinstance(member, ast.Constant):
        return "null" if member.value is None else repr(member.value)
    name = short_name(member)
    if isinstance(member, ast.Subscript) and name in {"tuple", "Tuple"} and isinstance(member.slice, ast.Tuple):
        size = len(member.slice.elts)
        return "a list" if ast.unparse(member.slice.elts[-1]) == "..." else f"a list of {size}"
    if isinstance(member, ast.Subscript) and name in {"list", "List", "Sequence", "Iterable"}:
        inner = f"{ast.unparse(member.slice)} each"
        return f"a list ({describe(member.slice, module) if choices(member.slice, module) else inner})"
    if name in _PLAIN:
        return _PLAIN[name][1]
    definition = definition_of(member, module)
    listed = ", ".join(map(repr, choices_of(enum_members(definition)))) if definition is not None else ""
    return f"one of {listed} ({name})" if listed else f"an object ({name})"


def members_of(
    annotation: ast.expr | None, module: Module | None, depth: int = 0
) -> Iterator[tuple[ast.expr, Module | None]]:
    """Yield the members of a union and their modules: aliases and nested unions opened, each literal alone."""
    if annotation is None or depth > 8:
        return
    inner: list[ast.expr] = []
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            inner = [ast.parse(annotation.value, mode="eval").body]
        except SyntaxError:
            return
    elif isinstance(annotation, ast.BinOp):
        inner = [annotation.left, annotation.right]
    elif isinstance(annotation, ast.Subscript):
        name = short_name(annotation)
        if name == "Literal":
            yield from ((item, module) for item in arguments_of(annotation))
            return
        if name in {"Union", "Optional"} | _TRANSPARENT:
            inner = arguments_of(annotation)[: 1 if name in _TRANSPARENT else None]
            inner += [ast.Constant(None)] if name == "Optional" else []
    elif short_name(annotation) not in {*_PLAIN, *_ANYTHING, *_NEVER_IN_YAML}:
        alias = definition_of(annotation, module)
        if alias is not None and isinstance(alias.node, ast.expr):  # Number = Union[int, float]
            yield from members_of(alias.node, alias.module, depth + 1)
            return
    for item in inner:
        yield from members_of(item, module, depth + 1)
    if not inner:
        yield annotation, module


def definition_of(annotation: ast.expr, module: Module | None) -> Definition | None:
    """Return the class or the alias that an annotation names; None where the source does not show it."""
    found = resolve(module, annotation) if module is not None else None
    return found if isinstance(found, Definition) else None


def arguments_of(annotation: ast.Subscript) -> list[ast.expr]:
    """Return what stands in the brackets of an annotation."""
    return annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]


def json_type(annotation: ast.expr) -> str | None:
    """Return the JSON type of the values of a plain type, e.g. `integer`; None for other annotations."""
    plain = _PLAIN.get(short_name(annotation))
    return plain[2] if plain else None


def short_name(annotation: ast.expr) -> str:
    """Return the last name of an annotation, without its arguments."""
    return ast.unparse(annotation.value if isinstance(annotation, ast.Subscript) else annotation).rpartition(".")[2]
