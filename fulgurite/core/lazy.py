"""Export names from a package without importing the modules that define them (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose names are imported at first use.

    Args:
        package: The package's `__name__`.
        exports: Public name to its module; a name equal to the last part of its module stands for the module itself.

    Example:
        >>> __getattr__, __dir__ = lazy_exports(__name__, {"split_fold": "fulgurite.data.splits"})
    """

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(exports[name])
        is_module = exports[name].rpartition(".")[2] == name and not hasattr(module, name)
        value = module if is_module else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *exports})
