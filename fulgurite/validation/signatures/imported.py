"""Read the parameters of an imported object, for a target whose source does not show them."""

from __future__ import annotations

import inspect
from typing import Any

from fulgurite.validation.signatures.signature import Parameter, Signature, takes_nothing
from fulgurite.validation.signatures.source import Module


def signature_of(found: Any) -> Signature | None:
    """Return the signature of an imported class or function; None when it has none or takes any name.

    The `**kwargs` of a class accept the arguments of its bases, up to the first one without `**kwargs`.
    """
    parameters: dict[str, Parameter] = {}
    owners: tuple[Any, ...] = inspect.getmro(found) if inspect.isclass(found) else (found,)
    for owner in owners:
        if owner is object or takes_nothing(f"{getattr(owner, '__module__', '')}.{getattr(owner, '__qualname__', '')}"):
            return Signature("", parameters)
        if owner is not found and vars(owner).keys().isdisjoint({"__init__", "__new__"}):
            continue
        try:
            taken = inspect.signature(owner).parameters.values()
        except (TypeError, ValueError):  # not callable, or compiled without a signature
            return None
        for parameter in taken:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                parameters.setdefault(parameter.name, _parameter(parameter, is_own=owner is found))
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in taken):
            return Signature("", parameters)
    return None


def _parameter(parameter: inspect.Parameter, *, is_own: bool) -> Parameter:
    return Parameter(
        parameter.name,
        required=is_own and parameter.default is parameter.empty,  # the class may pass an argument of its base itself
        module=Module("", None, opaque=True),
        positional_only=parameter.kind is parameter.POSITIONAL_ONLY,
    )
