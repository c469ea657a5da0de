"""Sums of gradients over three processes and more, in the same order whether a run goes on or never stopped."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def settle_buckets(trainer: Trainer) -> None:
    """Have DDP lay out its buckets of gradients before the first step, as they then stay.

    It lays them out anew after the first backward pass of a process, in the order in which gradients came. A sum over
    three ranks is added up in another order at another place of a bucket, so the first step of a run that goes on would
    come to other last digits than the same step did. Here a backward pass that computes nothing goes before: gradients,
    all zero, come in the order in which layers mostly do, last to first.

    Args:
        trainer: About to train; nothing is done for fewer ranks, or where buckets stay as they are.
    """
    model = trainer.strategy.model
    if trainer.world_size < 3 or not isinstance(model, DistributedDataParallel):
        return
    if model.find_unused_parameters or model.static_graph:
        return
    module = trainer.lightning_module
    weights = [weight for weight in module.parameters() if weight.requires_grad]

    def forward(_: Tensor) -> Tensor:
        return torch.stack([(weight * 0).sum().float() for weight in weights]).sum()

    vars(module)["forward"] = forward
    try:
        model(torch.zeros(1, device=module.device)).backward()
    finally:
        del vars(module)["forward"]
    for weight in weights:
        weight.grad = None
