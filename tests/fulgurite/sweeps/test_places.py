"""What is wrong with a space that stands in a file has the file and line, and each fault of a key one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig

from fulgurite.core.errors import ConfigError
from fulgurite.search.settings import SearchSettings
from fulgurite.search.space import read_space
from fulgurite.sweeps.places import param_places
from tests.fulgurite.engine.test_usage_errors import composed
from tests.support.compose import with_file
from tests.support.search import start

TEXT = """# @package _global_
defaults: [override /hydra/sweeper: search]
optimized_metric: val/acc
hydra:
  sweeper:
    n_trials: 0
    params:
      sed: choice(1,2)
      data.batch_size: interval(5,1)
      seed: choice(1,2)
"""


def refused(folder: Path, *typed: str, findings: list[str] | None = None) -> list[str]:
    """Return the lines of a search in a file, and the file as `ours:` in them."""
    search = with_file(folder, "hparams_search/ours.yaml", TEXT)
    with composed(*search, "hparams_search=ours", folder=folder) as cfg, pytest.raises(ConfigError) as caught:
        _read(cfg, typed, findings)
    return [line.replace(str(folder / "hparams_search/ours.yaml"), "ours") for line in caught.value.findings]


def _read(cfg: DictConfig, typed: Sequence[str], findings: list[str] | None) -> None:
    with param_places(cfg, typed):
        if findings is not None:
            raise ConfigError(findings)
        read_space(typed, cfg.hydra.sweeper)
        SearchSettings.read(cfg)


def test_a_distribution_and_a_setting_have_their_line(tmp_path: Path) -> None:
    (line,) = refused(tmp_path)
    assert line.startswith("ours:9: data.batch_size=interval(5,1): The `low` value must be smaller")
    (line,) = refused(tmp_path, "data.batch_size=interval(1,5)")
    assert line == "ours:6: hydra.sweeper.n_trials=0: must be an integer of at least 1"


def test_the_values_of_trials_have_the_line_of_their_key(tmp_path: Path) -> None:
    given = [
        "command line: sed=1: there is no such key",
        "sed=2: command line: sed=2: there is no such key",
        "command line: seed=1: is typed",
        "seed=1: command line: seed=2: is typed",
        "optimized_metric: is another thing",
    ]
    assert refused(tmp_path, "seed=3,4", findings=given) == [
        "ours:8: sed=1, 2: there is no such key",
        *given[2:4],
        "ours:3: optimized_metric: is another thing",
    ]


def test_a_grid_in_a_file_has_the_line_of_its_key_beside_values_that_only_a_job_knows(tmp_path: Path) -> None:
    text = "# @package _global_\nhydra: {sweeper: {params: {sed: '1,2'}}}\n"
    grid = with_file(tmp_path, "hparams_search/ours.yaml", text)
    end = start(tmp_path, ["-m", *grid, "hparams_search=ours", "model.optimizer.lr=${hydra:job.num}"])
    said = "ours.yaml:2: sed=1, 2: there is no such key. Did you mean 'seed'?"
    assert (end.returncode, end.stderr) == (2, f"error: {tmp_path}/hparams_search/{said}\n")
