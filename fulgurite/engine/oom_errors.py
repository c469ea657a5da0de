"""A run that asks for more memory than there is: what to say."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf


def explain_out_of_memory(reason: str, cfg: DictConfig | None) -> str:
    """Return one line: what happened, with which batch size, and what to try.

    Args:
        reason: The error's type and first line.
        cfg: The run's config, or None when there is none.
    """
    data, trainer = (cfg.get("data") or {}, cfg.get("trainer") or {}) if cfg is not None else ({}, {})
    size, gathered = _number(data, "batch_size"), _number(trainer, "accumulate_grad_batches") or 1
    tries = []
    if size is None or size > 1:
        # one that is composed already is changed without the plus
        plus = "" if "accumulate_grad_batches" in trainer else "+"
        half = f"data.batch_size={size // 2}" if size else "half the data.batch_size"
        tries.append(f"{half} {plus}trainer.accumulate_grad_batches={gathered * 2}")
    if "32" in str(trainer.get("precision", "32-true")):
        tries.append("+trainer.precision=bf16-mixed")
    tries.append("a smaller net")
    asked = f" with data.batch_size={size}" if size else ""
    return f"out of memory{asked}: try {', or '.join(tries)} ({' '.join(reason.split())[:200]})"


def _number(node: DictConfig | dict[str, object], key: str) -> int | None:
    value = OmegaConf.select(node, key, default=None) if isinstance(node, DictConfig) else node.get(key)
    return value if isinstance(value, int) else None


def keep_traceback(error: BaseException) -> None:
    """Write an error's traceback to the log files and to no terminal."""
    told = (type(error), error, error.__traceback__)
    record = logging.getLogger(__name__).makeRecord(__name__, logging.ERROR, __file__, 0, "traceback", (), told)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
