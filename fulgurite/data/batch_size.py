"""Batch size of one rank from the global batch size."""

from __future__ import annotations

from lightning.pytorch import Trainer

from fulgurite.core.errors import UserError


def device_batch_size(batch_size: int, trainer: Trainer | None) -> int:
    """Return the batch size of one rank.

    Args:
        batch_size: The global one, `data.batch_size`.
        trainer: The data module's trainer. None is one process.

    Raises:
        UserError: The global batch size is not divisible by the number of data-parallel ranks.

    Example:
        >>> device_batch_size(64, trainer=None)
        64
    """
    # not the world size: tensor-parallel ranks share their batches
    ranks = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1) if trainer else 1
    if batch_size % ranks:
        nearest = max(ranks, batch_size - batch_size % ranks)
        raise UserError(
            f"data.batch_size={batch_size}: the global batch size is not divisible by {ranks} ranks. "
            f"Set a multiple of {ranks}, e.g. data.batch_size={nearest}."
        )
    return batch_size // ranks
