"""ResNet-18 (He, Zhang, Ren, Sun 2015)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import relu

from src.gallery.nets.init import xavier_uniform_


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to their input.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        stride: Of the first convolution; the input passes a 1 x 1 convolution if its shape changes.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(c_out)
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, c_out, H / stride, W / stride]` for `x` of `[B, c_in, H, W]`."""
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


class ResNet18(nn.Sequential):
    """Four stages of two residual blocks, sections 7.6 and 12.6. 11,178,378 parameters.

    A small stem has 11,175,818 parameters and keeps 4 times the height and width. For a large one, with 96 x 96 pixels:

    | stage | output |
    |---|---|
    | stem | `[B, 64, 24, 24]` |
    | stage1 | `[B, 64, 24, 24]` |
    | stage2 | `[B, 128, 12, 12]` |
    | stage3 | `[B, 256, 6, 6]` |
    | stage4 | `[B, 512, 3, 3]` |
    | pool | `[B, 512]` |
    | output | `[B, num_classes]` |

    Args:
        stem: `large` is a 7 x 7 convolution and pooling, `small` a 3 x 3 convolution for images of about 32 pixels.
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, stem: Literal["large", "small"] = "large", in_channels: int = 1, num_classes: int = 10) -> None:
        first = (
            [nn.Conv2d(in_channels, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
            if stem == "large"
            else [nn.Conv2d(in_channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
        )
        super().__init__(
            OrderedDict(
                stem=nn.Sequential(*first),
                stage1=nn.Sequential(Residual(64, 64), Residual(64, 64)),
                stage2=nn.Sequential(Residual(64, 128, 2), Residual(128, 128)),
                stage3=nn.Sequential(Residual(128, 256, 2), Residual(256, 256)),
                stage4=nn.Sequential(Residual(256, 512, 2), Residual(512, 512)),
                pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                output=nn.Linear(512, num_classes),
            )
        )
        xavier_uniform_(self)
