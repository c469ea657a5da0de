"""Optimizers, schedulers, gradients and metrics with state that no state_dict has, as users write them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR
from torchmetrics import MeanMetric, MetricTracker, MinMaxMetric
from torchmetrics.wrappers import Running

from tests.support.shapes.models import Net


class Typed(torch.optim.Optimizer):
    """Keeps a sum in float64, a mask and a counter of each weight."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["sum"] = torch.zeros_like(p, dtype=torch.float64)
                    state["mask"] = torch.ones(p.shape, dtype=torch.bool)
                    state["count"] = torch.zeros(p.shape, dtype=torch.int64)
                state["sum"].mul_(0.9).add_(p.grad.double() / 3)
                state["mask"] ^= p.grad > 0
                state["count"] += state["mask"]
                p.sub_((state["sum"] * group["lr"] / (1 + state["count"] // 2)).float())
        return loss


class Halves(LRScheduler):
    """Counts in an attribute.

    Args:
        optimizer: Is scheduled.
        saved: Attributes that its state_dict has.
    """

    def __init__(self, optimizer: Any, saved: tuple[str, ...]) -> None:
        self.saved, self.calls, self.factors = saved, 0, [1.0]
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        self.calls += 1
        self.factors.append(0.95**self.calls)
        return [base * sum(self.factors) / len(self.factors) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


class Warmup:
    """A function of LambdaLR with a state."""

    def __init__(self) -> None:
        self.calls, self.past = 0, [0.0]

    def __call__(self, step: int) -> float:
        self.calls += 1
        self.past.append(0.93**self.calls)
        return self.past[-1]


def counting_factor() -> Callable[[int], float]:
    calls = [0]

    def factor(step: int) -> float:
        calls[0] += 1
        return float(0.95 ** calls[0])

    return factor


class Steps(Net):
    """Is trained by an optimizer or a scheduler of some kind.

    Args:
        kind: What it is.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def configure_optimizers(self) -> Any:
        if self.kind == "types":
            return Typed(self.parameters())
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if self.kind == "hook":
            _count_steps(optimizer)
        if self.kind == "attribute":
            vars(optimizer)["passes"] = 0
        make: dict[str, Callable[[], LRScheduler]] = {
            "closure": lambda: LambdaLR(optimizer, counting_factor()),
            "object": lambda: LambdaLR(optimizer, Warmup()),
            "nothing saved": lambda: Halves(optimizer, ()),
            "a part saved": lambda: Halves(optimizer, ("calls", "last_epoch")),
            "replaced": lambda: StepLR(optimizer, 2, 0.9),
        }
        if self.kind not in make:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make[self.kind](), "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.kind == "attribute":
            vars(optimizer)["passes"] += 1
            optimizer.param_groups[0]["lr"] = 0.1 / vars(optimizer)["passes"]

    def on_train_epoch_end(self) -> None:
        optimizer: Any = self.optimizers()
        if self.kind == "late hook" and self.current_epoch == 0:
            _count_steps(optimizer.optimizer)
        if self.kind == "replaced" and self.current_epoch == 0:
            self.trainer.strategy.lr_scheduler_configs[0].scheduler = LambdaLR(optimizer.optimizer, lambda _step: 0.1)


def _count_steps(optimizer: torch.optim.Optimizer) -> None:
    steps = [0]

    def decay(held: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        steps[0] += 1
        for group in held.param_groups:
            for weight in group["params"]:
                weight.data.mul_(1 - 0.001 * steps[0])

    optimizer.register_step_post_hook(decay)


class FreeGradients(Net):
    """Has weights that no optimizer has, whose gradients add up."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(16, 16)

    def loss(self, batch: Any) -> torch.Tensor:
        return cross_entropy(self.net(self.before(batch[0])), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        total = self.before.weight.grad
        return self.loss(batch) * (1.0 if total is None else 1.0 + float(total.norm()))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=self.lr)


class MarkedWeights(Net):
    """Keeps a mean of gradient norms in attributes of the weights."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for weight in self.net.parameters():
            assert weight.grad is not None
            seen = 0.9 * vars(weight).get("seen", 0.0) + float(weight.grad.norm())
            vars(weight)["seen"] = seen
            weight.grad /= 1 + seen


class StartHook(Net):
    """Pulls to the weights of the start, by a function that `on_train_start` makes.

    Args:
        kind: `gradient`: a hook of a weight. `attribute`: a function in an attribute.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.pull: Callable[[torch.Tensor], torch.Tensor] = torch.zeros_like

    def on_train_start(self) -> None:
        weight = next(self.net.parameters())
        start = weight.detach().clone()

        def pull(gradient: torch.Tensor) -> torch.Tensor:
            return gradient + 0.5 * (weight.detach() - start)

        if self.kind == "gradient":
            weight.register_hook(pull)  # type: ignore[no-untyped-call]
        else:
            self.pull = pull

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        weighted: torch.Tensor = self.loss(batch) + self.pull(next(self.net.parameters())).square().mean()
        return weighted


class Metrics(Net):
    """Weights its loss by a metric with a state that is none of `add_state`.

    Args:
        kind: What the metric is.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        make: dict[str, Callable[[], Any]] = {
            "tracker": lambda: MetricTracker(MeanMetric(), maximize=False),
            "running": lambda: Running(MeanMetric(), window=3),
            "bounds": lambda: MinMaxMetric(MeanMetric()),
            "own": Longest,
        }
        self.metric = make[kind]()

    def on_train_epoch_start(self) -> None:
        if self.kind == "tracker":
            self.metric.increment()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.metric.update(loss.detach())
        value = self.metric.compute()
        weighted: torch.Tensor = loss * (1 + (value["min"] + value["max"] if self.kind == "bounds" else value))
        return weighted

    def on_train_epoch_end(self) -> None:
        if self.kind == "tracker":
            self.log("train/best", self.metric.best_metric())


class Longest(MeanMetric):
    """A mean that keeps its largest value in an attribute."""

    largest = 0.0

    def update(self, value: Any, weight: Any = 1.0) -> None:
        self.largest = max(self.largest, float(value))
        super().update(value + self.largest, weight)


class Counter(nn.Module):
    """Counts its passes in an attribute of a TorchScript module."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.past = [1.0]
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
            self.past.append(0.1 * self.passes)
        out: torch.Tensor = self.linear(x) * (1.0 + 0.01 * self.passes + self.past[-1])
        return out


class Scripted(Net):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch advises other compilers
            self.net.append(torch.jit.script(Counter()))


class OtherClass(Net):
    """Becomes an object of another class when the first epoch ends."""

    def on_train_epoch_end(self) -> None:
        self.__class__ = Tripled


class Tripled(OtherClass):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return 3 * self.loss(batch)


class Noise(Callback):
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for weight in pl_module.parameters():
            assert weight.grad is not None
            weight.grad += 0.01 * torch.randn_like(weight.grad)


class AddsCallback(Callback):
    """Adds a callback when the first epoch ends, or removes itself.

    Args:
        removes: Whether it removes itself.
    """

    def __init__(self, removes: bool) -> None:
        self.removes = removes

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks = vars(trainer)["callbacks"]
        if trainer.current_epoch == 0:
            _ = callbacks.remove(self) if self.removes else callbacks.append(Noise())


class WithoutOptimizer(Net):
    """Steps an optimizer that Lightning does not know, and has no other."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        with torch.enable_grad():
            loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def configure_optimizers(self) -> None:
        return None
