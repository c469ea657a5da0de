"""Private names of Lightning's trainer, torchmetrics and torch, each behind one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import _DummyExperiment as DummyExperiment
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from lightning.pytorch.strategies.launchers.subprocess_script import (
        _SubprocessScriptLauncher as SubprocessScriptLauncher,
    )
    from lightning.pytorch.utilities import CombinedLoader
    from torch.utils.data import DataLoader
    from torchmetrics import Metric

__all__ = ["DummyExperiment", "SubprocessScriptLauncher"]

# modules of private classes, whose names begin with an underscore there
CLASSES = {
    "DummyExperiment": "lightning.fabric.loggers.logger",
    "SubprocessScriptLauncher": "lightning.pytorch.strategies.launchers.subprocess_script",
}


def __getattr__(name: str) -> Any:
    """Import a private class at its first use."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(CLASSES[name]), f"_{name}")


# the loops of a trainer, Lightning 2.6


def epoch_results(trainer: Trainer) -> dict[str, Any]:
    """Return the values that `self.log` collects in the training epoch, by key."""
    results: dict[str, Any] = trainer.fit_loop.epoch_loop._results
    return results


def active_results(trainer: Trainer) -> dict[str, Any]:
    """Return the values that `self.log` collects in the loop that runs, by key; empty when none runs."""
    return trainer._results or {}


def active_names(trainer: Trainer) -> set[str]:
    """Return the metric names of the loop that runs; those of several loaders end with the loader's number."""
    results = trainer._results
    if results is None:
        return set()
    return {name for result in results.values() for name in results._forked_name(result, on_step=False)}


def train_loaders(trainer: Trainer) -> list[Any]:
    """Return the training loaders as a flat list, once Lightning has set them up."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else combined.flattened


def train_iterators(trainer: Trainer) -> list[Any]:
    """Return the iterators over the training loaders that the trainer reads now; empty between two epochs."""
    combined = trainer.fit_loop._combined_loader
    return list(getattr(None if combined is None else combined._iterator, "iterators", ()))


def combined_mode(loader: CombinedLoader) -> str:
    """Return the mode of several combined loaders, e.g. `max_size_cycle`."""
    return loader._mode


def prefetched_batches(trainer: Trainer) -> int:
    """Return how many batches Lightning fetched from the training loaders and did not train on yet."""
    return len(getattr(trainer.fit_loop._data_fetcher, "batches", ()))


def mark_exhausted(trainer: Trainer, loader: object) -> None:
    """Note that a training loader ended once in this epoch: the epoch ends when each of several loaders did."""
    combined = trainer.fit_loop._combined_loader
    consumed = None if combined is None else getattr(combined._iterator, "_consumed", None)
    if combined is not None and consumed:
        consumed[combined.flattened.index(loader)] = True


def defer_first_fetch(trainer: Trainer) -> Callable[[], bool]:
    """Let Lightning fetch the first batch only after the hooks `on_train_start` and `on_train_epoch_start`.

    It fetches one when it sets up loaders without a length: before a resumed run is restored.

    Returns:
        A function that a loader calls before its first batch. Where it returns False, the loader yields nothing yet.
    """
    loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if hasattr(loop, "may_fetch"):
        return loop.may_fetch  # type: ignore[no-any-return]
    setup_data, on_run_start = loop.setup_data, epoch_loop.on_run_start
    is_setup = is_deferred = False

    def may_fetch() -> bool:
        nonlocal is_deferred
        is_deferred = is_setup
        return not is_setup

    def setup_data_only() -> None:
        nonlocal is_setup
        is_setup = True
        try:
            setup_data()
        finally:
            is_setup = False

    def run_start_and_fetch(data_fetcher: Any) -> None:
        if loop.restarting and loop._combined_loader_states_to_load:
            # a model that reads `estimated_stepping_batches` sets up the loaders before Lightning has their states
            loop._load_combined_loader_states()
            iter(data_fetcher)
        on_run_start(data_fetcher)
        if is_deferred and not epoch_loop.done:
            iter(data_fetcher)

    vars(loop).update(may_fetch=may_fetch, setup_data=setup_data_only)
    epoch_loop.on_run_start = run_start_and_fetch  # type: ignore[method-assign]
    return may_fetch


def evaluation_loaders(trainer: Trainer) -> list[DataLoader[Any]]:
    """Return the loaders of the evaluation loop; empty when a step takes a batch from each of several."""
    combined = trainer._evaluation_loop._combined_loader
    if combined is None or (combined._mode != "sequential" and len(combined.flattened) > 1):
        return []
    return combined.flattened


def iterates_as(loader: object, base: type) -> bool:
    """Return whether a loader iterates as a class that it inherits from."""
    names = ("__iter__", "__len__", "_get_iterator", "_index_sampler", "_auto_collation")
    return all(getattr(type(loader), name) is getattr(base, name) for name in names)


def find_saver(trainer: Trainer) -> Any:
    """Return the callback that saves where a run can resume exactly, as `LastCheckpoint` does; None without one."""
    return next((callback for callback in vars(trainer)["callbacks"] if hasattr(callback, "save_here")), None)


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the batch that was just trained on ended without an optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_batch(trainer: Trainer) -> bool:
    """Return whether the batch that was just trained on is the last one of its epoch."""
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def stops_early(trainer: Trainer) -> bool:
    """Return whether `should_stop` ends the epoch after this batch; before `min_steps` and `min_epochs` it does not."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def num_logged_steps(trainer: Trainer) -> int:
    """Return the number of steps that loggers have counted: the step with which the next values are logged."""
    loop = trainer.fit_loop.epoch_loop
    progress: Any = loop.batch_progress.current
    is_amid_batch = trainer.validating or progress.completed != progress.processed
    return loop._batches_that_stepped + int(is_amid_batch and not loop._should_accumulate())


