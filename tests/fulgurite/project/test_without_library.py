"""The project beside an installed library: its own tests need neither `fulgurite/` nor `tests/fulgurite/`."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fulgurite.project.test_wheel import python, wheel
from tests.support.project import ROOT

__all__ = ["python", "wheel"]

# `python -m pytest` would start a script of the borrowed environment, whose folder decides on the project
PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
LOCATIONS = "import fulgurite; print(fulgurite.__file__); print(fulgurite.project_root())"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the files that git tracks, except the library and its tests."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    for name in filter(None, listed.stdout.split("\0")):
        is_library = name.startswith(("fulgurite/", "tests/fulgurite/"))
        if not is_library and (ROOT / name).is_file():  # a file that is deleted but not committed is still listed
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def imported_names(file: Path) -> set[tuple[str, str]]:
    """Return each module and name that a file imports; an `import x` has no name."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imports_from = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return names | {(str(node.module), alias.name) for node in imports_from for alias in node.names}


def test_the_tests_of_the_project_import_public_names_only() -> None:
    files = [ROOT / "tests/conftest.py", *(ROOT / "tests").glob("test_*.py")]
    internal = set()
    for file in files:  # grows by the helpers that these files import
        for module, name in imported_names(file):
            helper = ROOT / f"{module.replace('.', '/')}.py"
            if module.startswith("tests.") and helper not in files:
                files.append(helper)
            elif module.split(".")[0] == "fulgurite" and name not in importlib.import_module(module).__all__:
                internal.add((file.name, module, name))
    assert internal == set()
    assert ROOT / "tests/support/tiny_mnist.py" in files


@pytest.mark.slow
def test_the_tests_of_the_project_pass_with_the_installed_library(python: Path, project: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in {"PROJECT_ROOT", "PYTHONPATH"}}

    def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        command = [str(python), *arguments]
        return subprocess.run(
            command, cwd=project, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )

    library, root = run("-c", LOCATIONS).stdout.splitlines()
    assert Path(library).is_relative_to(python.parents[1])
    assert Path(root) == project
    done = run("-c", PYTEST, "-q", "-p", "no:cacheprovider", "-m", "not slow", "tests", timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
