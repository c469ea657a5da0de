"""A model that passes on every secret that it gets: prints, warns, logs, saves and raises it."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch

from tests.support.toy_task import OrdinaryModel

log = logging.getLogger(__name__)


class LeakyModel(OrdinaryModel):
    """Leaks its arguments.

    Args:
        api_key: A secret.
        header: Text with a secret in it.
        others: More secrets.
        note: A reference to one of them.
        password: A secret of a file.
        crash: Whether to raise an error that quotes all of them in the first step.
    """

    def __init__(
        self,
        api_key: str = "",
        header: str = "",
        others: Any = None,
        note: str = "",
        password: str = "",
        crash: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.api_key, self.held, self.crash = api_key, [api_key, header, others, note, password], crash
        self.tries: dict[str, Any] = {"count": 0, "key": api_key}
        text = f"{api_key} {header} {others} {note} {password}"
        print("printed", text)  # noqa: T201
        sys.stderr.write(f"written {text}\n")
        warnings.warn(f"warned {text}", stacklevel=1)
        log.info("logged %s", text)
        log.warning("logged %s", {"key": api_key, "others": others})

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Change what holds a secret."""
        self.tries["count"] += 1
        self.held.append(f"{self.api_key}{batch_idx}")
        self.log(f"of_{self.api_key}_{self.held[4]}", 1.0, on_step=True, on_epoch=True, prog_bar=True)
        if self.crash:
            raise RuntimeError(f"refused {self.held}")
        return super().training_step(batch, batch_idx)
