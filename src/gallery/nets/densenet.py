"""DenseNet (Huang, Liu, van der Maaten, Weinberger 2016)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from src.gallery.nets.init import xavier_uniform_


class DenseBlock(nn.Module):
    """Convolutions that each see the outputs of all before them.

    Args:
        c_in: Channels of the input.
        growth: Channels that each convolution adds.
        num_convolutions: How many.
    """

    def __init__(self, c_in: int, growth: int = 32, num_convolutions: int = 4) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for position in range(num_convolutions):
            channels = c_in + position * growth
            convolution = nn.Conv2d(channels, growth, 3, padding=1)
            self.convolutions.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, c_in + num_convolutions * growth, H, W]` for `x` of `[B, c_in, H, W]`."""
        for convolution in self.convolutions:
            x = torch.cat([x, convolution(x)], dim=1)
        return x


def transition(c_in: int, c_out: int) -> nn.Sequential:
    """Return layers that reduce the channels and halve height and width."""
    return nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, c_out, 1), nn.AvgPool2d(2))


class DenseNet(nn.Sequential):
    """Four dense blocks of four convolutions, section 7.7, for images of 96 x 96 pixels. 758,226 parameters.

    | stage | output |
    |---|---|
    | stem | `[B, 64, 24, 24]` |
    | block1 | `[B, 96, 12, 12]` |
    | block2 | `[B, 112, 6, 6]` |
    | block3 | `[B, 120, 3, 3]` |
    | block4 | `[B, 248]` |
    | output | `[B, num_classes]` |

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        stem = [nn.Conv2d(in_channels, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64), nn.ReLU()]
        super().__init__(
            OrderedDict(
                stem=nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1)),
                block1=nn.Sequential(DenseBlock(64), transition(192, 96)),
                block2=nn.Sequential(DenseBlock(96), transition(224, 112)),
                block3=nn.Sequential(DenseBlock(112), transition(240, 120)),
                block4=nn.Sequential(
                    DenseBlock(120), nn.BatchNorm2d(248), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
                ),
                output=nn.Linear(248, num_classes),
            )
        )
        xavier_uniform_(self)
