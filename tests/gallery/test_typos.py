"""Typos of options that lie in folders of a group, as those of the gallery do, get the right suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compose import finding_in_file, findings

TYPOS = [
    ("defaults:\n  - override /data: galery/airfoil\n", 3, "no data 'galery/airfoil'. Did you mean 'gallery/airfoil'?"),
    ("defaults:\n  - override /data: airfoil\n", 3, "there is no data 'airfoil'. Did you mean 'gallery/airfoil'?"),
    ("defaults:\n  - gallery/lenett\n", 3, "no experiment/gallery 'lenett'. Did you mean 'lenet'"),
    ("defaults:\n  - lenet_modern\n", 3, "Did you mean '/experiment/gallery/lenet_modern'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number", "said"), TYPOS)
def test_an_option_in_a_folder_of_a_group_is_suggested_in_a_file(
    text: str, number: int, said: str, tmp_path: Path
) -> None:
    assert said in finding_in_file(text, number, tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiment=lenet_modern", "no experiment 'lenet_modern'. Did you mean 'gallery/lenet_modern'?"),
        ("experiment=galery/lenet", "no experiment 'galery/lenet'. Did you mean 'gallery/lenet'?"),
        ("experiment=gallery/lenett", "no experiment 'gallery/lenett'. Did you mean 'gallery/lenet'"),
        ("model=gallery/clasifier", "no model 'gallery/clasifier'. Did you mean 'gallery/classifier'?"),
        ("callbacks=[default,gallery/live]", "no callbacks 'gallery/live'. Did you mean 'live'?"),
    ],
)
def test_an_option_in_a_folder_of_a_group_is_suggested_on_the_command_line(override: str, said: str) -> None:
    (line,) = findings(override)
    assert line.startswith(f"command line: {override}: there is ")
    assert said in line
