"""Overrides and options as text."""

from __future__ import annotations

import pytest

from fulgurite.config.override_text import options_first


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["seed=1,2", "-m"], ["-m", "seed=1,2"]),
        (["-m", "seed=1", "--config-dir", "a=b", "x=1"], ["-m", "--config-dir", "a=b", "seed=1", "x=1"]),
        (["seed=1", "--config-dir=a", "+x=-1", "~y"], ["--config-dir=a", "seed=1", "+x=-1", "~y"]),
        (["seed=1", "-cn", "eval"], ["-cn", "eval", "seed=1"]),
    ],
)
def test_options_may_be_written_anywhere(given: list[str], expected: list[str]) -> None:
    assert options_first(given) == expected
