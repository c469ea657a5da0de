"""Read the files of a run directory, which another process, version or person may have written."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import Any

from fulgurite.core.errors import printable
from fulgurite.core.files import read_regular

# The fields of run.json that readers use, and their types where they are not null.
FIELDS: dict[str, type] = {
    **dict.fromkeys(("task_name", "status", "reason", "start", "end", "host", "config_hash"), str),
    **dict.fromkeys(("exit_code", "pid", "ranks"), int),
    **dict.fromkeys(("loggers", "sweep", "git", "code", "versions"), dict),
    **dict.fromkeys(("command", "tags", "inexact", "resumed"), list),
}
OF_TEXT = ("command", "tags", "inexact", "loggers", "code")  # lists and dictionaries that hold text only
# Hydra's YAML list of overrides without quotes or escapes: read without a YAML parser, which is slow.
_PLAIN_OVERRIDES = re.compile(r"""(?:- [A-Za-z+~][^\n:#'"\\]*\n)*\Z""")


def read_object(path: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        OSError: The file is missing, or not one that `read_regular` reads.
        ValueError: The file holds something else.
    """
    try:
        content = json.loads(read_regular(path))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def read_record(path: str) -> dict[str, Any]:
    """Return the content of `run.json`.

    Raises:
        ValueError: The file is no record, or a field has another type.
    """
    record = read_object(path)
    for name, kind in FIELDS.items():
        value = record.get(name)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name} is not {'an' if kind is int else 'a'} {kind.__name__}")
        if isinstance(value, (list, dict)) and name in OF_TEXT:
            inside = value.values() if isinstance(value, dict) else value
            if not all(isinstance(item, str) for item in inside):
                raise ValueError(f"{name} holds something else than text")
    return record


def read_overrides(path: str) -> list[str]:
    """Return the overrides in a file that Hydra wrote; none, or one warning for an odd file, if it cannot be read."""
    try:
        text = read_regular(path).decode()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return []
    except OSError as error:
        warn_unreadable(path, error)
        return []
    if _PLAIN_OVERRIDES.match(text):
        return [line[2:] for line in text.splitlines()]
    import yaml

    try:
        overrides = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    # other values may be aliases that text would expand without end
    return [override for override in overrides if isinstance(override, str)] if isinstance(overrides, list) else []


@cache
def warn(line: str) -> None:
    """Print a warning, once."""
    sys.stderr.write(f"warning: {printable(line)}\n")


def warn_unreadable(path: object, error: OSError) -> None:
    """Name a file that is skipped, once."""
    warn(f"{path}: skipped, the file is not readable ({error.strerror or error})")
