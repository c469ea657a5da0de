"""Shapes of optimizers and schedulers."""

from __future__ import annotations

from tests.support.shapes.shape import Shape, use

GROUP = "optimization"
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
]
