"""Metrics cheap enough for every training step.

They are torchmetrics' in all but the update: no look at values, which on a GPU waits for the device, and no
attribute set.
"""

from __future__ import annotations

import torch
from torchmetrics import Metric


class ExampleMean(Metric):
    """Mean over examples of a quantity that each batch gives as its own mean.

    Exact over batches of unequal size and over ranks. A NaN stays a NaN: torchmetrics' MeanMetric looks for one at
    every step, which on a GPU waits for the device, and with `nan_strategy="disable"` (1.9.0) it forgets the weights.
    """

    full_state_update = False
    total: torch.Tensor
    examples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, mean: torch.Tensor, examples: int) -> None:
        """Add a batch.

        Args:
            mean: Mean over the batch, scalar.
            examples: Examples in the batch.
        """
        # in place: `+=` would also set the attribute, which costs more than the sum
        self.total.add_(mean, alpha=examples)
        self.examples.add_(examples)

    def compute(self) -> torch.Tensor:
        """Return the mean over all examples so far, scalar."""
        return self.total / self.examples


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
