"""Add the library's guarantees to a Lightning Trainer, with or without Hydra."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule, Trainer

from fulgurite.checkpoints.setup import install_checkpoint_io
from fulgurite.compat import idle_hooks
from fulgurite.compat.weight_averaging import mend_weight_averaging
from fulgurite.core.errors import UserError
from fulgurite.core.files import make_folder
from fulgurite.dataloading.required_batches import RequireBatches
from fulgurite.dataloading.timeout import WorkerTimeout
from fulgurite.distributed.supervision.launcher import install_supervision
from fulgurite.engine.components.harden_arguments import check_arguments
from fulgurite.exact_resume.setup import apply_exact_resume
from fulgurite.exact_resume.uneven_batches import install_uneven_batches
from fulgurite.runs.provenance import versions
from fulgurite.shutdown.graceful_stop import stop_on_signals
from fulgurite.shutdown.signals import signal_handler


def harden(
    trainer: Trainer,
    datamodule: LightningDataModule | None,
    *,
    run_dir: str | Path,
    seed: int | None,
    exact_resume: bool = True,
    resumes: bool = False,
    stream_resume: Literal["skip", "restart"] = "skip",
    save_attributes: bool = True,
    uneven_batches: bool = True,
    verified_checkpoints: bool = True,
    async_checkpoints: bool = False,
    checkpoint_metadata: Mapping[str, Any] | None = None,
    handle_signals: bool = True,
    grace_seconds: float = 60,
    worker_timeout_seconds: float = 600,
    supervise_ranks: bool = True,
    rank_timeout_seconds: float = 600,
    skip_idle_hooks: bool = True,
) -> Trainer:
    """Make a Trainer resume exactly, save intact checkpoints, stop cleanly and name the rank that fails.

    Works in any Lightning script. Call it once, after both objects are built and before `trainer.fit`. Give the trainer
    a `fulgurite.callbacks.LastCheckpoint`: a killed run resumes from its file, and a signal saves to it.

    Args:
        trainer: Changed in place: callbacks, checkpoint IO and launcher.
        datamodule: The data that `trainer.fit` is given. Its DataLoaders are made deterministic when they are created.
            None for a script without one: exact resume then does not control the order of its data.
        run_dir: Folder of the run, which is created; failure notes of ranks are written there.
        seed: Seed of the data order and of random augmentation. None draws one, which is kept in the checkpoint.
        exact_resume: A resumed run is bit-identical to an uninterrupted one. False leaves the data order to Lightning.
        resumes: With `exact_resume=False`: the checkpoint may hold the data order of an exact run, which is dropped.
        stream_resume: Where a training stream without state_dict() resumes amid an epoch: `skip` reads past the batches
            trained on, `restart` starts over.
        save_attributes: Exact resume saves plain attributes of model, data and callbacks that changed, 8 MB at most.
        uneven_batches: Several ranks see the batches of one process and count each example once.
        verified_checkpoints: Checkpoints are written atomically, with a sha256 manifest beside each.
        async_checkpoints: A thread writes them; training waits only for the copy to host memory.
        checkpoint_metadata: Plain values for each manifest, beside the package versions.
        handle_signals: SIGTERM, SIGUSR1 and Ctrl-C finish the step, save, and exit with 143 or 130.
        grace_seconds: Seconds from the signal to the exit, if no step can be saved before.
        worker_timeout_seconds: Seconds without a batch after which a DataLoader with workers fails; 0 waits forever.
        supervise_ranks: Rank 0 reports the rank that failed and terminates the others.
        rank_timeout_seconds: Seconds that ranks wait for one another.
        skip_idle_hooks: Lightning calls no hook that a callback or the strategy only inherits; saves time at each step.

    Returns:
        The same trainer.

    Raises:
        UserError: The trainer is hardened already, or `run_dir` cannot be created.
        ConfigError: Arguments have a wrong type or value; one line for each.

    Example:
        >>> trainer = Trainer(max_epochs=3, callbacks=[fulgurite.callbacks.LastCheckpoint("run/checkpoints")])
        >>> fulgurite.harden(trainer, datamodule, run_dir="run", seed=1)
        >>> last = fulgurite.checkpoints.newest_checkpoint("run/checkpoints")
        >>> trainer.fit(model, datamodule=datamodule, ckpt_path=last, weights_only=True)
    """
    check_arguments(harden, locals())
    folder, callbacks = Path(run_dir), vars(trainer)["callbacks"]
    if any(isinstance(callback, WorkerTimeout) for callback in callbacks):
        raise UserError("harden: this trainer is hardened already. Call it once.")
    make_folder(folder, f"harden(run_dir={folder}):")
    if supervise_ranks:
        install_supervision(trainer, folder, rank_timeout_seconds)
    # before the callbacks that save: Lightning has sorted them to the end
    position = len(callbacks) - len(trainer.checkpoint_callbacks)
    callbacks[position:position] = [WorkerTimeout(worker_timeout_seconds), RequireBatches()]
    mend_weight_averaging()
    apply_exact_resume(
        trainer,
        seed,
        enabled=exact_resume,
        resumes=resumes,
        stream_resume=stream_resume,
        save_attributes=save_attributes,
    )
    if uneven_batches:
        install_uneven_batches(trainer)
    if handle_signals:
        signals = signal_handler()
        if not signals.is_installed:  # `fulgurite.main` installs them for its runs
            signals.install()
            signals.announces = True
            atexit.register(signals.restore)  # the timer would end a process that is exiting
        stop_on_signals(trainer, datamodule, folder, grace_seconds)
    if verified_checkpoints:
        metadata = {**(checkpoint_metadata or {}), "versions": versions()}
        install_checkpoint_io(trainer, metadata, asynchronous=async_checkpoints)
    if skip_idle_hooks:
        idle_hooks.skip_idle_hooks([*callbacks, trainer.strategy])
    return trainer
