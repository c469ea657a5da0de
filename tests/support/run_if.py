"""`@RunIf(...)` skips a test where its requirements are missing, with the reason."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch


def RunIf(  # noqa: N802 - reads as a decorator: @RunIf(min_gpus=1)
    *,
    min_gpus: int = 0,
    min_torch: str | None = None,
    mps: bool = False,
    package: str | None = None,
    path: str | None = None,
    posix: bool = False,
) -> pytest.MarkDecorator:
    """Return a skip mark that names all missing requirements.

    Args:
        min_gpus: CUDA devices needed.
        min_torch: Oldest version of torch that the test supports, e.g. `2.12`.
        mps: Needs the GPU of Apple silicon.
        package: Importable package needed.
        path: File or folder needed.
        posix: Needs signals and process groups, so not Windows.
    """
    installed = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    missing = [
        reason
        for is_missing, reason in (
            (torch.cuda.device_count() < min_gpus, f"{min_gpus} GPU(s), found {torch.cuda.device_count()}"),
            (bool(min_torch) and installed < tuple(map(int, str(min_torch).split(".")[:2])), f"torch >= {min_torch}"),
            (mps and not torch.backends.mps.is_available(), "an MPS device"),
            (bool(package) and importlib.util.find_spec(str(package)) is None, f"the package {package}"),
            (bool(path) and not Path(str(path)).exists(), f"{path}"),
            (posix and sys.platform == "win32", "a POSIX system"),
        )
        if is_missing
    ]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
