"""The files that git does not track, as a patch adds them.

The patch is written here: git would run the filters of the checkout's settings, or change its index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from fulgurite.core.formatting import format_bytes
from fulgurite.core.redact import is_secret_key
from fulgurite.runs.layout import CODE_PATCH, RECORD
from fulgurite.runs.sweep_ledger import LEDGER

MAX_FILE, MAX_ALL = 2**20, 2**22  # bytes
MAX_LISTED = 10  # files that the last line names
MAX_FILES = 2000  # files that are looked at: a data set may be among them
CODE = (".py", ".yaml", ".yml", ".toml")  # what the bound of all files takes first
_OF_RUNS = (".hydra", RECORD, LEDGER)  # what a folder of a run or a sweep has
_SECRET_FILE = re.compile(r"\.(env|netrc|npmrc|pypirc).*|id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12|pfx|jks|kdbx)")


def new_files_patch(root: Path, names: Iterable[str], prefix: str = "") -> str:
    """Return a patch that adds text files, and a last line that names the files it leaves out.

    It has no files of runs.

    Args:
        root: The folder of the files.
        names: Their paths below it.
        prefix: What leads from the checkout to the folder, with a slash at its end.
    """
    of_runs: dict[Path, bool] = {root: False}  # also where a run had hydra.run.dir=.
    parts, left_out, total = [], [], 0
    ordered = sorted(names, key=lambda name: (not name.endswith(CODE), name))
    for name in ordered[:MAX_FILES]:
        path = root / name
        if path.name == CODE_PATCH or _is_of_run(path.parent, of_runs):
            continue
        is_plain = name.isprintable() and not set(name) & set('"\\')  # git writes another name in quotes
        part, why = _read(path, MAX_ALL - total) if is_plain else (None, "its name")
        if part is None:
            left_out.append(f"{name if is_plain else ascii(name)} ({why})")
        else:
            parts.append(_addition(prefix + name, part.decode(errors="replace"), is_program=os.access(path, os.X_OK)))
            total += len(parts[-1])
    num_more = max(len(left_out) - MAX_LISTED, 0) + max(len(ordered) - MAX_FILES, 0)
    listed = [", ".join(left_out[:MAX_LISTED]), f"{num_more} more" if num_more else ""]
    if any(listed):
        parts.append(f"... new files that are left out: {' and '.join(filter(None, listed))}\n")
    return "".join(parts)


def _is_of_run(folder: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        known[folder] = any((folder / name).exists() for name in _OF_RUNS) or _is_of_run(folder.parent, known)
    return known[folder]


def _read(path: Path, room: int) -> tuple[bytes | None, str]:
    """Return the bytes of a file; or None, and why a patch does not have it."""
    if _SECRET_FILE.fullmatch(path.name) or (path.suffix != ".py" and is_secret_key(path.stem)):
        return None, "may hold secrets"
    if path.is_symlink() or not path.is_file():
        return None, "not a plain file"
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            return None, format_bytes(size)
        if size > room:
            return None, f"more than {format_bytes(MAX_ALL)} of new files"
        content = path.read_bytes()
    except OSError as error:
        return None, error.strerror or "not readable"
    if b"PRIVATE KEY-----" in content:
        return None, "may hold secrets"
    return (None, "not text") if b"\0" in content else (content, "")


def _addition(name: str, text: str, *, is_program: bool) -> str:
    """Return what `git diff` writes for a new file; a tab after its name lets it have spaces."""
    head = f"diff --git a/{name} b/{name}\nnew file mode 100{'755' if is_program else '644'}\n"
    if not text:
        return head
    lines = text.removesuffix("\n").split("\n")
    tab = "\t" if " " in name else ""
    end = "" if text.endswith("\n") else "\\ No newline at end of file\n"
    body = "".join(f"+{line}\n" for line in lines)
    return f"{head}--- /dev/null\n+++ b/{name}{tab}\n@@ -0,0 +1,{len(lines)} @@\n{body}{end}"
