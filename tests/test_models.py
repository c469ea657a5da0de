"""Every model config of the template builds, and the nets have the documented shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fulgurite import build
from src.models.nets.convnet import SimpleConvNet
from src.models.nets.dense import SimpleDenseNet
from tests.conftest import ComposeSmall
from tests.support.project import shipped_options

RECIPES = {"classifier"}  # leaves the net open


@pytest.mark.parametrize("name", [name for name in shipped_options("model") if name not in RECIPES])
def test_every_model_config_builds(name: str, small: ComposeSmall) -> None:
    run = build(small(f"model={name}"))
    assert sum(p.numel() for p in run.model.parameters()) > 0
    assert run.model.hparams["num_classes"] == run.cfg.data.num_classes


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        # by hand: linear in*out+out, batch norm 2*out
        (SimpleDenseNet(784, 64, 128, 64, 10), 784 * 64 + 64 + 128 + 64 * 128 + 128 + 256 + 128 * 64 + 64 + 128 + 650),
        # by hand: convolutions without bias, batch norms, two dense layers
        (SimpleConvNet(1, (16, 32), 64, 10), 9 * 16 + 32 + 9 * 16 * 32 + 64 + 32 * 49 * 64 + 64 + 650),
    ],
    ids=["dense", "convnet"],
)
def test_nets_have_the_documented_parameters_and_shapes(net: nn.Module, parameters: int) -> None:
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net(torch.randn(5, 1, 28, 28)).shape == (5, 10)


def test_a_convnet_rejects_an_image_that_it_cannot_halve() -> None:
    with pytest.raises(ValueError, match=r"image_size=28: is not divisible by 8. Use fewer than 3 blocks"):
        SimpleConvNet(channels=(8, 8, 8))
