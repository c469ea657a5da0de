"""Fake loggers that post to a real socket, with the class names of known services."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from tests.support.http_server import PostServer


class Run(str):
    """Id of a run of the service."""

    __slots__ = ()

    def add_tag(self, tag: str) -> None:
        """Accept a tag, as a run of Aim does."""


class AimLogger(Logger):
    """Posts every call as JSON over a connection of its own, and raises the errors of a client.

    Args:
        port: Port of the service on 127.0.0.1.
        timeout: Seconds to wait for a response; far more than a test takes.
        run_hash: The run to resume.
    """

    def __init__(self, port: int, timeout: float = 60.0, run_hash: str | None = None) -> None:
        super().__init__()
        self.port, self.timeout, self.run_hash = port, timeout, run_hash
        self.run: Run | None = None

    @property
    def experiment(self) -> Run:
        """The run of the service, opened at first use."""
        if self.run is None:
            self.post("open", {"run": self.run_hash})
            self.run = Run(self.run_hash or "run-1")
        return self.run

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "posting"

    @property
    def version(self) -> str | None:
        """Id of the run."""
        return self.run

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Post numbers."""
        assert self.experiment
        self.post("metrics", {"step": step, **metrics})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Post names of hyperparameters."""
        assert self.experiment
        self.post("hyperparameters", {"names": sorted(dict(params))})

    def finalize(self, status: str) -> None:
        """Post how the run ended."""
        self.post("end", {"status": status})

    def post(self, kind: str, content: dict[str, Any]) -> None:
        """Send one call; ValueError if the service rejects it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            connection.request("POST", "/", json.dumps({"call": kind, **content}))
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {answer.reason}")


class CometLogger(AimLogger):
    """Connects in its constructor, as CometLogger does."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        super().__init__(port, timeout)
        self.run = Run("made")
        self.post("open", {})


class AtStep(Callback):
    """Acts after some optimizer steps.

    Args:
        step: Number of steps.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act, if this is the step."""
        if trainer.global_step == self.step:
            self.act(trainer)

    def act(self, trainer: Trainer) -> None:
        """Act."""
        raise NotImplementedError


class KillServer(AtStep):
    """Kills the service."""

    server: PostServer

    def act(self, trainer: Trainer) -> None:
        """Kill it."""
        vars(trainer.loggers[0])["delivery"].end_stage()  # so that the test knows what was sent
        self.server.kill()


class FailAt(AtStep):
    """Raises an error."""

    def act(self, trainer: Trainer) -> None:
        """Raise it."""
        raise RuntimeError("failed as asked")
