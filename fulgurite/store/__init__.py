"""Config that changes while a program runs: ordered loaders, watched sources, typed reads without a lock.

Usable without training; `Store` is the entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fulgurite.core.lazy import lazy_exports

if TYPE_CHECKING:
    from fulgurite.store.binding import Binding
    from fulgurite.store.config_store import Store
    from fulgurite.store.loaders.basic import EnvironmentLoader, FlagLoader, FunctionLoader, Loader, StreamLoader
    from fulgurite.store.loaders.local_file import FileLoader
    from fulgurite.store.loaders.remote import SourceLoader
    from fulgurite.store.snapshot import Change, Snapshot

_EXPORTS = {
    "Store": "fulgurite.store.config_store",
    "Snapshot": "fulgurite.store.snapshot",
    "Change": "fulgurite.store.snapshot",
    "Binding": "fulgurite.store.binding",
    "Loader": "fulgurite.store.loaders.basic",
    "FileLoader": "fulgurite.store.loaders.local_file",
    "SourceLoader": "fulgurite.store.loaders.remote",
    "EnvironmentLoader": "fulgurite.store.loaders.basic",
    "FlagLoader": "fulgurite.store.loaders.basic",
    "StreamLoader": "fulgurite.store.loaders.basic",
    "FunctionLoader": "fulgurite.store.loaders.basic",
}

__all__ = [
    "Binding",
    "Change",
    "EnvironmentLoader",
    "FileLoader",
    "FlagLoader",
    "FunctionLoader",
    "Loader",
    "Snapshot",
    "SourceLoader",
    "Store",
    "StreamLoader",
]

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
