"""Pictures of a terminal show each line whole."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.pictures import draw


def test_a_picture_cuts_off_no_line_at_its_side_or_its_bottom(tmp_path: Path) -> None:
    draw([f"$ {'long_' * 20}", "the_last_line"], 80, tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    assert "\N{HORIZONTAL ELLIPSIS}" not in svg
    assert "".join(re.findall(r">([^<>]*)</text>", svg)).count("long_") == 20
    clip = re.search(r'clip-terminal">\s*<rect x="0" y="0" width="[\d.]+" height="([\d.]+)"', svg)
    baseline = re.search(r' y="([\d.]+)"[^>]*>the_last_line</text>', svg)
    assert clip is not None
    assert baseline is not None
    assert float(clip[1]) - float(baseline[1]) > 5, "room for the underscores"
