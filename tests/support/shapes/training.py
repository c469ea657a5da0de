"""Models that train in ways of their own."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torchmetrics import MaxMetric, MeanMetric

from tests.support.shapes.models import Net
from tests.support.shapes.shape import Shape, use


class Optimized(Net):
    def __init__(self, name: str, lr: float = 0.05) -> None:
        super().__init__(lr)
        self.name = name

    def configure_optimizers(self) -> Any:
        if self.name == "Signs":
            return Signs(self.parameters(), lr=0.01)
        return getattr(torch.optim, self.name)(self.parameters(), lr=self.lr)


class Signs(torch.optim.Optimizer):
    """Moves by the sign of a sum of gradients, which it keeps in its state; every third step is larger."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                sums = self.state[p].setdefault("sum", torch.zeros_like(p))
                sums.mul_(0.9).add_(p.grad)
                p.add_(sums.sign(), alpha=-group["lr"] * (3 if self.steps % 3 == 0 else 1))
        return loss


class SAM(Net):
    """Two passes a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        opt: Any = self.optimizers()
        self.manual_backward(self.loss(batch))
        with torch.no_grad():
            away = [0.05 * p.grad.sign() for p in self.parameters() if p.grad is not None]
            for p, a in zip(self.parameters(), away, strict=True):
                p.add_(a)
        opt.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss)
        with torch.no_grad():
            for p, a in zip(self.parameters(), away, strict=True):
                p.sub_(a)
        opt.step()
        opt.zero_grad()
        self.log("train/loss", loss)


class SkipsSteps(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        return None if batch_idx % 4 == 1 else super().training_step(batch, batch_idx)


class EndsEpochsEarly(Net):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 6 else None


class FollowingTeacher(Net):
    """A teacher follows the student before the gradients are cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = deepcopy(self.net).requires_grad_(False)

    def follow(self) -> None:
        with torch.no_grad():
            for t, s in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                t.mul_(0.9).add_(s, alpha=0.1)

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.follow()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/loss", torch.nn.functional.cross_entropy(self.teacher(batch[0]), batch[1]))


class Teacher(FollowingTeacher):
    """A teacher follows the student after each batch."""

    def on_before_zero_grad(self, optimizer: Any) -> None:
        pass

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.follow()


class OwnClipping(Net):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.1 if self.current_epoch else 1.0)


class WarmUp(Net):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (self.trainer.global_step + 1) / 15)
        optimizer.step(closure=optimizer_closure)


class UnfreezesByEpoch(Net):
    def on_train_epoch_start(self) -> None:
        self.net[0].requires_grad_(self.current_epoch == 1)


class FactorOfEpoch(Net):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def on_train_epoch_start(self) -> None:
        self.factor = 0.1**self.current_epoch

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        loss = super().training_step(batch, batch_idx)
        return None if loss is None else loss * self.factor


class FactorPerEpoch(FactorOfEpoch):
    def on_train_epoch_start(self) -> None:
        self.factor *= 0.5


class Metrics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.best = MeanMetric(), MaxMetric()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.mean(loss)
        self.log("train/mean", self.mean, on_step=False, on_epoch=True)
        self.log("train/high", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def on_validation_epoch_end(self) -> None:
        self.best(self.trainer.callback_metrics["val/loss"])
        self.log("val/worst", self.best.compute())


class OwnSteps(Net):
    """The x axis of the charts is a number of the model's own, which is the same in several rows."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log_dict({"train/loss": loss, "step": self.global_step // 4 + 100.0})
        return loss


class RandomValidation(Net):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val/loss", self.loss((batch[0] + torch.randn(16), batch[1])))


def _model(target: str, text: str, kind: str = "optimization", **more: object) -> Shape:
    arguments = {key: more.pop(key) for key in [*more] if key in {"name", "lr"}}
    return Shape(text, kind, model=use(f"training.{target}", **arguments), **more)  # type: ignore[arg-type]


TRAINING = [
    *(
        _model("Optimized", f"torch.optim.{name}", name=name)
        for name in ("SGD", "AdamW", "RMSprop", "Adagrad", "NAdam")
    ),
    _model("Optimized", "torch.optim.LBFGS", name="LBFGS", lr=0.5),
    _model("Optimized", "an optimizer of your own with a counter in an attribute", name="Signs"),
    _model("SAM", "two passes a batch by hand (SAM)"),
    _model("SkipsSteps", "training_step that returns None"),
    _model("EndsEpochsEarly", "on_train_batch_start that returns -1", kill_after=10),
    _model("Teacher", "on_train_batch_end that moves a teacher (BYOL)"),
    _model("FollowingTeacher", "on_before_zero_grad that moves a teacher"),
    _model("OwnClipping", "configure_gradient_clipping"),
    _model("WarmUp", "optimizer_step with a warm-up"),
    _model("UnfreezesByEpoch", "requires_grad_ by epoch"),
    _model("FactorOfEpoch", "on_train_epoch_start that sets a factor from current_epoch"),
    _model("FactorPerEpoch", "on_train_epoch_start that multiplies a factor"),
    _model("Metrics", "torchmetrics and self.log(reduce_fx=max)", kind="metrics and validation"),
    Shape(
        "self.log of a step of your own",
        "metrics and validation",
        model=use("training.OwnSteps"),
        overrides=["trainer.log_every_n_steps=1"],
    ),
    _model("RandomValidation", "a random validation_step", kind="metrics and validation"),
]
