"""The parts of a model from one walk are those of torch, in its order."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric

from fulgurite.compat.modules import model_parts


class Shared(nn.Module):
    """A model with shared modules, weights and buffers, a script, a metric, and parts that are None."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.inner = nn.Sequential(nn.Linear(2, 2, bias=False), self.norm)
        self.again = self.inner
        self.tied = nn.Linear(2, 2)
        self.tied.weight = next(self.inner.parameters())
        self.register_buffer("mean", self.norm.running_mean)
        self.register_buffer("none", None)
        self.register_module("nothing", None)
        self.script = torch.jit.script(nn.Linear(2, 2))
        self.metric = MeanMetric()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_the_parts_of_a_model_are_those_that_torch_lists() -> None:
    model = Shared()
    parts = model_parts(model)
    assert _ids(parts.modules) == _ids(model.named_modules())
    assert _ids(parts.weights) == _ids(model.named_parameters())
    assert _ids(parts.buffers) == _ids(model.named_buffers())
    assert _ids(parts.all_weights) == _ids(model.named_parameters(remove_duplicate=False))
    assert len(parts.all_weights) > len(parts.weights)


def _ids(pairs: Iterable[tuple[str, object]]) -> list[tuple[str, int]]:
    return [(name, id(value)) for name, value in pairs]
