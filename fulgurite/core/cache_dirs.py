"""Folders in which libraries keep what they can make again: one that cannot be written must not end a run."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from fulgurite.core.rank_logging import rank

# Variable that names a library's cache, and where it is when unset; None: a place that is always writable.
CACHES = {
    "XDG_CACHE_HOME": "~/.cache",
    "TORCH_HOME": "~/.cache/torch",
    "TORCHINDUCTOR_CACHE_DIR": None,
    "TRITON_CACHE_DIR": "~/.triton",
    "MPLCONFIGDIR": "~/.config/matplotlib",
    "HF_HOME": "~/.cache/huggingface",
}


def use_writable_caches(env: MutableMapping[str, str]) -> None:
    """Point every cache whose folder cannot be written to a folder of this user below the temporary one, and say so.

    Args:
        env: The environment; changed.
    """
    unwritable = {}
    for name, default in CACHES.items():
        place = env.get(name) or default
        if place is not None and not _is_writable(Path(os.path.expanduser(place))):  # noqa: PTH111 - never fails
            unwritable[name] = place
    if not unwritable:
        return
    instead = _own_folder()
    for name in unwritable:
        env[name] = str(instead / name.lower())
    told = [f"{name}={place}" for name, place in unwritable.items() if place != CACHES[name]] or ["HOME"]
    if rank() == 0:
        sys.stderr.write(f"warning: {', '.join(told)}: cannot be written; caches go to {instead}\n")


def _is_writable(folder: Path) -> bool:
    """Tell whether the folder can be written, or made in the nearest one above that there is."""
    for place in (folder, *folder.parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _own_folder() -> Path:
    """Return a folder that only this user can enter, the same at each start."""
    wanted = Path(tempfile.gettempdir()) / f"fulgurite-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        wanted.mkdir(mode=0o700, exist_ok=True)
        found = wanted.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="fulgurite-cache-"))
    # another user may have made it first, to read or to plant what is kept there
    is_ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077 == 0)
    return wanted if is_ours and stat.S_ISDIR(found.st_mode) else Path(tempfile.mkdtemp(prefix="fulgurite-cache-"))
