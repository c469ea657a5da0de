"""Find what user code changes of the process: environment variables, and settings of torch and NumPy."""

from __future__ import annotations

import decimal
import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import Trainer

from fulgurite.core.exactness import name_inexact

ENVIRONMENT = "os.environ"
_PREFIX = 3  # characters of a text that may begin names
# variables by which a process finds programs, libraries, modules and servers: only if they are named as a whole
_STEERS = re.compile(r"LD_|DYLD_|PYTHON|PATH|GIT_|NCCL_|TRITON_|TORCH|CUDA_|SSL_|HOME|SHELL|.*(?i:proxy|url|path)$")
BACKENDS = (
    *("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "cudnn.allow_tf32", "cuda.matmul.allow_tf32"),
    *("cuda.matmul.allow_fp16_reduced_precision_reduction", "cuda.matmul.allow_bf16_reduced_precision_reduction"),
    *("mkldnn.enabled", "opt_einsum.enabled", "opt_einsum.strategy"),
)


def _flushes_denormal() -> bool:
    return float(torch.tensor([1e-40], dtype=torch.float32).mul(1.0)) == 0.0


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.get_default_device()": (torch.get_default_device, torch.set_default_device),
    "torch.get_num_threads()": (torch.get_num_threads, torch.set_num_threads),
    "torch.get_float32_matmul_precision()": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch.get_deterministic_debug_mode()": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "torch.set_flush_denormal": (_flushes_denormal, torch.set_flush_denormal),
    "torch.backends.mha.get_fastpath_enabled()": (
        torch.backends.mha.get_fastpath_enabled,
        torch.backends.mha.set_fastpath_enabled,
    ),
    "numpy.geterr()": (lambda: tuple(np.geterr().items()), lambda value: np.seterr(**dict(value))),
    "decimal.getcontext().prec": (
        lambda: decimal.getcontext().prec,
        lambda value: setattr(decimal.getcontext(), "prec", value),
    ),
    "os.getcwd()": (os.getcwd, os.chdir),
}
for _path in BACKENDS:
    _module, _, _name = _path.rpartition(".")
    SETTINGS[f"torch.backends.{_path}"] = (
        partial(attrgetter(_path), torch.backends),
        partial(setattr, attrgetter(_module)(torch.backends), _name),
    )

_at_start: WeakKeyDictionary[Trainer, tuple[dict[str, str], torch.dtype]] = WeakKeyDictionary()


def process_state(trainer: Trainer, names: Collection[str]) -> dict[str, Any]:
    """Return the settings of the process, and the environment variables that changed since the first call.

    `names` are environment variables that the user's code may change, or the beginnings of their names: others are of
    libraries, and hold for one process.
    """
    if trainer not in _at_start:
        _at_start[trainer] = dict(os.environ), torch.get_default_dtype()
    start, dtype = _at_start[trainer]
    if torch.get_default_dtype() != dtype:
        name_inexact(
            "torch.set_default_dtype",
            "the means that Lightning logs keep the type they were made with, and a resumed run makes them anew. "
            "Set it before the training starts.",
        )
    present = dict(os.environ) if names else start
    changed = [name for name in sorted(present | start) if present.get(name) != start.get(name)]
    # tuples are restored as new ones, which are written
    changes = tuple((name, present.get(name)) for name in changed if name.startswith(tuple(names)))
    found: dict[str, Any] = {ENVIRONMENT: changes}
    for name, (read, _) in SETTINGS.items():
        with suppress(RuntimeError):  # torch refuses to mix its old and new names of a setting
            found[name] = read()
    return found


def set_process_state(name: str, value: Any, names: Collection[str]) -> None:
    """Set what `process_state` returned under a name; of the environment only what user code names, by `names`."""
    if name != ENVIRONMENT:
        SETTINGS[name][1](value)
        return
    for variable, text in (pair for pair in value if len(pair) == 2):
        is_prefixed = any(len(each) >= _PREFIX and variable.startswith(each) for each in names)
        if variable not in names and (not is_prefixed or _STEERS.match(variable)):
            name_inexact(f"os.environ[{variable!r}]", "no code of this run names it, so it keeps its value.")
        elif text is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = text
