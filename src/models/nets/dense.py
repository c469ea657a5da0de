"""Dense nets on flattened input."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle


class SimpleDenseNet(nn.Module):
    """Three hidden layers of linear, batch norm and ReLU.

    Args:
        input_size: Values per example after flattening.
        lin1_size: Width of the first hidden layer.
        lin2_size: Width of the second hidden layer.
        lin3_size: Width of the third hidden layer.
        output_size: Scores per example, one per class.
    """

    def __init__(
        self,
        input_size: int = 784,
        lin1_size: int = 256,
        lin2_size: int = 256,
        lin3_size: int = 256,
        output_size: int = 10,
    ) -> None:
        super().__init__()
        sizes = [input_size, lin1_size, lin2_size, lin3_size]
        hidden: list[nn.Module] = []
        for width_in, width_out in pairwise(sizes):
            hidden += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(lin3_size, output_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores.

        Args:
            x: Examples, `[B, ...]` with `input_size` values each.

        Returns:
            Scores before softmax, `[B, output_size]`.
        """
        scores: torch.Tensor = self.layers(x)
        return scores

    def tensor_parallel_plan(self) -> dict[str, ParallelStyle]:
        """Return a `ParallelStyle` per layer name for `trainer=tensor_parallel`.

        Each linear layer is sharded by its outputs, which are gathered after it, since batch norm needs all of them.
        Without batch norm, shard one layer by outputs (ColwiseParallel) and the next by inputs (RowwiseParallel).
        """
        from torch.distributed.tensor import Replicate
        from torch.distributed.tensor.parallel import ColwiseParallel

        linear = [name for name, layer in self.named_modules() if isinstance(layer, nn.Linear)]
        return {name: ColwiseParallel(output_layouts=Replicate()) for name in linear}
