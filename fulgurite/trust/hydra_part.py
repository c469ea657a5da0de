"""What a foreign config may set in Hydra's own part: folders below the log folder, and plain log files."""

from __future__ import annotations

import re
from typing import Any

from fulgurite.trust.walk import last_part, leaves

ALLOWED = r"run\.dir|sweep\.(dir|subdir)|verbose|job\.name|(job|hydra)_logging(\..+)?"
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
FORMATTERS = ("logging.Formatter", "colorlog.ColoredFormatter")
CLASSES = {"handlers": (*HANDLERS, "fulgurite.terminal.color_handler.ColorHandler"), "formatters": FORMATTERS}


def problems(hydra: Any) -> list[tuple[str, Any, str]]:
    """Return key, value and problem of each value that a foreign config may not set below `hydra`."""
    if hydra is None:
        return []
    if not isinstance(hydra, dict):
        return [("hydra", hydra, "replaces Hydra's own part")]
    return [(f"hydra.{key}", value, problem) for key, value in leaves(hydra) if (problem := place_problem(key, value))]


def place_problem(key: str, value: Any) -> str:
    """Return why a foreign file may not set a value at a key below `hydra`, or an empty string."""
    if not re.fullmatch(ALLOWED, key):
        return "steers how Hydra starts programs, logs or finds configs"
    return _logging_problem(key, value) if "_logging" in key.partition(".")[0] else ""


def _logging_problem(key: str, value: Any) -> str:
    """Return why a value may not be part of a logging configuration, or an empty string."""
    parts = key.split(".")
    last = last_part(key)
    if last in {"()", "class"}:
        section = parts[1] if len(parts) > 1 else ""
        is_plain = isinstance(value, str) and value in CLASSES.get(section, ()) and len(parts) == 4
        return "" if is_plain else "is not a handler for streams or files of the standard library"
    if "" in parts or "()" in parts or last in {"_target_", "queue", "listener"}:
        return "would make an object"
    if isinstance(value, str) and "://" in value and not (last == "stream" and value in STREAMS):
        return "names an object or an address"
    if last == "stream" and value not in STREAMS:
        return f"is not one of {', '.join(STREAMS)}"
    return ""
