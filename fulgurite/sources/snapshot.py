"""Keep what sources answered in a folder: each file, its sha256 and version, and the lists of names.

index.json                          {address: {folder, fetched, lists, files: {path: {sha256, version}}, absent}}
http_127.0.0.1_8000_configs/
model/big.yaml
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fulgurite.core.files import write_atomic
from fulgurite.core.redact import hide_secrets
from fulgurite.sources.reader import Fetched, SourceError, sha256_text

INDEX = "index.json"
SAVED, FOLDER = ".hydra", "sources"  # in a run directory


@dataclass
class Record:
    """The answers of one source.

    Attributes:
        name: Its address without credentials.
        fetched: When, for messages.
        lists: Folder to the names in it.
        files: Path to the file; None: there is none.
        of_copy: The time of the copy that the files come from; empty if they come from the source.
    """

    name: str
    fetched: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(" ", "seconds"))
    lists: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, Fetched | None] = field(default_factory=dict)
    of_copy: str = ""

    @property
    def absent(self) -> list[str]:
        """The paths at which the source has nothing."""
        return [path for path, found in self.files.items() if found is None]

    @property
    def has_files(self) -> bool:
        """Whether a file of the source was read."""
        return any(path and found is not None for path, found in self.files.items())

    @property
    def note(self) -> str:
        """What a line about the source adds to its address."""
        return f" (copy of {self.of_copy})" if self.of_copy else ""


def save_records(folder: Path, records: Iterable[Record]) -> None:
    """Write records into a folder, beside those of other sources.

    A file that holds a secret is left out: no file of a run holds one.
    """
    index = _read_index(folder)
    for record in records:
        place = re.sub(r"[^\w.-]+", "_", record.name).strip("_")
        known = {path: found for path, found in record.files.items() if found is not None and path and _is_plain(found)}
        for path, found in known.items():
            target = folder / place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, found.data)
        files = {path: {"sha256": sha256_text(found.data), "version": found.version} for path, found in known.items()}
        old = index.get(record.name, {})
        index[record.name] = {
            "folder": place,
            "fetched": record.of_copy or record.fetched,
            "lists": {**old.get("lists", {}), **record.lists},
            "files": {**old.get("files", {}), **files},
            "absent": sorted({*old.get("absent", ()), *record.absent} - files.keys()),
        }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / INDEX, json.dumps(index, indent=2) + "\n")


def load_records(folder: Path) -> dict[str, Record]:
    """Return the records in a folder by the names of their sources.

    Raises:
        SourceError: A file was changed, or is missing.
    """
    records = {}
    for name, entry in _read_index(folder).items():
        record = Record(name, entry["fetched"], dict(entry["lists"]), dict.fromkeys(entry["absent"]))
        for path, known in entry["files"].items():
            file = folder / entry["folder"] / path
            is_inside = file.resolve().is_relative_to(folder.resolve())  # the folder may be another user's
            data = file.read_bytes() if is_inside and file.is_file() else b""
            if sha256_text(data) != known["sha256"]:
                problem = f"is not the file that was fetched from {name} (sha256 {known['sha256'][:12]}...)"
                raise SourceError(str(file), problem, "Restore it, or set hydra.searchpath to fetch it again")
            record.files[path] = Fetched(data, known["version"])
        records[name] = record
    return records


def cache_folder(name: str) -> Path:
    """Return the folder of this user that keeps the last good fetch of a source."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "fulgurite" / "sources" / sha256_text(name.encode())[:16]


def _is_plain(found: Fetched) -> bool:
    text = found.data.decode("utf-8", "replace")
    return hide_secrets(text, certain=True) == text


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(str(folder / INDEX), f"is damaged ({error})", "Restore it, or remove the folder") from error
    return content if isinstance(content, dict) else {}
