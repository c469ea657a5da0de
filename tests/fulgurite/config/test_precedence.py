"""What an experiment sets wins over every key of the entry points and of the groups."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.config.compose import compose


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(node, dict) or not node:
        yield prefix
        return
    for key, value in node.items():
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


@pytest.mark.parametrize("name", ["train", "eval"])
def test_an_experiment_overrides_every_key(name: str, tmp_path: Path) -> None:
    defaults = OmegaConf.to_container(compose([], config_name=name), resolve=False)
    keys = [key for key in _leaves(defaults) if not key.startswith(("paths.", "trust"))]  # not of files
    assert {"seed", "tags.dev", "sweep.on_error", "task_name", "data.batch_size"} <= set(keys)
    experiment = OmegaConf.create()
    for number, key in enumerate(keys):
        OmegaConf.update(experiment, key, f"set-{number}", force_add=True)
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\n" + OmegaConf.to_yaml(experiment)
    (tmp_path / "experiment" / "everything.yaml").write_text(text)
    search = (f"hydra.searchpath=[file://{tmp_path}]", f"trust=[{tmp_path}]")
    cfg = compose([*search, "experiment=everything"], config_name=name)
    assert _differing(cfg, keys) == []


def test_the_seed_of_the_shipped_experiment_is_used() -> None:
    assert compose(["experiment=example"]).seed == 12345


def _differing(cfg: DictConfig, keys: list[str]) -> list[str]:
    return [key for number, key in enumerate(keys) if OmegaConf.select(cfg, key) != f"set-{number}"]
