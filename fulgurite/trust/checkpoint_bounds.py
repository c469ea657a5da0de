"""Bound the memory that a checkpoint file can take by the size of the file.

`torch.load(weights_only=True)` runs no code of a file, but trusts the sizes in it. torch stores each part of the zip
archive uncompressed; a compressed one could grow a thousandfold. A tensor may repeat one number a trillion times.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fulgurite.compat.torch_loading import refuse_empty_buffers
from fulgurite.core.errors import UserError
from fulgurite.core.exactness import name_inexact
from fulgurite.trust.ownership import is_own
from fulgurite.trust.sources import current_sources
from fulgurite.trust.values import leads_elsewhere

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

FREE_BYTES = 1 << 30  # that tensors may take beyond FACTOR times the file
FREE_VALUES = 1_000_000  # the same for values inside lists and dictionaries
ZIP = b"PK\x03\x04"  # first bytes of an archive
FACTOR = 8  # a file holds what several names share once
_END, _LOCATOR = struct.Struct("<16xIxx"), struct.Struct("<8xQ4x")  # records at the end of an archive
_IN_64_BITS, _START_64 = 0xFFFFFFFF, 48  # the start is in another record, at this position in it
_ATOMS = {type(None), bool, int, float, complex, str, bytes}


def load_bounded(load: Callable[[], Any], path: Path, named: str) -> Any:
    """Return what a function loads from a local file.

    Args:
        load: Calls `torch.load(weights_only=True)` for the file.
        path: The file.
        named: How the user named it; begins a message.

    Raises:
        UserError: The content takes more memory than a file of this size can hold.
    """
    problem, content = archive_problem(path), None
    if not problem:
        try:
            content = load()
        except MemoryError:
            problem = "its content takes more memory than there is"
        else:
            problem = content_problem(content, path.stat().st_size)
    if problem:
        raise UserError(f"{named}: {problem}. Pass a file as torch.save wrote it.")
    return content


def archive_problem(path: Path) -> str:
    """Return why a checkpoint file may not be loaded, or an empty string.

    Args:
        path: A local file, of which only the directory of the archive is read.
    """
    refuse_empty_buffers()
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return ""  # an older format, or another file: torch decides
    try:
        with zipfile.ZipFile(path) as archive:
            members, comment, start = archive.infolist(), archive.comment, archive.start_dir
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return f"its archive is damaged ({error})"
    if comment:
        return "its archive has a comment, which torch.save never writes"
    if start != _directory_start(path):
        return "its archive has two directories, and torch would read the other one"
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        return "it has compressed or encrypted parts, which torch.save never writes"
    if len({member.filename for member in members}) != len(members):
        return "it has two parts of one name"
    if (claimed := sum(member.file_size for member in members)) > (size := path.stat().st_size):
        return f"its parts claim {claimed:,} bytes, the file has {size:,}"
    return ""


def _directory_start(path: Path) -> int:
    """Return where an archive without a comment says that its directory starts; Python looks right before the end."""
    with path.open("rb") as file:
        file.seek(-_END.size, os.SEEK_END)
        if (start := int(_END.unpack(file.read())[0])) < _IN_64_BITS:
            return start
        file.seek(-_END.size - _LOCATOR.size, os.SEEK_END)
        file.seek(_LOCATOR.unpack(file.read(_LOCATOR.size))[0] + _START_64)
        return int.from_bytes(file.read(8), "little")


def content_problem(content: Any, num_bytes: int) -> str:
    """Return why the loaded content of a checkpoint may not be used, or an empty string.

    Args:
        content: What `torch.load` returned.
        num_bytes: Size of the file.
    """
    found = _Sizes()
    found.visit(content)
    if found.tensor_bytes > (limit := FREE_BYTES + FACTOR * num_bytes):
        return f"its tensors claim {found.tensor_bytes:,} bytes, more than the {limit:,} that its size allows"
    if found.total > FREE_VALUES + FACTOR * found.num_values:
        return "its lists and dictionaries contain each other so often that they never end"
    return ""


def without_foreign_places(trainer: Trainer, own: dict[str, Any], kept: Any) -> dict[str, Any]:
    """Return the state of a rank without paths and addresses, unless the checkpoint is of this run or is trusted."""
    path, root = str(trainer.ckpt_path), Path(trainer.default_root_dir).resolve()
    folders = [Path(vars(each).get("dirpath") or root).resolve() for each in trainer.checkpoint_callbacks]
    if "://" not in path and is_own(file := Path(path).resolve()):
        is_of_run = any(file.is_relative_to(folder) for folder in (root, *folders))
        if is_of_run or current_sources().trusts(file):
            return own
    user = own.get("user", {})
    parts, changed = without_places({**user.get("objects", {}), "loaders": own.get("loaders", {})}, [root], kept)
    remedy = f"If the checkpoint is yours, set trust=[{Path(path).parent}]."
    for name in changed:
        name_inexact(name, f"the checkpoint names a place outside of this run for it. {remedy}")
    loaders = parts.pop("loaders")
    return {**own, "loaders": loaders, "user": {**user, "objects": parts}}


def without_places(saved: Any, folders: Sequence[Path], kept: Any) -> tuple[Any, list[str]]:
    """Return what exact resume saved of objects without the addresses and paths in it.

    Args:
        saved: Saved attributes: by owner and name, or nested in another way.
        folders: Paths below them stay.
        kept: What is saved in place of a value that did not change.

    Returns:
        The same with `kept` in their place, and the names of the attributes that lack a value.
    """
    names: dict[str, None] = {}

    def clean(plain: Any, path: tuple[str, ...]) -> Any:
        text = plain[1] if isinstance(plain, list) and len(plain) == 2 and plain[0] == "path" else plain
        if isinstance(text, str):
            if not leads_elsewhere(text, folders):
                return plain
            names[".".join(path[:2])] = None
            return kept
        if isinstance(plain, dict):
            return {key: clean(part, (*path, str(key))) for key, part in plain.items()}
        if not isinstance(plain, (list, tuple)) or plain[:1] in (["known"], ["same"]):
            return plain
        return type(plain)(clean(part, path) for part in plain)

    return clean(saved, ()), [*names]


class _Sizes:
    """The sizes of nested values: as stored, and with each reference replaced by what it refers to."""

    def __init__(self) -> None:
        self.tensor_bytes = self.num_values = self.total = 0
        self._sizes: dict[int, int] = {}  # of containers with all references replaced, by id; 0 while open

    def visit(self, root: Any) -> None:
        """Add up a value; iterative, because nesting may be deep."""
        stack: list[tuple[Any, list[Any], bool]] = [(root, _parts(root), False)]
        while stack:
            value, parts, is_done = stack.pop()
            if is_done:
                self._sizes[id(value)] = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
                continue
            if id(value) in self._sizes:
                continue
            self._sizes[id(value)] = 0 if parts else 1
            self.num_values += len(parts)
            if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta:
                self.tensor_bytes += value.numel() * value.element_size()
            if parts:
                stack.append((value, parts, True))
                stack.extend((part, _parts(part), False) for part in parts if id(part) not in self._sizes)
        self.total = self._sizes[id(root)]


def _parts(value: Any) -> list[Any]:
    """Return what a container holds, without plain values where it holds nothing else."""
    if isinstance(value, Mapping):
        held: list[Any] = list(chain(value.keys(), value.values(), getattr(value, "__dict__", {}).values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        held = list(value)
    else:
        held = []
    return [] if {*map(type, held)} <= _ATOMS else held
