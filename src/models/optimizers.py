"""Optimizers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Yogi(Optimizer):
    """Adam whose second moment changes by a bounded amount (Zaheer et al. 2018), section 11.10 of the book.

    With g the gradient: `m = b1 m + (1 - b1) g`, `v = v + (1 - b2) sign(g^2 - v) g^2`, and the weight changes by
    `-lr m' / (sqrt(v') + eps)`, where m' and v' are corrected for their start at 0.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay of the first and the second moment, per step.
        eps: Added to the root of the second moment.
        weight_decay: L2 penalty.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}: out of range.")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: Computes the loss again. None uses the gradients that are there.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        grad = grad.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean, square = state["mean"], state["square"]
        mean.lerp_(grad, 1 - beta1)
        squared = grad.square()
        square.addcmul_(torch.sign(squared - square), squared, value=1 - beta2)
        corrected = square.div(1 - beta2 ** state["step"]).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, corrected, value=-group["lr"] / (1 - beta1 ** state["step"]))
