"""Metrics cheap enough for every training step.

They are torchmetrics' in all but the update: no look at values, which on a GPU waits for the device, and no
attribute set.
"""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric


class ExampleMean(Metric):
    """Mean over examples of a quantity that each batch gives as its own mean, or example by example.

    Exact over batches of unequal size and over ranks. Given example by example it does not depend on how examples are
    put into batches and shared over ranks, since the sum has digits to spare.

    A NaN stays a NaN: torchmetrics' MeanMetric looks for one at every step, which on a GPU waits for the device, and
    with `nan_strategy="disable"` (1.9.0) it forgets the weights.
    """

    full_state_update = False
    total: torch.Tensor
    examples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: torch.Tensor, examples: int) -> None:
        """Add a batch.

        Args:
            values: Mean over the batch, scalar, or the value of each example `[B]`.
            examples: Examples in the batch.
        """
        # in place: `+=` would also set the attribute, which costs more than the sum
        if values.ndim:
            self.total.add_(values.sum(dtype=self.total.dtype))
        else:
            self.total.add_(values, alpha=examples)
        self.examples.add_(examples)

    def compute(self) -> torch.Tensor:
        """Return the mean over all examples so far, scalar."""
        return (self.total / self.examples).float()

    def _apply(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        try:
            return super()._apply(*args, **kwargs)
        except TypeError:  # the GPU of Apple silicon knows no float64
            self._defaults["total"] = torch.tensor(0.0)
            self.total = self.total.float()
            return super()._apply(*args, **kwargs)


class Accuracy(Metric):
    """Share of examples whose highest score is that of their label: torchmetrics' micro-averaged multiclass accuracy.

    Counts whole numbers, so it is exact over batches of unequal size and over ranks.
    """

    full_state_update = False
    correct: torch.Tensor
    examples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            scores: Scores or probabilities, `[B, num_classes]`.
            labels: Right classes, `[B]` int64.
        """
        self.correct.add_((scores.argmax(dim=1) == labels).sum())
        self.examples.add_(labels.numel())

    def compute(self) -> torch.Tensor:
        """Return the accuracy over all examples so far, scalar from 0 to 1."""
        return self.correct / self.examples
