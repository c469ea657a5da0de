"""Who may import whom: the layer table of `src/README.md`, held by reading every import of every room."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.support.project import ROOT

# room: the rooms it may import; its own files are always allowed
MAY_IMPORT = {
    "doors": {"run", "distributed", "sources", "base"},
    "tools": {"run", "distributed", "sources", "base"},
    "run": {"base"},
    "models": {"models/nets", "base"},
    "models/nets": set(),
    "data": {"base"},
    "callbacks": {"base", "sources"},
    "distributed": {"base"},
    "sources": {"base"},
    "plugins": {"run", "base", "sources"},
    "base": set(),
}
HEAVY = {"torch", "lightning", "torchmetrics"}
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the room of a file below `src/`; files directly in `src/` are doors."""
    parts = path.relative_to(ROOT / "src").parent.parts
    if parts[:2] == ("models", "nets"):
        return "models/nets"
    return parts[0] if parts else "doors"


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, say where from"
            found.add(str(node.module))
    return found


def test_every_folder_of_src_has_a_row() -> None:
    rooms = {room_of(path) for path in SOURCES}
    assert rooms <= MAY_IMPORT.keys()
    folders = {path.name for path in (ROOT / "src").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= MAY_IMPORT.keys(), "a folder without a row"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_its_row_allows(path: Path) -> None:
    room = room_of(path)
    for module in imports_of(path):
        if not module.startswith("src."):
            continue
        target = ROOT.joinpath(*module.split("."))
        other = room_of(target / "x") if target.is_dir() else room_of(target.with_suffix(".py"))
        assert other == room or other in MAY_IMPORT[room], f"{room} may not import {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "src/models/nets").glob("*.py")), ids=lambda path: path.name)
def test_nets_import_torch_and_the_standard_library_only(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports_of(path)}
    assert not roots & {"lightning", "torchmetrics", "hydra", "omegaconf", "src"}


@pytest.mark.parametrize("door", ["train", "eval"])
def test_a_door_is_one_page_and_imports_nothing_heavy_at_its_top(door: str) -> None:
    path = ROOT / "src" / f"{door}.py"
    assert len(path.read_text().splitlines()) <= 60
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & HEAVY


def test_there_is_no_room_called_utils() -> None:
    assert not [path for path in SOURCES if "util" in path.name]


def test_nothing_loads_a_checkpoint_that_could_run_code() -> None:
    files = [path for folder in ("src", "scripts", "configs") for path in (ROOT / folder).rglob("*.*")]
    unsafe = re.compile(
        r"(?<!save_)weights_only\s*[=:]\s*(False|false)|TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD|pickle\.loads?\("
    )
    found = [path for path in files if path.suffix in {".py", ".yaml", ".sh"} and unsafe.search(path.read_text())]
    assert found == [ROOT / "src/run/launchers/remote_job.py"], "what processes of one sweep send each other"
    loads = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if _is_torch_load(node)]
    assert loads
    assert all(any(word.arg == "weights_only" for word in call.keywords) for call in loads)


def _is_torch_load(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"


def test_only_build_and_what_hydra_leaves_to_us_call_instantiate() -> None:
    callers = {
        path.name
        for path in SOURCES
        if "instantiate" in {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    }
    assert callers == {"build.py", "hydra_part.py"}


@pytest.mark.parametrize("room", ["run", "distributed", "tools"])
def test_each_file_of_a_room_is_named_once_where_the_house_is_described(room: str) -> None:
    part = (ROOT / "src/README.md").read_text().split(f"## Inside `{room}/`")[1].split("\n## ")[0]
    rows = {row.split("|")[1].strip(" `/"): row for row in part.splitlines() if row.startswith("| `")}
    named = Counter(name for key, row in rows.items() for name in _named(key, row))
    files = [path.relative_to(ROOT / "src" / room) for path in SOURCES if path.is_relative_to(ROOT / "src" / room)]
    assert named == {str(path): 1 for path in files if path.name != "__init__.py"}


def _named(key: str, row: str) -> list[str]:
    """Return the files of a row: those of its first cell, or, where that is a folder, those its second one tells of."""
    if ".py" in key:
        return re.findall(r"`([\w/]+\.py)`", row.split("|")[1])
    return [f"{key}/{name}" for name in re.findall(r"`([\w]+\.py)`", row)]
