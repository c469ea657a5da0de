"""Write checkpoints in a thread while training continues."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


class AsyncVerifiedCheckpointIO(VerifiedCheckpointIO):
    """Writes checkpoints in a thread: training waits for the copy to host memory only.

    One save runs at a time. The next save, a load and the end of training wait for it and raise its error. A checkpoint
    that the save replaces is removed after it has succeeded.

    Args:
        metadata: As `VerifiedCheckpointIO`.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(metadata)
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._outdated: list[str | Path] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Copy a checkpoint and start to write the copy."""
        self.finish()
        copy = copy_to_host(checkpoint)
        self._thread = Thread(target=self._write, args=(copy, path, storage_options), name="checkpoint-writer")
        self._thread.start()

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, after a running save has succeeded."""
        if self._thread is not None:
            self._outdated.append(path)
        else:
            super().remove_checkpoint(path)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint after a running save has ended."""
        self.finish()
        return super().load_checkpoint(*args, **kwargs)

    def teardown(self) -> None:
        """Wait for a running save; log its error when another error ended the run."""
        if sys.exc_info()[1] is None:
            self.finish()
            return
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001 - the error that ended the run matters more
            log.error("%s", error)

    def finish(self) -> None:
        """Wait for a running save."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        outdated, self._outdated = self._outdated, []
        if error is not None:
            raise error
        for path in outdated:
            super().remove_checkpoint(path)

    def _write(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None) -> None:
        try:
            super().save_checkpoint(checkpoint, path, storage_options)
        except BaseException as error:  # noqa: BLE001 - `finish` raises it
            self._error = error


def copy_to_host(checkpoint: Any) -> Any:
    """Return a copy in host memory that training does not change."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}  # shared tensors, e.g. tied weights, stay shared

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.layout is torch.strided and value.numel():
            key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if key not in copies:
                copies[key] = value.detach().to("cpu", copy=True)
            return copies[key]
        if type(value) in (dict, OrderedDict):
            made = type(value)((key, copied(part)) for key, part in value.items())
            if type(value) is OrderedDict:
                vars(made).update(vars(value))  # a state_dict keeps the versions of its modules in an attribute
            return made
        if type(value) in (list, tuple):
            return type(value)(copied(part) for part in value)
        return deepcopy(value)

    return copied(checkpoint)
