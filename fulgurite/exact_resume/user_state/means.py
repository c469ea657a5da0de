"""Save and restore the means of an epoch that `self.log` collects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer

from fulgurite.compat.lightning import epoch_results, set_state

Means = dict[str, dict[str, torch.Tensor]]  # value and weight by key


def epoch_means(trainer: Trainer) -> Means:
    """Return the means of the epoch so far."""
    return {
        key: {"value": mean.value, "weight": getattr(mean, "cumulated_batch_size", torch.tensor(0))}
        for key, mean in epoch_results(trainer).items()
        if mean.is_tensor and mean.meta.on_epoch and not mean.has_reset
    }


def add_saved_means(trainer: Trainer, means: Means) -> None:
    """Add each saved mean to the new one, once the model has logged it, and remove it from `means`."""
    results = epoch_results(trainer)
    for key in [key for key in means if key in results]:
        mean, saved = results[key], move_data_to_device(means.pop(key), results[key].value.device)
        if mean.meta.is_mean_reduction:
            mean.cumulated_batch_size = saved["weight"] + mean.cumulated_batch_size
        is_sum = mean.meta.is_mean_reduction or mean.meta.is_sum_reduction
        add = torch.add if is_sum else mean.meta.reduce_fx
        set_state(mean, {"value": add(saved["value"], mean.value)})


def replace_means(trainer: Trainer, means: Means, keys: Iterable[str]) -> None:
    """Give what a repeated hook logged the saved value, and remove it from `means`."""
    for key in set(keys) & set(means):
        mean: Any = epoch_results(trainer)[key]
        saved = move_data_to_device(means.pop(key), mean.value.device)
        if mean.meta.is_mean_reduction:
            mean.cumulated_batch_size = saved["weight"]
        set_state(mean, {"value": saved["value"]})
