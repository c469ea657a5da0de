"""Save and restore metrics, and what `self.log` collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torchmetrics import Metric, MetricTracker

from fulgurite.compat.lightning import set_state
from fulgurite.compat.lightning_results import logged_results
from fulgurite.core.exactness import name_inexact
from fulgurite.core.redact import hide_secrets

LOGGED = ("callback_metrics", "logged_metrics", "progress_bar_metrics")  # of the trainer


def metric_states(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Any]:
    """Return the state of each torchmetrics module among named modules, by its name."""
    states: dict[str, Any] = {}
    for name, part in modules:
        if isinstance(part, Metric):
            states[name] = {"state": part.metric_state, "updates": part.update_count}
        elif isinstance(part, MetricTracker):
            states[name] = {"steps": part.n_steps}
    return states


def restore_metric_states(model: LightningModule, states: Mapping[str, Any]) -> None:
    """Restore what `metric_states` returned."""
    for name, part in list(model.named_modules()):
        if isinstance(part, MetricTracker) and (saved := states.get(name)) is not None:
            for _ in range(saved["steps"] - part.n_steps):  # a new one has none
                part.increment()  # which adds modules
    for name, part in model.named_modules():
        if isinstance(part, Metric) and (saved := states.get(name)) is not None:
            set_state(part, move_data_to_device(saved["state"], part.device), saved["updates"])


def logged_values(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """Return the last values of all that was logged, for callbacks, loggers and the progress bar."""
    return {name: {k: v for k, v in getattr(trainer, name).items() if hide_secrets(k) == k} for name in LOGGED}


def restore_logged_values(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Restore what `logged_values` returned."""
    for name in LOGGED:
        getattr(trainer, name).update(values.get(name, {}))  # checkpoints of version 0.2 lack them


def epoch_results(trainer: Trainer) -> list[dict[str, Any]]:
    """Return what the epoch logged so far, and name what a resumed run cannot reduce as before."""
    saved: list[dict[str, Any]] = []
    for result in logged_results(trainer):
        if result["has_group"]:
            name_inexact(
                f"self.log({result['name']!r}, sync_dist_group=...)",
                "process groups are not saved, so the mean of a resumed epoch lacks the batches before the save. "
                "Use sync_dist=True alone, or log a torchmetrics.Metric.",
            )
        if (shown := hide_secrets(result["name"])) != result["name"]:
            name_inexact(f"self.log({shown!r})", "this name holds a secret, so its mean is not saved. Rename it.")
        else:
            saved.append(result)
    return saved
