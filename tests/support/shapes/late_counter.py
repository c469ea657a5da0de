"""A module that code imports while it trains."""

from __future__ import annotations

total = 1.0


def count() -> float:
    """Return a number that grows with each call."""
    global total
    total += 0.05
    return total
