"""Checkpoint IO that survives a kill: atomic writes, manifests with sha256, verification, async saving.

Example:
    >>> trainer = Trainer(plugins=[AsyncVerifiedCheckpointIO()], max_epochs=3)
    >>> trainer.fit(model, ckpt_path=newest_checkpoint("checkpoints"), weights_only=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
    from fulgurite.checkpoints.io import VerifiedCheckpointIO
    from fulgurite.checkpoints.loading import newest_checkpoint

__all__ = ["AsyncVerifiedCheckpointIO", "VerifiedCheckpointIO", "newest_checkpoint"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AsyncVerifiedCheckpointIO": "fulgurite.checkpoints.async_io",
        "VerifiedCheckpointIO": "fulgurite.checkpoints.io",
        "newest_checkpoint": "fulgurite.checkpoints.loading",
    },
)
