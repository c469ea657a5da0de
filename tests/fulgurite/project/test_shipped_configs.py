"""Rules for the configs that the template ships: their groups, their comments, the header of an experiment.

A config of your own, and one that you edited, is held to none of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.project import CONFIGS, shipped, shipped_options

SHIPPED = shipped(CONFIGS.rglob("*.yaml"))


def test_the_groups_are_those_users_of_this_family_know() -> None:
    known = {
        *("callbacks", "data", "debug", "distributed", "experiment", "extras", "hparams_search", "hydra", "local"),
        *("logger", "model", "paths", "resilience", "trainer"),
        *("optimizer", "scheduler", "slice"),
    }
    assert {path.relative_to(CONFIGS).parts[0] for path in SHIPPED if path.parent != CONFIGS} <= known
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} >= known


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_setting_says_what_it_is(path: Path) -> None:
    # groups of settings, targets and lists of files speak for themselves; numbers and switches do not
    silent = [
        line
        for line in path.read_text().splitlines()
        if ":" in line
        and not line.lstrip().startswith(("#", "-", "_target_", "format", "datefmt"))
        and line.split(":", 1)[1].strip()
        and "#" not in line
        and any(character.isdigit() for character in line.split(":", 1)[1])
    ]
    if "experiment" in path.parts or path.parent.name == "slice":
        silent = []  # only the difference: the setting is explained where it is declared
    assert silent == []


@pytest.mark.parametrize("name", shipped_options("experiment"))
def test_an_experiment_says_what_it_is_its_command_and_its_result(name: str) -> None:
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    head = "\n".join(line for line in lines if line.startswith("#"))
    assert f"python src/train.py experiment={name}" in head
    assert "expect" in head
    assert "MEASURE" not in head
