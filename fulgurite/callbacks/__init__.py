"""Callbacks for any Lightning project, one a file.

Example:
    >>> trainer = Trainer(
    ...     callbacks=[NaNGuard(), LastCheckpoint("checkpoints", every_n_train_steps=100), progress_bar()]
    ... )
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.callbacks.batch_sizes import BatchSizes
    from fulgurite.callbacks.last_checkpoint import LastCheckpoint
    from fulgurite.callbacks.nan_guard import NaNGuard
    from fulgurite.callbacks.oom_backoff import OOMBackoff
    from fulgurite.callbacks.progress import model_summary, progress_bar
    from fulgurite.callbacks.prometheus import PrometheusMetrics

__all__ = [
    "BatchSizes",
    "LastCheckpoint",
    "NaNGuard",
    "OOMBackoff",
    "PrometheusMetrics",
    "model_summary",
    "progress_bar",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "BatchSizes": "fulgurite.callbacks.batch_sizes",
        "LastCheckpoint": "fulgurite.callbacks.last_checkpoint",
        "NaNGuard": "fulgurite.callbacks.nan_guard",
        "OOMBackoff": "fulgurite.callbacks.oom_backoff",
        "PrometheusMetrics": "fulgurite.callbacks.prometheus",
        "model_summary": "fulgurite.callbacks.progress",
        "progress_bar": "fulgurite.callbacks.progress",
    },
)
