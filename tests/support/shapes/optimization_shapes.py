"""Shapes of optimizers, schedulers, gradients and metrics."""

from __future__ import annotations

from typing import Any

from tests.support.shapes.shape import Shape, use

GROUP = "optimization"


def _steps(text: str, kind: str, *, group: str = GROUP, **more: Any) -> Shape:
    return Shape(text, group, model=use("optimizers.Steps", kind=kind), **more)


def _model(text: str, name: str, group: str, **arguments: Any) -> Shape:
    return Shape(text, group, model=use(f"optimizers.{name}", **arguments))


OPTIMIZATION = [
    Shape("accumulation by hand", GROUP, model=use("models.ManualAccumulation"), save_every=1),
    Shape(
        "accumulation by hand across epochs",
        GROUP,
        model=use("models.ManualAccumulation", every=4),
        save_every=1,
        kill_after=13,
    ),
    Shape("two optimizers by hand (GAN)", GROUP, model=use("models.GAN")),
    Shape("two optimizers, one every second batch", GROUP, model=use("models.GAN", d_every=2)),
    _steps("an optimizer with a sum in float64, a mask and a counter", "types"),
    _steps("an attribute of an optimizer of torch", "attribute"),
    _steps("register_step_post_hook of a function that counts", "hook"),
    _steps("register_step_post_hook when an epoch ends", "late hook", expect="named", line="optimizer 0 hooks"),
    _model("gradients of weights that no optimizer has", "FreeGradients", GROUP),
    _model("an attribute of an nn.Parameter", "MarkedWeights", GROUP),
    _model("configure_optimizers that returns None", "WithoutOptimizer", GROUP),
    _model("on_train_start that registers a hook of a weight", "StartHook", "hooks", kind="gradient"),
    _model("on_train_start that keeps a function of the weights", "StartHook", "hooks", kind="attribute"),
    _model("torchmetrics.MetricTracker.increment in on_train_epoch_start", "Metrics", "hooks", kind="tracker"),
    _model("torchmetrics.wrappers.Running", "Metrics", "metrics and validation", kind="running"),
    _model("torchmetrics.MinMaxMetric", "Metrics", "metrics and validation", kind="bounds"),
    _model("a metric with an attribute", "Metrics", "metrics and validation", kind="own"),
    _model("attributes of a TorchScript module", "Scripted", "objects in attributes"),
    _steps("LambdaLR of a function that counts in its closure", "closure", group="schedulers by step"),
    _steps("LambdaLR of an object with a state", "object", group="schedulers by step"),
    _steps("a scheduler whose state_dict is empty", "nothing saved", group="schedulers by step"),
    _steps("a scheduler whose state_dict lacks an attribute", "a part saved", group="schedulers by step"),
    _steps(
        "on_train_epoch_end that sets another scheduler",
        "replaced",
        group="schedulers by step",
        expect="named",
        line="lr_schedulers: code changed it from StepLR to LambdaLR",
    ),
    Shape(
        "on_train_epoch_end that sets __class__",
        "hooks",
        model=use("optimizers.OtherClass"),
        expect="named",
        line="model: code changed it from OtherClass to Tripled",
    ),
    *(
        Shape(
            f"on_train_epoch_end that {verb} trainer.callbacks",
            "hooks",
            callbacks={"adds": use("optimizers.AddsCallback", removes=removes)},
            expect="named",
            line="callbacks: code changed it from ",
        )
        for verb, removes in (("appends to", False), ("removes from", True))
    ),
]
