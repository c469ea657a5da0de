"""Who reads a key: the parameter of a `_target_`, a dataclass of the library, an interpolation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fulgurite.config.schema import GROUPS, TOP_LEVEL, field_types
from fulgurite.config.view import is_interpolation, leaves, parent
from fulgurite.explain.composition import written_at
from fulgurite.validation.signatures.signature import Parameter, Signature, read_signature
from fulgurite.validation.targets import SPECIAL_KEYS

_REFERENCE = re.compile(r"\$\{\s*(\.*)([A-Za-z_][\w.\-\[\]]*)\s*\}")


@dataclass(frozen=True)
class Reader:
    """What reads a key."""

    name: str  # lightning.pytorch.Trainer
    parameter: str = ""  # max_epochs
    type: str = ""  # as the source annotates it
    default: str | None = None  # as the source writes it; None without one

    @property
    def line(self) -> str:
        """The reader as one line of output."""
        if not self.parameter:
            return self.name
        kind = f": {self.type}" if self.type else ""
        return f"{self.name}({self.parameter}{kind}{f' = {self.default}' if self.default is not None else ''})"


def reader_of(written: dict[str, Any], key: str) -> Reader | None:
    """Return what reads a key itself; None when only interpolations do, and for a group as a whole."""
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", key)
    for length in range(len(parts) - 1, 0, -1):
        holder = ".".join(parts[:length]).replace(".[", "[")
        block = written_at(written, holder)
        if isinstance(block, dict) and "_target_" in block:
            return _of_target(str(block["_target_"]), parts[length])
    if parts[0] == "hydra":
        return Reader("Hydra")
    for schema in GROUPS:
        if schema.group == parts[0] and len(parts) > 1 and parts[1] in (types := field_types(schema)):
            return Reader(f"fulgurite.config.schema.{schema.__name__}", parts[1], types[parts[1]])
    if len(parts) == 1 and key in TOP_LEVEL:
        block = written_at(written, key)
        target = block.get("_target_") if isinstance(block, dict) else None
        return Reader(str(target)) if target else Reader("the library", key, TOP_LEVEL[key])
    return None


def _of_target(target: str, name: str) -> Reader:
    if name in SPECIAL_KEYS:
        return Reader("hydra.utils.instantiate", name)
    signature = None if is_interpolation(target) else read_signature(target)
    parameter = signature.parameters.get(name) if isinstance(signature, Signature) else None
    if parameter is None:
        return Reader(target, f"**{name}")
    return Reader(target, name, type_of(parameter), ast.unparse(parameter.default) if parameter.default else None)


def type_of(parameter: Parameter) -> str:
    """Return the annotation of a parameter as its source writes it, without quotes."""
    return ast.unparse(parameter.annotation).strip("'\"") if parameter.annotation is not None else ""


def parameters_below(written: dict[str, Any], key: str) -> dict[str, Parameter]:
    """Return the parameters of the `_target_` that stands at a key."""
    block = written_at(written, key)
    target = block.get("_target_") if isinstance(block, dict) else None
    signature = read_signature(target) if isinstance(target, str) and not is_interpolation(target) else None
    return dict(signature.parameters) if isinstance(signature, Signature) else {}


def references(text: str, key: str) -> Iterator[str]:
    """Yield the keys that the interpolations in a value refer to.

    Args:
        text: The value as written.
        key: Its key, to which `${.name}` is relative.
    """
    for dots, name in _REFERENCE.findall(text):
        holder = key
        for _ in dots:
            holder = parent(holder)
        yield f"{holder}.{name}" if dots and holder else name


def referring_keys(written: dict[str, Any], key: str) -> list[str]:
    """Return the keys whose interpolations read a key, or a part of it."""
    found = []
    for other, text in leaves(written):
        if is_interpolation(text) and not other.startswith(("hydra.job.", "hydra.overrides.")):
            names = references(text, other)
            if any(name == key or name.startswith((f"{key}.", f"{key}[")) for name in names):
                found.append(other)
    return found
