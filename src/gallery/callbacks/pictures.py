"""Pictures of what a model does: files in the run directory, and images of the loggers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

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
    """Draws the validation targets of a regression, and its predictions.

    Args:
        name: Name of the file.
        over: What the curves are drawn over: the first input, or the number of the example, as in a series of time.
    """

    def __init__(self, name: str = "fitted_curve", over: Literal["first input", "example"] = "first input") -> None:
        super().__init__(name)
        self.over = over

    def draw(self, figure: Any, trainer: Trainer, model: Any) -> None:
        """Draw two lines; see `Picture.draw`."""
        first, targets, predictions = map(torch.cat, zip(*self._batches(trainer, model), strict=True))
        order = first.argsort() if self.over == "first input" else torch.arange(len(first))
        x = first[order] if self.over == "first input" else order
        axes = figure.add_subplot(xlabel=self.over, ylabel="target")
        axes.plot(x.numpy(), targets[order].numpy(), label="true")
        axes.plot(x.numpy(), predictions[order].numpy(), "--", label="predicted")
        axes.legend()

    def _batches(self, trainer: Trainer, model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield the first input, the target and the prediction of each validation batch, each `[B]`."""
        for inputs, targets in cast("Any", trainer).datamodule.val_dataloader():
            first = inputs[0] if isinstance(inputs, (tuple, list)) else inputs
            on_device = model.transfer_batch_to_device(inputs, model.device, 0)
            yield first[:, 0], targets[:, 0], model(on_device).cpu()[:, 0]


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
