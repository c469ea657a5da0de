"""A picture reaches every logger that shows pictures, and cannot stop a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from fulgurite.loggers import close, guard, log_image


class Calls(list[tuple[str, tuple[Any, ...]]]):
    """Records each method that is called, as the client of a service."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.append((name, (*args, *kwargs.values())))


class Service(Logger):
    """A logger of a service."""

    name, version, run_id = "service", "1", "run-1"

    def __init__(self) -> None:
        super().__init__()
        self.calls: Any = Calls()

    @property
    def experiment(self) -> Any:
        """The client, which records its calls."""
        return self.calls

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        """Record the call."""
        self.calls.append(("log_image", (*args, *kwargs.values())))

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Ignore metrics."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Ignore hyperparameters."""


def logger_of(kind: str) -> Any:
    return type(kind, (Service,), {})()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 3), "red").save(tmp_path / "curve.png")
    return tmp_path / "curve.png"


@pytest.mark.parametrize(
    ("kind", "method", "arguments"),
    [
        ("WandbLogger", "log_image", ("curve", ["{path}"], 7)),
        ("MLFlowLogger", "log_artifact", ("run-1", "{path}", "pictures")),
        ("CometLogger", "log_image", ("{path}", "curve", 7)),
    ],
)
def test_each_service_gets_the_file(kind: str, method: str, arguments: tuple[Any, ...], picture: Path) -> None:
    logger = logger_of(kind)
    log_image([logger, logger_of("OtherLogger")], "curve", picture, 7)
    texts = {"{path}": str(picture)}
    expected = tuple([str(picture)] if isinstance(part, list) else texts.get(part, part) for part in arguments)
    assert logger.calls == [(method, expected)]


def test_tensorboard_gets_an_image(picture: Path, tmp_path: Path) -> None:
    logger, shown = TensorBoardLogger(tmp_path), []
    logger._experiment = SimpleNamespace(add_image=lambda *args, **kwargs: shown.append((args, kwargs)))  # type: ignore[assignment]
    log_image([logger, CSVLogger(tmp_path)], "curve", picture, 7)
    [(arguments, more)] = shown
    assert (arguments[0], arguments[1].shape, arguments[2], more) == ("curve", (3, 4, 3), 7, {"dataformats": "HWC"})


def test_a_service_that_fails_stops_no_run(picture: Path, tmp_path: Path) -> None:
    logger = logger_of("MLFlowLogger")
    logger.calls = SimpleNamespace()  # without the method
    guard(logger, "mlflow", tmp_path)
    log_image([logger], "curve", picture, 7)
    close([logger], failed=False)
    assert "log_image" in (tmp_path / "undelivered-mlflow.jsonl").read_text()
