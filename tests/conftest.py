"""Fixtures of several test files."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest.mock import patch

import pytest
from omegaconf import DictConfig

from fulgurite import compose, project_root
from tests.support.memo import remember_parsed_configs

if TYPE_CHECKING:  # the process that hands out the tests to others runs none, and starts them once it has read this
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback

os.environ["OMP_NUM_THREADS"] = "1"  # tests start many processes on few cores
os.environ["PROJECT_ROOT"] = str(project_root())  # configs read it
remember_parsed_configs()

SMALL = (
    "trainer.max_epochs=1",
    "+trainer.limit_train_batches=4",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
    "extras.print_config=false",
)


class ComposeSmall(Protocol):
    """Composes a run of one second that writes to the test's own folder."""

    def __call__(self, *overrides: str, config_name: str = "train", folder: Path | None = None) -> DictConfig: ...


def pytest_collection_finish() -> None:
    """Let garbage collections pass over all that the tests have imported: a million objects that stay."""
    gc.collect()
    gc.freeze()


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return a trainer's callbacks; Lightning sets the attribute where a type checker does not see it."""
    callbacks: list[Callback] = vars(trainer)["callbacks"]
    return callbacks


@pytest.fixture
def small(tmp_path: Path) -> ComposeSmall:
    """Compose a run of four batches, changed by the overrides of the test."""

    def compose_small(*overrides: str, config_name: str = "train", folder: Path | None = None) -> DictConfig:
        folder = folder or tmp_path / "run"
        folder.mkdir(parents=True, exist_ok=True)
        cfg = compose([*SMALL, *overrides], config_name=config_name, output_dir=folder)
        cfg.paths.log_dir = str(tmp_path / "logs")
        return cfg

    return compose_small


@pytest.fixture(autouse=True)
def _leave_the_environment_as_it_was() -> Iterator[None]:
    """Take back variables that a test's training set: Lightning leaves the address and the rank of a DDP run."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    """Undo what a run changes: it captures warnings and filters handlers."""
    root = logging.getLogger()
    filters = {handler: list(handler.filters) for handler in root.handlers}
    yield
    logging.captureWarnings(False)
    for handler, before in filters.items():
        handler.filters[:] = before
