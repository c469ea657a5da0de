"""The modules of a model and what they hold, which torch lists in part only, or slowly.

torch walks over all modules anew for each list of modules, parameters or buffers, and hashes each module, for which
torchmetrics hashes the state of a metric.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

OF_TORCH = {"training", "_is_full_backward_hook"}

T = TypeVar("T")


@dataclass(frozen=True)
class ModelParts:
    """What a model holds, each object once with the path at which torch finds it first."""

    modules: list[tuple[str, nn.Module]]  # the model and all modules in it
    all_modules: list[tuple[str, nn.Module]]  # the same, those that are at several paths once for each
    weights: list[tuple[str, nn.Parameter]]
    buffers: list[tuple[str, Tensor]]  # without those that are None
    all_weights: list[tuple[str, nn.Parameter]]  # those that several modules share once for each


def model_parts(model: nn.Module) -> ModelParts:
    """Return what a model holds, in the order of torch, from one walk."""
    found: list[tuple[str, nn.Module]] = []
    _collect(model, "", found)
    modules = _once(found)
    weights = [
        (f"{path}.{name}" if path else name, weight) for path, module in found for name, weight in own_weights(module)
    ]
    buffers = [
        (f"{path}.{name}" if path else name, buffer)
        for path, module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    return ModelParts(modules, found, _once(weights), _once(buffers), weights)


def own_weights(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of a module itself, without those that are None."""
    return [(name, weight) for name, weight in module._parameters.items() if weight is not None]


def script_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a TorchScript module that its `state_dict` lacks, by name; copies of lists and dicts.

    torch has no public list of them: they are no attributes of a Python object.
    """
    if (kind := vars(module).get("_concrete_type")) is None:
        return {}
    saved = {name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))}
    return {name: getattr(module, name) for name in sorted(kind.get_attributes().keys() - saved - OF_TORCH)}


def _collect(module: nn.Module, path: str, found: list[tuple[str, nn.Module]]) -> None:
    """Add a module and those in it, a shared one at each of its paths."""
    found.append((path, module))
    for name, child in module._modules.items():
        if child is not None:
            _collect(child, f"{path}.{name}" if path else name, found)


def _once(found: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    first: dict[int, tuple[str, T]] = {}
    for pair in found:
        first.setdefault(id(pair[1]), pair)
    return list(first.values())
