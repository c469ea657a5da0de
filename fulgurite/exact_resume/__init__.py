"""Bit-identical resume: deterministic data order, scoped RNGs, saved loop state, uneven batches over ranks.

Example:
    >>> trainer = Trainer(callbacks=[ExactResume(seed=1)], max_epochs=3)
    >>> trainer.fit(model, datamodule=datamodule, ckpt_path=last, weights_only=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.exact_resume.callback import ExactResume

__all__ = ["ExactResume"]

__getattr__, __dir__ = lazy_exports(__name__, {"ExactResume": "fulgurite.exact_resume.callback"})
