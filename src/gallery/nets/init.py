"""Initial weights as the book sets them."""

from __future__ import annotations

from torch import nn

LAYERS = (nn.Linear, nn.Conv2d, nn.RNNBase)


def xavier_uniform_(net: nn.Module) -> None:
    """Draw the weights of dense, convolutional and recurrent layers by Glorot and Bengio (2010); biases stay."""
    for module in net.modules():
        if isinstance(module, LAYERS):
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("weight"):
                    nn.init.xavier_uniform_(parameter)


def normal_(net: nn.Module, std: float = 0.01) -> None:
    """Draw the weights of the same layers from a normal distribution with mean 0; biases become 0.

    Args:
        net: Changed in place.
        std: Standard deviation.
    """
    for module in net.modules():
        if isinstance(module, LAYERS):
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("weight"):
                    nn.init.normal_(parameter, std=std)
                else:
                    nn.init.zeros_(parameter)
