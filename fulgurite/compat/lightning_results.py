"""What `self.log` collected in a training epoch, under private names of Lightning, each behind one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.compat.lightning import epoch_results, set_state

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

ARGUMENTS = ("prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx", "metric_attribute")


def logged_results(trainer: Trainer) -> list[dict[str, Any]]:
    """Return what the training epoch logged so far, in order: values, weights and arguments of `self.log`."""
    results = []
    for result in epoch_results(trainer).values():
        if result.has_reset:
            continue
        meta, tensors = result.meta, result.metric_state if result.is_tensor else {}
        results.append(
            {
                "fx": meta.fx,
                "name": meta.name,
                "arguments": {name: getattr(meta, name) for name in ARGUMENTS},
                "reduce_fx": meta.reduce_fx.__name__,
                "sync": [meta.sync.should, meta.sync.rank_zero_only],
                "has_group": meta.sync.group is not None,
                "state": dict(tensors),
                "step": result._forward_cache,  # the value of the last batch that logged it
            }
        )
    return results


def restore_logged_results(trainer: Trainer, saved: list[dict[str, Any]]) -> None:
    """Make the epoch's results those of `logged_results`, before the first batch of a resumed run is trained on."""
    from lightning.fabric.utilities import move_data_to_device

    results, device = epoch_results(trainer), trainer.strategy.root_device
    results.clear()
    for entry in saved:
        value: Any = next(iter(entry["state"].values()), None)
        if value is None:
            value = _metric(trainer, entry["arguments"]["metric_attribute"])
        if value is None or entry["has_group"]:
            continue
        should_sync, rank_zero_only = entry["sync"]
        results.log(  # type: ignore[attr-defined]
            entry["fx"],
            entry["name"],
            value,
            **entry["arguments"],
            batch_size=1,
            reduce_fx=entry["reduce_fx"],
            sync_dist_fn=trainer.strategy.reduce,
            rank_zero_only=rank_zero_only,
        )
        result = next(reversed(results.values()))
        result.meta.sync.should = should_sync
        set_state(result, move_data_to_device(entry["state"], device))
        result._forward_cache = move_data_to_device(entry["step"], device)
    trainer._logger_connector._first_loop_iter = False  # True resets the results of each hook that logs


def _metric(trainer: Trainer, attribute: str) -> Any:
    try:
        return trainer.lightning_module.get_submodule(attribute)
    except AttributeError:
        return None  # not a module of the model
