"""Explain a `hydra.searchpath` that names no sources of configs."""

from __future__ import annotations

import re

from fulgurite.core.errors import suggest_or_list

_UNKNOWN = re.compile(r"No config source registered for schema (\S+), supported types : \[(.*)\]")


def explain_search_path(message: str) -> str:
    """Return what is wrong with a search path that Hydra cannot read configs from, and what to do.

    Args:
        message: Hydra's.
    """
    if unknown := _UNKNOWN.search(message):
        near = suggest_or_list(unknown[1], unknown[2].split(", "), "There is")
        return f"no kind of source is named {unknown[1]!r}{near}"
    if "must be a list" in message:
        return "is not a list of addresses. Write e.g. [https://<host>/configs]"
    return f"{message}. Correct the address"
