"""Fixtures of the library's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _new_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the process-wide state, which a new process would not have."""
    monkeypatch.setattr("fulgurite.core.context._context", None)
