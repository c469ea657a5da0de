"""Write the tables of docs/resume.md from the shapes: `python -m tests.support.shapes.docs`."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.project import ROOT
from tests.support.shapes.table import PENDING, SHAPES

PAGE = ROOT / "docs" / "resume.md"
BEGIN, END = "<!-- shapes: begin -->\n", "<!-- shapes: end -->\n"
RESULTS = {"equal": "exact", "named": "named", "refused": "refused"}
EXCEPTIONS_FIRST = ("named", "refused", "equal")


def tables() -> str:
    """Return a table of counts, and under it one table per kind of user code, with a row per shape."""
    names = {kind: {verdict: _names(kind, verdict) for verdict in RESULTS} for kind in _kinds()}
    counts = [[kind, *(str(len(of[verdict]) or "") for verdict in RESULTS)] for kind, of in names.items()]
    head = _table(["your code", *RESULTS.values()], counts)
    return head + "".join(_details(kind, of) for kind, of in names.items())


def _kinds() -> list[str]:
    return [*dict.fromkeys(shape.kind for shape in SHAPES)]


def _names(kind: str, verdict: str) -> list[str]:
    shapes = [shape for shape in SHAPES if (shape.kind, shape.expect) == (kind, verdict)]
    return [*dict.fromkeys(shape.row or shape.name for shape in shapes if shape.name not in PENDING)]


def _details(kind: str, names: dict[str, list[str]]) -> str:
    rows = [[_escaped(name), RESULTS[verdict]] for verdict in EXCEPTIONS_FIRST for name in names[verdict]]
    return f"\n<details><summary>{kind}</summary>\n\n{_table(['code', 'after a resume'], rows)}\n</details>\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def with_table(page: str) -> str:
    """Return a page with the tables between its marks replaced."""
    return re.sub(f"(?<={BEGIN}).*?(?={END})", lambda _: tables(), page, flags=re.DOTALL)


def _escaped(text: str) -> str:
    return re.sub(r"([_*|<])", r"\\\1", text)


def main(page: Path = PAGE) -> None:
    """Rewrite the page."""
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main()
