"""Text files of the gallery: in this repository, in a folder of yours, or downloaded and checked."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fulgurite.core.errors import UserError
from fulgurite.data import download


@dataclass(frozen=True)
class TextFile:
    """One published file.

    Args:
        name: Name of the file, or of the archive that holds it.
        urls: Where it is published.
        sha1: Of the published file, in hex digits, as its publisher states it. None accepts any content.
        member: Path of the text in a zip archive.
    """

    name: str
    urls: tuple[str, ...] = ()
    sha1: str | None = None
    member: str | None = None


def read_text(folder: Path, file: TextFile, local_dirs: Sequence[Path] = ()) -> str:
    """Return the text; it is downloaded to `folder` if no folder has it.

    Args:
        folder: Folder of downloaded files.
        file: The file.
        local_dirs: Folders that may have the file, or the member of the archive.

    Raises:
        UserError: No folder and no address has the file, or it is damaged.
    """
    names = [file.name] + ([Path(file.member).name] if file.member else [])
    found = [place / name for place in (folder, *local_dirs) for name in names if (place / name).is_file()]
    path = found[0] if found else _downloaded(folder, file)
    try:
        if path.suffix == ".zip" and file.member:
            with zipfile.ZipFile(path) as archive:
                return archive.read(file.member).decode("utf-8")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, KeyError, zipfile.BadZipFile) as error:
        is_download = file.urls and path.parent == folder
        remedy = "Delete it, the next run downloads it" if is_download else "Replace it by a text in UTF-8"
        raise UserError(f"{path}: cannot be read ({error}). {remedy}.") from error


def _downloaded(folder: Path, file: TextFile) -> Path:
    if not file.urls:
        raise UserError(f"{folder / file.name}: the file is missing, and no address publishes it. Copy it there.")
    path = download(file.urls, folder / file.name)
    found = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    if file.sha1 not in (None, found):
        path.unlink()
        raise UserError(f"{path}: SHA-1 is {found}, not {file.sha1}: it is not the published file. Copy it there.")
    return path
