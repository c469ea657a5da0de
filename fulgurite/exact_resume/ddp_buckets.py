"""Sum gradients over ranks in the same order in a resumed and an uninterrupted run."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


def fix_bucket_order(trainer: Trainer) -> None:
    """Make DDP arrange its gradient buckets before the first step.

    DDP rebuilds its buckets after the first backward pass of a process, in the order in which gradients arrived. From
    three ranks on, the position in a bucket decides the order of a sum, so the first step of a resumed run would
    differ in its last digits. This function runs a backward pass of zeros first: gradients arrive last layer first.
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
