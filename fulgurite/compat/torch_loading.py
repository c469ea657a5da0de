"""Private names of torch's loader of checkpoints."""

from __future__ import annotations

from typing import Any

from torch import _weights_only_unpickler as unpickler


def refuse_empty_buffers() -> None:
    """Let no checkpoint make a bytearray of a number, which takes that many bytes of memory.

    torch allows the class, which its own files call with text and an encoding.
    """
    names = unpickler._get_allowed_globals()  # a cached dict
    if names.get("builtins.bytearray") is bytearray:
        names["builtins.bytearray"] = _bytes_of_text


def _bytes_of_text(*args: Any) -> bytearray:
    if args and not isinstance(args[0], (str, bytes, list)):
        raise ValueError("a bytearray of a size, without content")
    return bytearray(*args)
