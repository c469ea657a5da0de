"""GoogLeNet (Szegedy et al. 2014)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from src.gallery.nets.init import xavier_uniform_


class Inception(nn.Module):
    """Four parallel paths whose channels are concatenated; height and width stay.

    Args:
        c_in: Channels of the input.
        c1: Channels of the 1 x 1 path.
        c2: Channels of the two convolutions of the 3 x 3 path.
        c3: Channels of the two convolutions of the 5 x 5 path.
        c4: Channels after the pooling path.
    """

    def __init__(self, c_in: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.path1 = nn.Sequential(nn.Conv2d(c_in, c1, 1), relu)
        self.path2 = nn.Sequential(nn.Conv2d(c_in, c2[0], 1), relu, nn.Conv2d(*c2, 3, padding=1), relu)
        self.path3 = nn.Sequential(nn.Conv2d(c_in, c3[0], 1), relu, nn.Conv2d(*c3, 5, padding=2), relu)
        self.path4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(c_in, c4, 1), relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, c1 + c2[1] + c3[1] + c4, H, W]` for `x` of `[B, c_in, H, W]`."""
        return torch.cat([self.path1(x), self.path2(x), self.path3(x), self.path4(x)], dim=1)


class GoogLeNet(nn.Sequential):
    """Nine inception blocks, section 7.4, for images of 96 x 96 pixels. 5,977,530 parameters.

    | stage | output |
    |---|---|
    | block1 | `[B, 64, 24, 24]` |
    | block2 | `[B, 192, 12, 12]` |
    | block3 | `[B, 480, 6, 6]` |
    | block4 | `[B, 832, 3, 3]` |
    | block5 | `[B, 1024]` |
    | output | `[B, num_classes]` |

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        pool = partial(nn.MaxPool2d, 3, stride=2, padding=1)
        super().__init__(
            OrderedDict(
                block1=nn.Sequential(nn.Conv2d(in_channels, 64, 7, stride=2, padding=3), nn.ReLU(), pool()),
                block2=nn.Sequential(
                    nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), pool()
                ),
                block3=nn.Sequential(
                    Inception(192, 64, (96, 128), (16, 32), 32), Inception(256, 128, (128, 192), (32, 96), 64), pool()
                ),
                block4=nn.Sequential(
                    Inception(480, 192, (96, 208), (16, 48), 64),
                    Inception(512, 160, (112, 224), (24, 64), 64),
                    Inception(512, 128, (128, 256), (24, 64), 64),
                    Inception(512, 112, (144, 288), (32, 64), 64),
                    Inception(528, 256, (160, 320), (32, 128), 128),
                    pool(),
                ),
                block5=nn.Sequential(
                    Inception(832, 256, (160, 320), (32, 128), 128),
                    Inception(832, 384, (192, 384), (48, 128), 128),
                    nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(),
                ),
                output=nn.Linear(1024, num_classes),
            )
        )
        xavier_uniform_(self)
