"""Write an annotation as a JSON schema, for editors."""

from __future__ import annotations

import ast
from typing import Any

from fulgurite.validation.signatures.annotations import arguments_of, definition_of, json_type, members_of, short_name
from fulgurite.validation.signatures.enums import choices_of, enum_members
from fulgurite.validation.signatures.signature import Parameter
from fulgurite.validation.signatures.source import Module

Schema = dict[str, Any]
# what a config may have in place of any value
INTERPOLATION: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}


def schema_of(parameter: Parameter) -> Schema:
    """Return the JSON schema of a parameter's values; `{}` where the source does not show them."""
    if parameter.annotation is None:
        return {}
    return of_annotation(parameter.annotation, parameter.module, none=parameter.default_is_none)


def of_annotation(annotation: ast.expr, module: Module | None, *, none: bool = False) -> Schema:
    """Return the JSON schema of the values of an annotation, or an interpolation in their place.

    Args:
        annotation: Its syntax.
        module: The module whose names it uses; None for plain names.
        none: Null is valid whatever the annotation.
    """
    found: list[Schema] = []
    for member, home in members_of(annotation, module):
        schema = _of_member(member, home)
        if not schema:
            return {}
        found.append(schema)
    if not found:
        return {}
    literals = [value for schema in found for value in schema.get("enum", ())]
    plain = [schema for schema in found if "enum" not in schema]
    options = [*([{"enum": literals}] if literals else []), *plain, *([{"type": "null"}] if none else [])]
    unique = [schema for position, schema in enumerate(options) if schema not in options[:position]]
    return {"anyOf": [*unique, INTERPOLATION]}


def _of_member(member: ast.expr, module: Module | None) -> Schema:
    if isinstance(member, ast.Constant):
        return {"type": "null"} if member.value is None else {"enum": [member.value]}
    if (kind := json_type(member)) is not None:
        schema: Schema = {"type": kind}
        is_fixed = short_name(member) in {"tuple", "Tuple"}  # its members have types of their own
        if isinstance(member, ast.Subscript) and kind == "array" and not is_fixed:
            schema["items"] = of_annotation(arguments_of(member)[0], module)
        return schema
    definition = definition_of(member, module)
    if definition is not None and (names := choices_of(enum_members(definition))):
        return {"anyOf": [{"enum": names}, {"type": ["string", "number"]}]}  # in any case, or by value
    return {}
