"""Change a run while it trains: typed, checked, at the same step on all ranks, recorded and replayable.

Example:
    >>> trainer = Trainer(callbacks=[LiveControl("run"), LastCheckpoint("run/checkpoints", every_n_train_steps=100)])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.live.callback import LiveControl

__all__ = ["LiveControl"]

__getattr__, __dir__ = lazy_exports(__name__, {"LiveControl": "fulgurite.live.callback"})
