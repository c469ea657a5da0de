"""Judge the arguments of a class that replaces another one, whose arguments a config has already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fulgurite.validation.signatures.annotations import Match, match
from fulgurite.validation.signatures.signature import Parameter, Signature


def lacks_argument(old: Mapping[str, Any], new: Mapping[str, Any], signature: Signature | None) -> bool:
    """Return whether only a partial call is possible, as of an optimizer whose parameters the model passes."""
    required = [p.name for p in signature.parameters.values() if p.required] if signature else ["unknown"]
    return "_args_" not in new and any(name not in old and name not in new for name in required)


def replaces_container(value: Any, new: Any, parameter: Parameter | None) -> bool:
    """Return whether a list or dictionary of the former class gives way to a new value, instead of being merged.

    OmegaConf merges no list with a dictionary. A class that wants a dictionary gets the new one alone, not with the
    arguments of the object that the former class had there.
    """
    if not isinstance(value, (dict, list)) or type(value) is not type(new):
        return isinstance(value, (dict, list))
    is_object = "_target_" in value and "_target_" not in new
    return is_object and parameter is not None and match({}, parameter.annotation, parameter.module) is Match.YES
