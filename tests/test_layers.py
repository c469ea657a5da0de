"""Who may import whom: the layer table of `fulgurite/README.md`, and the rules of `src/` as it is shipped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.project import ROOT, shipped

# src/: folder to what it may import of this project; its own files are always allowed
SRC = {
    "entry points": {"fulgurite"},
    "models": {"src.models.nets", "fulgurite.core.errors", "fulgurite.data", "fulgurite.callbacks"},
    "models/nets": set(),
    "data": {"fulgurite.core.errors", "fulgurite.data", "fulgurite.callbacks"},
    "callbacks": {"fulgurite.core.errors", "fulgurite.data", "fulgurite.callbacks"},
    # worked examples: nothing outside imports them, and deleting the folder leaves a working template
    "gallery": set(),
    "gallery/nets": set(),
    "gallery/tasks": {"src.gallery.nets", "src.gallery.decoding", "src.models.metrics", "fulgurite.core.errors"},
    "gallery/data": {"src.data", "fulgurite.core.errors", "fulgurite.data"},
    "gallery/callbacks": {"fulgurite.core.errors", "fulgurite.loggers"},
}
HEAVY = {"torch", "lightning", "torchmetrics"}
MAX_ENTRY_POINT_LINES = 45
MAX_SRC_LINES = 1800

SRC_FILES = [path for path in shipped((ROOT / "src").rglob("*.py")) if path.name != "__init__.py"]


def folder_of(path: Path) -> str:
    """Return the folder of a file below `src/`, as a key of `SRC`; the folder itself where it has no row."""
    folder = path.parent.relative_to(ROOT / "src").as_posix()
    return "entry points" if folder == "." else folder if folder in SRC else folder.split("/")[0]


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, name the package"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("path", SRC_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_src_imports_only_what_its_folder_may(path: Path) -> None:
    folder = folder_of(path)
    assert folder in SRC, f"{folder}: add a row to the table"
    own = "src" if folder == "entry points" else f"src.{folder.replace('/', '.')}"
    for module in imports_of(path):
        if module.split(".")[0] in {"src", "fulgurite"}:
            allowed = {own} if module.startswith("src") else SRC[folder]
            allowed = allowed | {name for name in SRC[folder] if name.startswith("src")}
            exact = folder == "entry points"
            assert any(module == name or (not exact and module.startswith(f"{name}.")) for name in allowed), module


NETS = [*(ROOT / "src/models/nets").glob("*.py"), *(ROOT / "src/gallery/nets").glob("*.py")]


@pytest.mark.parametrize("path", shipped(NETS), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nets_import_torch_and_the_standard_library_only(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports_of(path) if not module.startswith("src.gallery.nets")}
    assert not roots & {"lightning", "torchmetrics", "hydra", "omegaconf", "src", "fulgurite"}


@pytest.mark.parametrize("path", shipped((ROOT / "src").glob("[!_]*.py")), ids=lambda path: path.name)
def test_an_entry_point_is_one_page_and_imports_nothing_heavy_at_its_top(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_ENTRY_POINT_LINES
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & HEAVY


def test_src_stays_small_enough_to_read() -> None:
    without_gallery = [path for path in SRC_FILES if "gallery" not in path.parts]
    assert sum(len(path.read_text().splitlines()) for path in without_gallery) <= MAX_SRC_LINES


def test_no_folder_is_called_utils() -> None:
    folders = [ROOT / name for name in ("src", "fulgurite", "tests", "scripts") if (ROOT / name).is_dir()]
    assert not [path for folder in folders for path in shipped(folder.rglob("*.py")) if "util" in path.name]


def test_nothing_loads_a_checkpoint_that_could_run_code() -> None:
    unsafe = re.compile(r"(?<!save_)weights_only\s*[=:]\s*(False|false)|TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD|pickle\.load")
    files = [path for folder in ("src", "scripts", "configs") for path in (ROOT / folder).rglob("*.*")]
    files = [*shipped(files), *(ROOT / "scripts").rglob("*.sh")]
    assert not [path for path in files if unsafe.search(path.read_text())]
    loads = [
        node
        for path in SRC_FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert all(any(argument.arg == "weights_only" for argument in call.keywords) for call in loads)
