"""Metrics that torchmetrics does not have."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric


class ExampleMean(Metric):
    """Mean of one value per example, exact over batches of unequal size and over ranks.

    The sum is float64, so the mean does not depend on how the examples are batched or sharded. NaN is kept: unlike
    `MeanMetric` of torchmetrics 1.9, it does not wait for the GPU at each step to look for NaN.
    """

    full_state_update = False
    total: torch.Tensor
    num_examples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: torch.Tensor) -> None:
        """Add one value per example, `[B]`."""
        self.total.add_(values.sum(dtype=self.total.dtype))
        self.num_examples.add_(values.numel())

    def compute(self) -> torch.Tensor:
        """Return the mean over all examples so far, scalar."""
        return (self.total / self.num_examples).float()

    def _apply(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        try:
            return super()._apply(*args, **kwargs)
        except TypeError:  # MPS has no float64
            self._defaults["total"] = torch.tensor(0.0)
            self.total = self.total.float()
            return super()._apply(*args, **kwargs)
