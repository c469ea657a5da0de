"""Write the table of docs/resume.md from the shapes: `python -m tests.support.shapes.docs`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.project import ROOT
from tests.support.shapes.table import PENDING, SHAPES

PAGE = ROOT / "docs" / "resume.md"
BEGIN, END = "<!-- shapes: begin -->\n", "<!-- shapes: end -->\n"
COLUMNS = {"equal": "exact", "named": "named", "refused": "refused"}


def table() -> str:
    """Return one row per kind of user code, with the names of its shapes by what becomes of them."""
    kinds = dict.fromkeys(shape.kind for shape in SHAPES)
    rows = [["your code", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    for kind in kinds:
        cells = [
            dict.fromkeys(
                shape.row or shape.name
                for shape in SHAPES
                if (shape.kind, shape.expect) == (kind, verdict) and shape.name not in PENDING
            )
            for verdict in COLUMNS
        ]
        rows.append([kind, *("; ".join(map(_escaped, cell)) for cell in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_table(page: str) -> str:
    """Return a page with the table between its marks replaced."""
    return re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: table(), page, flags=re.DOTALL)


def _escaped(text: str) -> str:
    return re.sub(r"([_*|<])", r"\\\1", text)


def main(page: Path = PAGE) -> None:
    """Rewrite the page."""
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main()
