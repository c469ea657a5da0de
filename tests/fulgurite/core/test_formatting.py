"""Numbers in text from elsewhere are read in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.core.formatting import parse_count
from fulgurite.trust.walk import look_up

LIBRARY = Path(__file__).parents[3] / "fulgurite"
# these only look at the text, and pass it to no `int`
ONLY_LOOK = {"core/formatting.py", "doctor/render.py", "reporting/sweep_summary.py", "trust/composed.py"}


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("017", 17), ("9" * 18, 10**18 - 1)])
def test_digits_are_a_count(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    "text", ["", " 1", "-1", "1.0", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}", "1" * 5000]
)
def test_other_text_is_no_count(text: str) -> None:
    assert parse_count(text) is None


@pytest.mark.parametrize("position", ["\N{SUPERSCRIPT TWO}", "1" * 5000, "7"])
def test_a_path_with_a_wrong_position_finds_nothing(position: str) -> None:
    assert look_up({"a": [1]}, f"a.{position}") is None
    assert look_up({"a": [1]}, f"a[{position}]") is None


def test_no_other_module_takes_isdigit_for_a_number() -> None:
    found = {
        str(file.relative_to(LIBRARY)) for file in LIBRARY.rglob("*.py") if ".isdigit()" in file.read_text("utf-8")
    }
    assert found == ONLY_LOOK
