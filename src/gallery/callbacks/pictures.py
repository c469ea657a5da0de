"""Pictures of what a model does: files in the run directory, and images of the loggers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.loggers import log_image


@contextmanager
def evaluating(model: LightningModule) -> Iterator[Any]:
    """Put a model in eval mode, without gradients; then in the mode that it had."""
    training = model.training
    model.eval()
    with torch.no_grad():
        yield model
    model.train(training)


class Picture(Callback, ABC):
    """Draws a figure when training ends, to `<run directory>/pictures/<name>.png` and to the loggers.

    Args:
        name: Name of the file.
        width: Of the figure, in inches.
        height: Of the figure, in inches.
    """

    def __init__(self, name: str, width: float = 6.0, height: float = 4.0) -> None:
        self.name, self.size = name, (width, height)

    @abstractmethod
    def draw(self, figure: Any, trainer: Trainer, model: Any) -> None:
        """Draw on a figure of matplotlib.

        Args:
            figure: Empty.
            trainer: Has the data module.
            model: The trained model, in eval mode and without gradients.
        """

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and save the figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=self.size, layout="constrained")
        with evaluating(pl_module) as model:
            self.draw(figure, trainer, model)
        path = Path(trainer.default_root_dir) / "pictures" / f"{self.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100)
        log_image(trainer.loggers, self.name, path, trainer.global_step)


class FittedCurve(Picture):
    """Draws validation targets and predictions of a regression over the first input."""

    def draw(self, figure: Any, trainer: Trainer, model: Any) -> None:
        """Draw two lines; see `Picture.draw`."""
        inputs, targets = next(iter(cast("Any", trainer).datamodule.val_dataloader()))
        first = (inputs[0] if isinstance(inputs, (tuple, list)) else inputs)[:, 0]
        order = first.argsort()
        on_device = model.transfer_batch_to_device(inputs, model.device, 0)
        axes = figure.add_subplot(xlabel="first input", ylabel="target")
        axes.plot(first[order].numpy(), targets[order, 0].numpy(), label="true")
        axes.plot(first[order].numpy(), model(on_device).cpu()[order, 0].numpy(), "--", label="predicted")
        axes.legend()


class MadeImages(Picture):
    """Draws images that a generator makes, in a grid.

    Args:
        name: Name of the file.
        columns: Images of a row; there are as many rows.
    """

    def __init__(self, name: str = "made_images", columns: int = 8) -> None:
        super().__init__(name, columns * 0.6, columns * 0.6)
        self.columns = columns

    def draw(self, figure: Any, trainer: Trainer, model: Any) -> None:
        """Draw a grid; see `Picture.draw`."""
        with torch.random.fork_rng():  # the picture does not change what a longer training draws
            torch.manual_seed(0)
            images = model.generator.sample(self.columns**2).cpu()
        grid = images[:, 0].unflatten(0, (self.columns, self.columns)).permute(0, 2, 1, 3)
        axes = figure.add_subplot()
        axes.imshow(grid.reshape(self.columns * images.shape[-2], -1).numpy(), cmap="gray")
        axes.axis("off")
