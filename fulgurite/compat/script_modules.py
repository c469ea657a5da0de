"""TorchScript modules, whose attributes are no attributes of a Python object: torch has no public list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

OF_TORCH = {"training", "_is_full_backward_hook"}


def script_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a TorchScript module that its `state_dict` lacks, by name; copies of lists and dicts."""
    if (kind := vars(module).get("_concrete_type")) is None:
        return {}
    saved = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
    return {name: getattr(module, name) for name in sorted(kind.get_attributes().keys() - saved - OF_TORCH)}
