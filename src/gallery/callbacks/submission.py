"""A file of predictions in the form that Kaggle takes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from src.gallery.callbacks.pictures import evaluating


class Submission(Callback):
    """Predicts the examples without a target when training ends, to `submission.csv` in the run directory.

    The data module has `predict_dataloader`, and `test_ids`, one for each example. Without examples, there is no file.

    Args:
        id_column: Head of the column of the ids.
        target: Head of the column of the predictions.
    """

    def __init__(self, id_column: str = "Id", target: str = "SalePrice") -> None:
        self.id_column, self.target = id_column, target

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        data = cast("Any", trainer).datamodule
        if not data.test_ids:
            return
        with evaluating(pl_module) as model:
            batches = [
                model(model.transfer_batch_to_device(inputs, model.device, 0)).cpu()
                for inputs, _ in data.predict_dataloader()
            ]
        with (Path(trainer.default_root_dir) / "submission.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([self.id_column, self.target])
            writer.writerows(zip(data.test_ids, torch.cat(batches).flatten().tolist(), strict=True))
