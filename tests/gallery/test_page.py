"""The page of the gallery is what its script writes."""

from __future__ import annotations

from scripts.gallery import PAGE, page


def test_the_page_holds_the_recorded_results() -> None:
    assert f"\n{page()}\n" in PAGE.read_text()
