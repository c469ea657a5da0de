"""`self.logger`, `self.loggers` and `trainer.log_dir`, as models of other projects use them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fulgurite import build
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from tests.conftest import ComposeSmall


@pytest.mark.parametrize(
    ("logger", "first"),
    [("csv", CSVLogger), ("[tensorboard,csv]", TensorBoardLogger), (None, MetricsCSVLogger)],
)
def test_the_first_logger_is_the_chosen_one_and_log_dir_the_run_directory(
    logger: str | None, first: type, small: ComposeSmall, tmp_path: Path
) -> None:
    trainer = build(small(*[f"logger={logger}"] * bool(logger))).trainer
    assert isinstance(trainer.logger, first)
    assert isinstance(trainer.loggers[-1], MetricsCSVLogger)
    assert trainer.log_dir == str(tmp_path / "run")
    assert isinstance(trainer, Trainer)
    assert type(trainer).__name__ == "Trainer"


def test_the_logger_of_metrics_csv_ignores_what_models_do_with_a_service(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path)
    logger.experiment.add_image("digits", None, 0)
    logger.experiment[0].append(1)
    assert logger.save_dir == logger.log_dir == str(tmp_path)


def test_a_trainer_reaches_a_spawned_process_with_its_log_dir(small: ComposeSmall, tmp_path: Path) -> None:
    trainer = build(small()).trainer
    vars(trainer).update({name: None for name in vars(trainer) if name != "run_dir"})  # the rest is Lightning's
    assert pickle.loads(pickle.dumps(trainer)).log_dir == str(tmp_path / "run")  # noqa: S301 - made above
