"""Keep the scores that each rank monitors: they differ where a metric is logged without sync_dist."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

SCORES = ("best_model_score", "kth_value", "current_score")  # of ModelCheckpoint
STOPPING = ("wait_count", "stopped_epoch", "best_score")  # of EarlyStopping


def monitor_states(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the scores of this rank, by callback; empty for one process, whose checkpoint has them."""
    if trainer.world_size == 1:
        return []
    names = (*SCORES, *STOPPING)
    return [
        {
            **{name: getattr(each, name) for name in names if hasattr(each, name)},
            "best_k": list(getattr(each, "best_k_models", {}).values()),
        }
        for each in _monitors(trainer)
    ]


def restore_monitor_states(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Restore the scores of this rank over those of rank 0, which Lightning gave to all ranks."""
    for callback, state in zip(_monitors(trainer), states, strict=False):
        values = {name: value for name, value in state.items() if name != "best_k"}
        vars(callback).update(values)
        # rank 0 has the names of the files, which a moved run directory changes
        if len(files := getattr(callback, "best_k_models", {})) == len(state["best_k"]):
            files.update(zip(files, state["best_k"], strict=True))


def _monitors(trainer: Trainer) -> list[Any]:
    return [each for each in vars(trainer)["callbacks"] if isinstance(each, (ModelCheckpoint, EarlyStopping))]
