"""Metrics that torchmetrics does not have in the form a training step needs."""

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
        self.total += mean * examples
        self.examples += examples

    def compute(self) -> torch.Tensor:
        """Return the mean over all examples so far, scalar."""
        return self.total / self.examples
