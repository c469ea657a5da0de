"""Shapes of optimizers and schedulers."""

from __future__ import annotations

from tests.support.shapes.shape import Shape, use

GROUP = "optimization"
OPTIMIZATION = [
    Shape("accumulate_grad_batches=2", GROUP, overrides=["+trainer.accumulate_grad_batches=2"], save_every=1),
    Shape("accumulation by hand", GROUP, model=use("models.ManualAccumulation"), save_every=1, fast=True),
    Shape("two optimizers by hand (GAN)", GROUP, model=use("models.GAN"), fast=True),
    Shape("two optimizers, one every second batch", GROUP, model=use("models.GAN", d_every=2)),
]
