"""Composes configs and asks what is wrong with them, as an entry point does before it imports anything heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.project import prepare_environment
from fulgurite.validation.composition import explain_composition
from fulgurite.validation.validate import find_problems
from tests.support.project import ROOT


def compose_raw(*overrides: str, config_name: str = "train") -> DictConfig:
    """Compose a config with its `hydra` part."""
    prepare_environment()
    guard_configs()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        return compose(config_name, overrides=list(overrides), return_hydra_config=True)


def findings(*overrides: str, config_name: str = "train") -> list[str]:
    """Return the lines that an entry point reports for a command line, whoever finds them: Hydra or the checks."""
    prepare_environment()
    guard_configs()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        try:
            cfg = compose(config_name, overrides=list(overrides), return_hydra_config=True)
        except Exception as error:
            if explained := explain_composition(error, overrides, config_name):
                return explained.findings
            raise
        return [finding.line for finding in find_problems(cfg)]


def finding_in_file(text: str, number: int, folder: Path) -> str:
    """Return the one line about a user's own experiment, which must name the file and the number of the line.

    Args:
        text: The file, below its package line.
        number: The line that the finding is about.
        folder: Gets the file.
    """
    search = with_file(folder, "experiment/ours.yaml", f"# @package _global_\n{text}")
    (line,) = findings(*search, "experiment=ours")
    assert line.startswith(f"{folder / 'experiment/ours.yaml'}:{number}: ")
    return line


def with_file(folder: Path, name: str, text: str) -> Sequence[str]:
    """Write a config file outside the project's own and return the override that lets Hydra find it.

    Args:
        folder: Stands beside `configs/` in the search path.
        name: Path in it, e.g. `experiment/typo.yaml`.
        text: YAML.
    """
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return (f"hydra.searchpath=[{folder}]", f"trust=[{folder}]")
