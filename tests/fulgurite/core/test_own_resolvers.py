"""Resolvers of a project's own: `src/resolvers.py` is imported before a config is composed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fulgurite.core import project
from fulgurite.core.errors import UserError
from tests.support.compose import compose_raw


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the place of the file in a project, from which nothing of it is left in this process."""
    monkeypatch.setattr(project, "project_root", lambda: tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PROJECT_ROOT", str(tmp_path))
    (tmp_path / "src").mkdir()
    yield tmp_path / "src" / "resolvers.py"
    sys.modules.pop("src.resolvers", None)
    OmegaConf.clear_resolver("own_for_a_test")


def test_a_config_reads_a_resolver_of_the_project(file: Path) -> None:
    # registered once: a second import of the file would raise an error
    file.write_text(
        "from omegaconf import OmegaConf\nOmegaConf.register_new_resolver('own_for_a_test', lambda x: 2 * x)\n"
    )
    for _ in range(2):
        assert compose_raw("trainer.max_epochs=${own_for_a_test:4}").trainer.max_epochs == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nif x\n", r"resolvers\.py:2: SyntaxError: .*\. Correct the file\.$"),
        ("x = 1\n\nnowhere(x)\n", r"resolvers\.py:3: NameError: name 'nowhere' is not defined\. Correct the file\.$"),
    ],
)
def test_an_error_in_the_file_is_one_line(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        project.prepare_environment()


def test_the_folder_of_data_sets_ends_with_a_slash() -> None:
    # projects write ${paths.data_dir}name
    assert compose_raw("data.data_dir=${paths.data_dir}mine").data.data_dir.endswith("/data/mine")
