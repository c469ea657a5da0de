"""Shard a net over devices, for a model's `configure_model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn

from fulgurite.core.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard_net(net: nn.Module, mesh: DeviceMesh | None) -> None:
    """Shard the layers of a net in place over the axes of a device mesh.

    `trainer=fsdp` shards each layer over the axis `data_parallel`. `trainer=tensor_parallel` first splits the layers
    over the axis `tensor_parallel`, by the plan that the net's method `tensor_parallel_plan()` returns: one
    `ParallelStyle` per layer name, as torch's `parallelize_module` takes it.

    Args:
        net: Changed in place. A net that is sharded already stays as it is.
        mesh: The model's `device_mesh`. None, or a mesh without these axes, shards nothing.

    Raises:
        UserError: The net has no `tensor_parallel_plan()`.
    """
    if mesh is None or "data_parallel" not in (mesh.mesh_dim_names or ()):
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard
    from torch.distributed.tensor.parallel import parallelize_module

    if isinstance(net, FSDPModule):  # Lightning calls configure_model again before the test
        return
    size = mesh["tensor_parallel"].size()
    if size > 1:
        if not hasattr(net, "tensor_parallel_plan"):
            raise UserError(
                f"trainer.strategy.tensor_parallel_size={size}: {type(net).__name__} has no tensor_parallel_plan(). "
                "Add one as in src/models/nets/dense.py, or use trainer=fsdp."
            )
        parallelize_module(net, mesh["tensor_parallel"], cast("Any", net).tensor_parallel_plan())
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(net, mesh=mesh["data_parallel"])
