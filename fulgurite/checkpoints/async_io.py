"""How a trainer saves: by which writer, in the training process's way or behind its back."""

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
    """Writes in a thread what a checkpoint was when it was asked for: training waits for the copy to host memory only.

    One save at a time: the next one waits for it, and so do loading a checkpoint and the end of training. What was to
    be removed for a save stays until that save has succeeded. An error is raised where the next one waits.

    Args:
        facts: As `VerifiedCheckpointIO`.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(facts)
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._outdated: list[str | Path] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Copy a checkpoint and begin to write the copy.

        Raises:
            DiskFull: The save before had no room; this one is not begun.
        """
        self.finish()
        copy = copy_to_host(checkpoint)
        self._thread = Thread(target=self._write, args=(copy, path, storage_options), name="checkpoint-writer")
        self._thread.start()

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, but not before the save that is on its way has succeeded."""
        if self._thread is not None:
            self._outdated.append(path)
        else:
            super().remove_checkpoint(path)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint, when all of them are written."""
        self.finish()
        return super().load_checkpoint(*args, **kwargs)

    def teardown(self) -> None:
        """Finish what was begun; when a run ends by another error, that one is raised and ours is told."""
        if sys.exc_info()[1] is None:
            self.finish()
            return
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001 - the one that ends the run matters more
            log.error("%s", error)

    def finish(self) -> None:
        """Wait for the save that is on its way.

        Raises:
            DiskFull: It had no room.
        """
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
        except BaseException as error:  # noqa: BLE001 - raised where the next save waits
            self._error = error


def copy_to_host(checkpoint: Any) -> Any:
    """Return a copy that training does not change: tensors in host memory, containers of their own.

    Args:
        checkpoint: Nested dictionaries, lists and tuples of tensors; anything else in it is copied as `deepcopy` does.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}  # tensors that are one, as tied weights, stay one

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.layout is torch.strided and value.numel():
            key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if key not in copies:
                copies[key] = value.detach().to("cpu", copy=True)
            return copies[key]
        if type(value) in (dict, OrderedDict):
            made = type(value)((key, copied(part)) for key, part in value.items())
            if type(value) is OrderedDict:
                vars(made).update(vars(value))  # a state_dict tells the versions of its modules in an attribute
            return made
        if type(value) in (list, tuple):
            return type(value)(copied(part) for part in value)
        return deepcopy(value)

    return copied(checkpoint)
