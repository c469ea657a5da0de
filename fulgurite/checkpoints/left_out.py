"""Check what hooks leave out of checkpoints or replace there: a resumed run does not have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.nn.parameter import is_lazy

from fulgurite.core.errors import UserError
from fulgurite.core.exactness import name_inexact

NUM_SAMPLES = 64  # values of a tensor that are compared from save to save
OF_LIBRARIES = ("fulgurite.", "lightning.")
LOAD = "on_load_checkpoint"
WEIGHTS_OF_RUN = "current_model_state"  # key of WeightAveraging, which saves the mean as `state_dict`
MAX_SHOWN = 3  # weights that a message names


class LeftOutWeights:
    """Compares the weights that checkpoints lack from save to save."""

    def __init__(self) -> None:
        self._samples: dict[str, torch.Tensor] = {}
        self._is_named = False

    def check(self, model: LightningModule, saved: Mapping[str, Any], *, is_first: bool) -> None:
        """Name the weights that change and that `saved`, the `state_dict` of a checkpoint, lacks.

        A model that overrides `on_load_checkpoint` restores its weights itself.

        Raises:
            UserError: Weights are not saved, and the model's `strict_loading` would refuse the checkpoint.
        """
        missing = {name: value for name, value in model.state_dict().items() if name not in saved}
        if not missing or self._is_named or is_overridden(LOAD, model):
            return
        if model.strict_loading and is_first:
            raise UserError(
                f"{type(model).__name__}: no checkpoint could be loaded again, because on_save_checkpoint leaves out "
                f"{_listed(list(missing))}. Keep them, or set self.strict_loading = False in the model."
            )
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        samples = {name: _sample(value) for name, value in missing.items() if _is_sampled(value)}
        changing = [name for name in missing if name in trained or self._has_changed(name, samples.get(name))]
        self._samples = {**samples, **self._samples}
        if changing:
            self._is_named = True
            name_inexact(
                f"{type(model).__name__}.on_save_checkpoint",
                f"{_listed(changing)} are not saved but change in training; a resumed run starts with them as built. "
                "Keep them in the checkpoint",
            )

    def check_values(self, strategy: Strategy, checkpoint: Mapping[str, Any]) -> None:
        """Name weights and states of optimizers that a checkpoint, after all hooks, has otherwise than the run."""
        model = cast("LightningModule", strategy.lightning_module)
        callbacks: list[Callback] = vars(model.trainer)["callbacks"]
        theirs = [each for each in callbacks if not type(each).__module__.startswith(OF_LIBRARIES)]
        if WEIGHTS_OF_RUN in checkpoint or any(is_overridden(LOAD, each) for each in (model, *theirs)):
            return  # they are restored by a hook
        saved = checkpoint["state_dict"]
        present = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
        names = [name for name, value in present if name in saved and _differs(value, saved[name])]
        if names:
            name_inexact(
                "checkpoint['state_dict']",
                f"a hook saves other values of {_listed(names)} than the run has, and a resumed run trains on with "
                "those. Save them under a key of your own.",
            )
        states = checkpoint.get("optimizer_states")
        if states is not None and _lack_states(states, strategy.optimizers):
            name_inexact(
                "checkpoint['optimizer_states']",
                "a hook leaves out states of optimizers, which a resumed run starts without. Keep them.",
            )

    def _has_changed(self, name: str, sample: torch.Tensor | None) -> bool:
        return sample is not None and name in self._samples and not torch.equal(sample, self._samples[name])


def _differs(present: torch.Tensor, saved: Any) -> bool:
    """Return whether a saved tensor has another type or other values, of which a few are compared."""
    if not (_is_sampled(present) and isinstance(saved, torch.Tensor)) or present.shape != saved.shape:
        return False
    if present.dtype != saved.dtype:
        return True
    return present.data_ptr() != saved.data_ptr() and not torch.equal(_sample(present), _sample(saved))


def _lack_states(saved: Sequence[Any], optimizers: Sequence[Any]) -> bool:
    """Return whether saved states lack an optimizer or the state of a weight; one that wraps another has other keys."""
    pairs = [pair for pair in zip(saved, optimizers, strict=False) if "state" in pair[0]]
    return len(saved) < len(optimizers) or any(len(state["state"]) < len(each.state) for state, each in pairs)


def _is_sampled(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not is_lazy(value)


def _sample(value: torch.Tensor) -> torch.Tensor:
    """Return a few values, spread over a tensor, in host memory; training changes all values of a weight."""
    flat = value.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // NUM_SAMPLES)].to("cpu", copy=True).nan_to_num()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
