"""A callback that shows its secrets in each way in which code does by mistake."""

from __future__ import annotations

import logging

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class SecretProbe(Callback):
    """Print and log three secrets, and put them into hyperparameters and the checkpoint.

    Args:
        of_environment: A secret.
        of_file: A secret.
        of_vault: A secret.
    """

    def __init__(self, of_environment: str, of_file: str, of_vault: str) -> None:
        assert [text.rpartition("-")[2] for text in (of_environment, of_file, of_vault)] == ["env", "file", "vault"]
        self.secrets = (of_environment, of_file, of_vault)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the secrets."""
        first, second, third = self.secrets
        print(f"the probe has {first}, {second} and {third}")  # noqa: T201
        logging.getLogger("probe").info("the probe has %s", self.secrets)
        for logger in trainer.loggers:
            logger.log_hyperparams({"probe": list(self.secrets)})
