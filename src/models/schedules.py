"""Learning rates that torch has no scheduler for, section 11.11 of the book."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class SquareRootLR(LambdaLR):
    """Divides the learning rate by the square root of (1 + steps taken).

    Args:
        optimizer: Its learning rate is that of the first step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, _inverse_square_root)


def _inverse_square_root(step: int) -> float:
    return 1 / math.sqrt(step + 1)


class WarmupCosineLR(LambdaLR):
    """Raises the learning rate in a line, then lowers it along half a cosine, then keeps it.

    Args:
        optimizer: Its learning rate is the largest one.
        max_steps: Steps until the learning rate has its last value.
        warmup_steps: Steps of the line. 0 starts at the largest learning rate.
        first_factor: Factor of the first step of the line.
        last_factor: Factor of the last value.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_steps: int,
        warmup_steps: int = 0,
        first_factor: float = 0.0,
        last_factor: float = 0.0,
    ) -> None:
        self.max_steps, self.warmup_steps = max_steps, warmup_steps
        self.first_factor, self.last_factor = first_factor, last_factor
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step."""
        if step < self.warmup_steps:
            return self.first_factor + (1 - self.first_factor) * step / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))
        return self.last_factor + (1 - self.last_factor) * (1 + math.cos(math.pi * progress)) / 2
