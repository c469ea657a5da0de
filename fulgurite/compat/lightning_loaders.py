"""Private names of Lightning's loops that count and reload batches, each behind one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback


def note_requests(trainer: Trainer) -> Callable[[str], bool]:
    """Note when the trainer asks for loaders to train and validate on, and not user code.

    Lightning 2.6 has no hook around its calls of the loader methods.

    Returns:
        A function that returns whether the trainer is asking now; it gets the name of the loader method.
    """
    loops: Any = (trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop)
    for source in (loop._data_source for loop in loops):
        if "is_asking" not in vars(source):
            vars(source).update(is_asking=False, dataloader=partial(_ask, source))
    return lambda name: any(loop._data_source.is_asking for loop in loops if loop._data_source.name == name)


def _ask(source: Any) -> Any:
    source.is_asking = True
    try:
        return type(source).dataloader(source)
    finally:
        source.is_asking = False


def count_epoch_starts(trainer: Trainer) -> Callable[[], tuple[int, int]]:
    """Count the starts of epochs, also those of a learning rate finder, which trains the same epoch before.

    Lightning 2.6 sets the epoch of a loader's samplers only.

    Returns:
        A function that returns the present epoch and the number of epochs that started.
    """
    loop: Any = trainer.fit_loop
    if "started_epochs" not in vars(loop):
        vars(loop).update(started_epochs=0, on_advance_start=partial(_count_epoch_start, loop))
    return lambda: (trainer.current_epoch, loop.started_epochs)


def _count_epoch_start(loop: Any) -> None:
    loop.started_epochs += 1
    type(loop).on_advance_start(loop)


@contextmanager
def at_progress(trainer: Trainer, epoch: int, step: int) -> Iterator[None]:
    """Let `trainer.current_epoch` and `trainer.global_step` be those of another moment of the training."""
    loop: Any = trainer.fit_loop.epoch_loop
    by_hand = not trainer.lightning_module.automatic_optimization
    automatic, manual = loop.automatic_optimization.optim_progress.optimizer, loop.manual_optimization
    steps = (manual.optim_step_progress if by_hand else automatic.step).total
    epochs: Any = trainer.fit_loop.epoch_progress.current
    before = epochs.completed, steps.completed
    epochs.completed, steps.completed = epoch, step
    try:
        yield
    finally:
        epochs.completed, steps.completed = before


def update_epoch_length(trainer: Trainer) -> None:
    """Count the batches of the epoch again: a data set may have changed its length since Lightning counted them."""
    from lightning.fabric.utilities.data import sized_len

    fetcher = trainer.fit_loop._data_fetcher
    if fetcher is not None and fetcher.length is not None:
        fetcher.length = sized_len(fetcher.combined_loader)


def default_val_check_batch(trainer: Trainer) -> float:
    """Return the batches between two validations that Lightning computed when it made the training loaders."""
    interval, batches = trainer.val_check_interval, trainer.fit_loop.max_batches
    if isinstance(interval, int) or batches == float("inf"):
        return interval if isinstance(interval, int) else batches
    return max(1, int(batches * interval))


def fetch_without_lookahead(trainer: Trainer) -> None:
    """Keep Lightning from fetching a batch ahead, which it does to find the last one of loaders without a length."""
    if trainer.fit_loop._data_fetcher is not None:
        vars(trainer.fit_loop._data_fetcher)["prefetch_batches"] = 0


def mark_last_batch(trainer: Trainer) -> None:
    """Note that the batch that is fetched is the last one of the epoch."""
    if trainer.fit_loop._data_fetcher is not None:
        trainer.fit_loop._data_fetcher.done = True


def reload_epochs(trainer: Trainer) -> list[float]:
    """Return the epochs that made the training and validation loaders: `reload_dataloaders_every_n_epochs` counts."""
    return [
        trainer.fit_loop._last_train_dl_reload_epoch,
        trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch,
    ]


def set_reload_epochs(trainer: Trainer, epochs: list[float]) -> None:
    """Set what `reload_epochs` returned."""
    trainer.fit_loop._last_train_dl_reload_epoch, validation = epochs
    trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = validation


def set_up_validation(trainer: Trainer) -> None:
    """Make the validation loaders, unless the trainer has them."""
    if trainer.val_dataloaders is None:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True


def forget_validation(trainer: Trainer) -> None:
    """Let the trainer make its validation loaders again when it validates next."""
    trainer.fit_loop.epoch_loop.val_loop._combined_loader = None


def call_before_batch(trainer: Trainer, callback: Callback, function: Callable[[], None]) -> None:
    """Call a function of a callback before each training batch, once it is fetched and before its first hook.

    Lightning 2.6 opens a profiler context at each hook, which costs more than the function. The function is not called
    while another trainer's callbacks run, as in a learning rate finder.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    increment_ready = type(progress).increment_ready

    def increment_and_call() -> None:
        increment_ready(progress)
        if callback in vars(trainer)["callbacks"]:
            function()

    vars(progress)["increment_ready"] = increment_and_call


def validate_after_step(trainer: Trainer) -> None:
    """Let the loop validate after the batch that ends the present optimizer step, as at a regular validation."""
    loop: Any = trainer.fit_loop.epoch_loop
    should_check = type(loop)._should_check_val_fx

    def should_check_now(data_fetcher: Any) -> bool:
        if loop._should_accumulate():
            return bool(should_check(loop, data_fetcher))
        vars(loop).pop("_should_check_val_fx", None)
        return True

    vars(loop)["_should_check_val_fx"] = should_check_now
