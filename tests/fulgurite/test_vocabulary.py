"""One language: the forms that the glossary of `fulgurite/README.md` replaces are found nowhere."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.project import ROOT, readme, shipped

GLOSSARY = (ROOT / "fulgurite/README.md").read_text().split("## Glossary")[1].split("\n## ")[0]
FORMS = [
    form
    for _, not_said in re.findall(r"^\| (.+?) \| (.+?) \|$", GLOSSARY, re.MULTILINE)
    for form in re.findall(r'"([^"]+)"', not_said)
]
PATTERN = re.compile(
    r"\b(" + "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in FORMS) + r")\b", re.IGNORECASE
)
PYTHON = sorted((ROOT / "fulgurite").rglob("*.py"))
PAGES = [
    *([ROOT / "README.md"] if readme() else []),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "fulgurite/decisions").glob("*.md")),
]
CONFIGS = [*shipped((ROOT / "configs").rglob("*.yaml")), *sorted((ROOT / "fulgurite/conf").rglob("*.yaml"))]


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each comment and string literal of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING}:
            yield token.start[0], token.string


def hits(path: Path) -> list[str]:
    """Return `file:line: form` for each form that a file uses."""
    name = path.relative_to(ROOT).as_posix()
    texts = prose_of(path) if path.suffix == ".py" else enumerate(path.read_text().splitlines(), 1)
    return [f"{name}:{line}: {match[1].lower()}" for line, text in texts for match in PATTERN.finditer(text)]


def test_the_glossary_has_forms_and_the_search_finds_them() -> None:
    assert len(FORMS) >= 30
    assert PATTERN.search("what rank 0 is told")
    assert PATTERN.search("a run that is gone\n    on with")
    assert not PATTERN.search("a doorbell tolled at the roomy tracking station")


def test_nothing_uses_a_form_that_the_glossary_replaces() -> None:
    assert [hit for path in [*PYTHON, *PAGES, *CONFIGS] for hit in hits(path)] == []
