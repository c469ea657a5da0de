"""Batch size of one rank from the global batch size."""

from __future__ import annotations

from lightning.pytorch import Trainer

from fulgurite.core.errors import UserError


def device_batch_size(batch_size: int, trainer: Trainer | None) -> int:
    """Return how many examples of a batch are one process's.

    Args:
        batch_size: `data.batch_size`, over all processes together.
        trainer: As the data module has it; None stands for one process.

    Raises:
        UserError: The batch does not divide.
    """
    # a tensor parallel trainer has more processes than shares of the data
    shares = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1) if trainer else 1
    if batch_size % shares:
        near = max(shares, batch_size - batch_size % shares)
        raise UserError(
            f"data.batch_size={batch_size}: is for all processes together and does not divide over {shares} of them; "
            f"choose a multiple of {shares}, e.g. data.batch_size={near}"
        )
    return batch_size // shares
