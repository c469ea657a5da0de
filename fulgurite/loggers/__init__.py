"""Loggers that cannot stop a run: guarded delivery, adapters for each service, and `metrics.csv`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.loggers.adapters import close, log_image
    from fulgurite.loggers.delivery import WaitBudget
    from fulgurite.loggers.guarded import guard

__all__ = ["WaitBudget", "close", "guard", "log_image"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "WaitBudget": "fulgurite.loggers.delivery",
        "close": "fulgurite.loggers.adapters",
        "guard": "fulgurite.loggers.guarded",
        "log_image": "fulgurite.loggers.adapters",
    },
)
