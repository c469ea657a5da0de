"""A `hydra/job_logging` of Hydra's or of the user's own replaces the shipped one as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.support.compose import compose_raw, with_file

OWN = """version: 1
formatters: {simple: {format: "%(message)s !"}}
handlers: {console: {class: logging.StreamHandler, formatter: simple}}
root: {handlers: [console]}
"""


def logging_of(*overrides: str) -> Any:
    """Return the logging of jobs."""
    cfg = compose_raw(*overrides, "hydra.runtime.output_dir=/run")
    return OmegaConf.to_container(cfg.hydra.job_logging, resolve=True)


def test_the_shipped_one_writes_to_the_terminal_and_a_file() -> None:
    settings = logging_of()
    assert settings["root"]["handlers"] == ["console", "file"]
    assert settings["handlers"]["file"]["filename"] == "/run/train.log"


@pytest.mark.parametrize("name", ["disabled", "none", "stdout"])
def test_one_of_hydras_own_has_no_handler_of_the_shipped_one(name: str) -> None:
    settings = logging_of(f"hydra/job_logging={name}")
    assert "file" not in settings.get("handlers", {})


def test_ones_own_is_taken_as_written(tmp_path: Path) -> None:
    search = with_file(tmp_path, "hydra/job_logging/ours.yaml", OWN)
    settings = logging_of(*search, "hydra/job_logging=ours")
    assert settings["handlers"] == {"console": {"class": "logging.StreamHandler", "formatter": "simple"}}
    assert settings["formatters"] == {"simple": {"format": "%(message)s !"}}
