"""A callback that records what each step of a run saw, and kills the run between two saves."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

# The settings come from variables, so that the config of a resumed run is that of the run, and nothing is an attribute.
RECORD, KILL_AFTER, WATCH, SEEN = "SHAPE_RECORD", "SHAPE_KILL_AFTER", "SHAPE_WATCH", "SHAPE_SEEN"


class Recorder(Callback):
    """Appends one line per batch to `$SHAPE_RECORD`; kills the process after `$SHAPE_KILL_AFTER` batches."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seen = os.environ.get(SEEN, "0")
        if os.environ.get(KILL_AFTER) == seen:
            os.kill(os.getpid(), signal.SIGKILL)
        line = json.dumps([trainer.current_epoch, batch_idx, digest(batch)])
        os.environ[SEEN] = str(int(seen) + 1)
        with Path(os.environ[RECORD]).open("a") as file:
            file.write(line + "\n")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        roots: dict[str, Any] = {"model": pl_module, "data": getattr(trainer, "datamodule", None)}
        roots |= {type(callback).__name__: callback for callback in vars(trainer)["callbacks"]}
        watched: dict[str, str] = {}
        for name in json.loads(os.environ.get(WATCH, "[]")):
            first, *rest = name.split(".")
            value = roots[first]
            for part in rest:
                value = getattr(value, part)
            watched[name] = f"{type(value).__name__} {digest(value)}"
        Path(os.environ[RECORD] + ".attributes").write_text(json.dumps(watched, indent=1))


def digest(value: Any) -> str:
    """Return 12 hex digits of nested tensors, arrays, generators and plain values."""
    return hashlib.sha256(b"|".join(_parts(value))).hexdigest()[:12]


def _parts(value: Any) -> Iterable[bytes]:
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        array = array.view(torch.int16) if array.dtype == torch.bfloat16 else array
        yield f"{value.dtype}{tuple(value.shape)}".encode() + array.numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield repr(key).encode()
            yield from _parts(part)
    elif isinstance(value, (list, tuple)):
        yield str(len(value)).encode()
        for part in value:
            yield from _parts(part)
    elif isinstance(value, torch.Generator):
        yield from _parts(value.get_state())
    elif isinstance(value, np.random.Generator):
        yield repr(value.bit_generator.state).encode()
    elif isinstance(value, np.random.RandomState):
        yield from _parts(value.get_state(legacy=False))
    elif isinstance(value, random.Random):
        yield repr(value.getstate()).encode()
    elif hasattr(value, "__dict__"):  # the repr may hold an address
        yield type(value).__name__.encode()
        yield from _parts(vars(value))
    else:
        yield repr(sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value).encode()
