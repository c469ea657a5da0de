"""Explain an out-of-memory error, and keep tracebacks off the terminal."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf


def explain_out_of_memory(reason: str, cfg: DictConfig | None) -> str:
    """Return one line with the batch size, what to try and the reason."""
    from fulgurite.engine.components.causes import addition  # only after an error

    cfg = cfg if cfg is not None else OmegaConf.create()
    size, accumulation = (OmegaConf.select(cfg, key) for key in ("data.batch_size", "trainer.accumulate_grad_batches"))
    size = size if isinstance(size, int) else None
    accumulation = accumulation if isinstance(accumulation, int) else 1
    remedies = []
    if size is None or size > 1:
        half = f"data.batch_size={size // 2}" if size else "half the data.batch_size"
        remedies.append(f"{half} {addition(cfg, 'trainer.accumulate_grad_batches')}={accumulation * 2}")
    if "32" in str(OmegaConf.select(cfg, "trainer.precision", default="32-true")):
        remedies.append(f"{addition(cfg, 'trainer.precision')}=bf16-mixed")
    remedies.append("a smaller net")
    with_size = f" with data.batch_size={size}" if size else ""
    return f"out of memory{with_size}: try {', or '.join(remedies)} ({' '.join(reason.split())[:200]})"


def keep_traceback(error: BaseException) -> None:
    """Write an error's traceback to the log files only."""
    exc_info = (type(error), error, error.__traceback__)
    record = logging.getLogger(__name__).makeRecord(__name__, logging.ERROR, __file__, 0, "traceback", (), exc_info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
