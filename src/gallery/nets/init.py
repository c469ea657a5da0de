"""Initial weights as the book sets them."""

from __future__ import annotations

from torch import nn


def xavier_uniform_(net: nn.Module) -> None:
    """Draw the weights of all dense layers and convolutions by Glorot and Bengio (2010), in place. Biases stay."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)


def normal_(net: nn.Module, std: float = 0.01) -> None:
    """Draw the weights of all dense layers from a normal distribution with mean 0, in place. Biases become 0.

    Args:
        net: Its `nn.Linear` modules are changed.
        std: Standard deviation.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
