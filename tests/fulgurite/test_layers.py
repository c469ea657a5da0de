"""The layers of the library, as the table of `fulgurite/README.md` says, and the limits that keep rooms readable."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.support.project import ROOT

LIBRARY = ROOT / "fulgurite"
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
MAX_FILES, MAX_LINES = 12, 1600
# 20,278 at first; exactness with any code, hostile input, config from anywhere and live control added the rest
MAX_LIBRARY_LINES = 42_700
PLUGINS = "plugins/hydra_plugins/fulgurite"


def package_of(module: str) -> str:
    """Return the package of a module of the library, e.g. `distributed/supervision`; empty for the top."""
    return "/".join(module.split(".")[1:-1])


def table() -> dict[str, set[str]]:
    """Return package to the packages it may import, from the layer table of the README."""
    text = (LIBRARY / "README.md").read_text().split("## Layers")[1].split("\n## ")[0]
    rows: dict[str, set[str]] = {}
    for level, names, allowed in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE):
        del level
        for name in re.findall(r"`([^`]+)`", names):
            rows[PLUGINS if name == "plugins" else name] = set(re.findall(r"`([^`]+)`", allowed))
    return rows


def levels() -> dict[str, int]:
    """Return package to its level."""
    text = (LIBRARY / "README.md").read_text().split("## Layers")[1].split("\n## ")[0]
    return {
        PLUGINS if name == "plugins" else name: int(level)
        for level, names in re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }


def imported(path: Path) -> set[str]:
    """Return the modules of the library that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "fulgurite":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) | ({str(node.module)} & MODULES.keys())
    return found


@cache
def graph() -> dict[str, set[str]]:
    """Return the modules that each module imports; parsing them all would hold up each process that collects tests."""
    return {name: imported(path) - {name} for name, path in MODULES.items()}


def test_every_package_has_a_row_and_every_row_a_package() -> None:
    packages = {package_of(name) for name in MODULES} - {""}
    assert packages == table().keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_package_imports_only_what_its_row_allows(name: str) -> None:
    package = package_of(name)
    if not package:
        return
    others = {package_of(other) for other in graph()[name]} - {package}
    assert others <= table()[package], f"{name} imports {others - table()[package]}"
    assert all(levels()[other] < levels()[package] for other in others), "an import goes up"


def test_no_file_imports_itself_through_others() -> None:
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"circle: {' -> '.join((*trail, name))}"
        if name not in state:
            state[name] = 1
            for other in sorted(graph()[name]):
                visit(other, (*trail, name))
            state[name] = 2

    for name in sorted(graph()):
        visit(name, ())


def test_packages_and_the_library_stay_small() -> None:
    files: defaultdict[str, int] = defaultdict(int)
    lines: defaultdict[str, int] = defaultdict(int)
    for name, path in MODULES.items():
        files[package_of(name)] += 1
        lines[package_of(name)] += len(path.read_text().splitlines())
    assert {package: count for package, count in files.items() if count > MAX_FILES} == {}
    assert {package: count for package, count in lines.items() if count > MAX_LINES} == {}
    assert sum(lines.values()) <= MAX_LIBRARY_LINES


def test_a_package_says_what_it_is_for_and_its_file_imports_nothing_heavy() -> None:
    for path in LIBRARY.rglob("__init__.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
        assert names <= {"__future__", "typing", "fulgurite.core.lazy"}, path


def test_only_named_files_unpickle_and_instantiate() -> None:
    unsafe = re.compile(
        r"(?<!save_)weights_only\s*[=:]\s*(False|false)|TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD|pickle\.loads?\("
    )
    assert [path for path in FILES if unsafe.search(path.read_text())] == [LIBRARY / "core/files.py"]
    trees = {path: list(ast.walk(ast.parse(path.read_text()))) for path in FILES}
    loads = [
        node
        for nodes in trees.values()
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads
    assert all(any(argument.arg == "weights_only" for argument in call.keywords) for call in loads)
    callers = {
        path.name
        for path, nodes in trees.items()
        if "instantiate" in {node.id for node in nodes if isinstance(node, ast.Name)}
    }
    assert callers == {"build.py", "hydra_targets.py"}