def steps_before_batch(trainer: Trainer) -> int:
    """Return the number of steps before the present batch: the step with which the batch logs its values."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def call_after_batch(trainer: Trainer, callback: Callback, function: Callable[[], None]) -> None:
    """Call a function of a callback after each training batch, in the order of these calls.

    By then the last hook of the batch has run, its values are logged and its validation is over. Lightning 2.6 has no
    hook there. The function is not called while another trainer's callbacks run, as in a learning rate finder.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    functions: dict[Callback, Callable[[], None]] = loop.__dict__.setdefault("after_batch", {})
    if not functions:
        end_advance = loop.on_advance_end

        def on_advance_end(data_fetcher: Any) -> None:
            end_advance(data_fetcher)
            for owner, call in functions.items():
                if owner in vars(trainer)["callbacks"]:
                    call()

        loop.on_advance_end = on_advance_end
    functions[callback] = function


def call_at_batch_start(trainer: Trainer, function: Callable[[int, int], None]) -> None:
    """Call a function with the epoch and the batches begun in it, before each batch that is trained on.

    The call comes after `on_train_batch_start`, which can skip the rest of the epoch. Lightning 2.6 has no hook there.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    increment_started = type(progress).increment_started

    def increment_and_call() -> None:
        increment_started(progress)
        function(trainer.current_epoch, progress.current.started)

    vars(progress)["increment_started"] = increment_and_call


def call_model_hook(trainer: Trainer, name: str) -> None:
    """Call a hook of the model as the trainer does, so that it can log."""
    from lightning.pytorch.trainer.call import _call_lightning_module_hook

    _call_lightning_module_hook(trainer, name)


def end_restart(trainer: Trainer) -> None:
    """Mark the fit loop as not resumed; its public setter would reset the loops inside it too."""
    trainer.fit_loop._restarting = False


def disable_sigterm_broadcast(trainer: Trainer) -> None:
    """Keep the epoch loop from broadcasting SIGTERM, which waits for the device at every batch."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing  # type: ignore[method-assign]


def disable_signal_handlers(trainer: Trainer) -> None:
    """Keep the trainer from installing signal handlers."""
    trainer._signal_connector.register_signal_handlers = _do_nothing  # type: ignore[method-assign]


def uses_distributed_sampler(trainer: Trainer) -> bool:
    """Return the trainer's argument `use_distributed_sampler`."""
    return bool(trainer._accelerator_connector.use_distributed_sampler)


def save_checkpoint(callback: ModelCheckpoint, trainer: Trainer, path: str) -> None:
    """Save as `ModelCheckpoint` does, which reports the file to the loggers."""
    callback._save_checkpoint(trainer, path)


def dump_checkpoint(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint of a trainer holds now, as `Trainer.save_checkpoint` writes it."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(False)
    return checkpoint


def _do_nothing(*args: Any) -> None:
    pass


# metrics, torchmetrics 1.9


def default_state(metric: Metric) -> dict[str, Any]:
    """Return the values that `reset` gives to a metric's state."""
    return metric._defaults


def set_state(metric: Metric, state: Mapping[str, Any], update_count: int | None = None) -> None:
    """Set a metric's state, and `update_count` unless it is None; make `compute` calculate again."""
    for name, value in state.items():
        setattr(metric, name, value)
    if update_count is not None:
        metric._update_count = update_count
    metric._computed = None


# loggers and torch


def flatten_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return nested hyperparameters under the flat names that Lightning's loggers give them."""
    from lightning.fabric.utilities.logger import _flatten_dict

    return _flatten_dict(params)


def premultiplied_sum(factor: float) -> Any:
    """Return NCCL's reduction that multiplies by a factor and sums, as FSDP uses it (torch 2.13)."""
    import torch.distributed as dist

    return dist._make_nccl_premul_sum(factor)  # type: ignore[attr-defined]


def is_lazy_hook(hook: Any) -> bool:
    """Return whether a hook is the one that a lazy module of torch removes in its first batch (torch 2.13)."""
    return getattr(hook, "__name__", "") == "_infer_parameters"
