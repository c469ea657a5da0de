"""Buffers whose shape changes while a model trains, such as a queue that grows or one that is None at the start.

torch has no public name for buffers that are None, nor for those that `state_dict` leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor, nn

CHANGED_BUFFERS = "fulgurite_changed_buffers"  # key of checkpoints
MARK = "fits_buffers"  # attribute of a wrapped method

Shapes = dict[str, "list[int] | None"]


def buffer_shapes(model: nn.Module) -> Shapes:
    """Return the shape of each buffer by name; None for a buffer that is None, or that the first batch makes."""
    from torch.nn.parameter import is_lazy

    named = _named_buffers(model)
    return {name: None if value is None or is_lazy(value) else list(value.shape) for name, value in named}


def unsaved_buffers(module: nn.Module) -> list[Tensor]:
    """Return the buffers of a module itself that are registered with `persistent=False`."""
    if not (names := module._non_persistent_buffers_set):
        return []
    return [buffer for name, buffer in module.named_buffers(recurse=False) if name in names]


def fit_buffers(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Give buffers that changed their shape before a checkpoint was saved the shape that it has."""
    import torch

    present = dict(_named_buffers(model))
    for name in checkpoint.get(CHANGED_BUFFERS, ()):
        if name not in present:
            continue
        saved, built = checkpoint["state_dict"].get(name), present[name]
        if saved is not None:
            like = built if built is not None else next(iter(model.parameters()), saved)
            saved = torch.empty_like(saved, device=like.device)
        path, _, attribute = name.rpartition(".")
        model.get_submodule(path).register_buffer(attribute, saved)


def load_changed_buffers(trainer: Trainer) -> None:
    """Give buffers the shape that a checkpoint has, and weights their precision, before a trainer loads it."""
    from lightning.pytorch.plugins import DoublePrecision

    load = trainer.strategy.load_model_state_dict
    if hasattr(load, MARK):
        return

    @wraps(load)
    def load_model_state_dict(checkpoint: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        fit_buffers(trainer.lightning_module, checkpoint)
        if isinstance(trainer.precision_plugin, DoublePrecision):
            # Lightning 2.6 converts the model after the load, which would round the weights to float32
            trainer.precision_plugin.convert_module(trainer.lightning_module)
        load(checkpoint, *args, **kwargs)

    setattr(load_model_state_dict, MARK, True)
    vars(trainer.strategy)["load_model_state_dict"] = load_model_state_dict


def _named_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    for path, module in model.named_modules():
        for name, value in module._buffers.items():  # `named_buffers` leaves out those that are None
            yield f"{path}.{name}" if path else name, value
