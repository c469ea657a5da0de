"""Read the paths in a `ModelCheckpoint` state of a file: the callback removes what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from pathlib import PurePath
from typing import Any

import torch

PATHS = ("best_model_path", "last_model_path", "kth_best_model_path")


def has_scheme(path: str) -> bool:
    """Return whether fsspec reads a path as an address of another file system, or as data."""
    return "://" in path or "::" in path or path.startswith("data:")


def state_problem(state: Any, dirpath: str) -> str:
    """Return why a state may not be restored, part of a sentence, or an empty string.

    It names addresses only below `dirpath`, where the callback saves, or below where the run saved before.
    """
    if not isinstance(state, Mapping):
        return "is not a dictionary"
    models = state.get("best_k_models") or {}
    paths = [state.get(name) or "" for name in ("dirpath", *PATHS)]
    paths += models if isinstance(models, Mapping) else [models]
    if odd := [path for path in paths if not isinstance(path, (str, PurePath)) or "\0" in str(path)]:
        return f"has {odd[0]!r} instead of a path"
    if odd := [score for score in models.values() if not _is_number(score)]:
        return f"has {odd[0]!r} instead of a score"
    before, *named = map(str, paths)
    for path in named:
        if has_scheme(path) and not is_below(path, dirpath) and not is_below(path, before):
            return f"names {path}, which is not below {dirpath}"
    return ""


def _is_number(score: Any) -> bool:
    return isinstance(score, Number) or (isinstance(score, torch.Tensor) and score.numel() == 1)


def is_below(address: str, folder: str) -> bool:
    """Return whether an address is below a remote folder, without a part that leads upwards."""
    rest = address.removeprefix(f"{folder.rstrip('/')}/")
    return has_scheme(folder) and rest != address and not has_scheme(rest) and ".." not in rest.split("/")
