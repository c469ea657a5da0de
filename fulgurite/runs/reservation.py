"""Reserve a directory, so that two starts in one second get different ones."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path

from fulgurite.core.errors import UserError


def reserve(wanted: Path) -> Path:
    """Create and return `wanted`, or the first of `wanted-2`, `wanted-3`, ... that does not exist.

    Raises:
        UserError: The parent folder is not writable.
    """
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            candidate = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with suppress(FileExistsError):
                candidate.mkdir()  # atomic: one of two processes gets FileExistsError
                return candidate
    except OSError as error:
        raise UserError(
            f"{wanted}: the run directory cannot be created ({error.strerror}). "
            "Make the parent folder writable, or set paths.log_dir=<folder>."
        ) from error
    raise AssertionError("count() does not end")
