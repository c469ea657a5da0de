"""Network in Network (Lin, Chen, Yan 2013)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from src.gallery.nets.init import xavier_uniform_


def nin_block(c_in: int, c_out: int, kernel_size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Return a convolution and two 1 x 1 convolutions, a dense net for each pixel, with ReLU after each."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel_size, stride, padding),
        nn.ReLU(),
        nn.Conv2d(c_out, c_out, 1),
        nn.ReLU(),
        nn.Conv2d(c_out, c_out, 1),
        nn.ReLU(),
    )


class NiN(nn.Sequential):
    """Four NiN blocks and global average pooling for images of 224 x 224 pixels, section 7.3. 1,992,166 parameters.

    | stage | output |
    |---|---|
    | block1 | `[B, 96, 26, 26]` |
    | block2 | `[B, 256, 12, 12]` |
    | block3 | `[B, 384, 5, 5]` |
    | block4 | `[B, num_classes, 5, 5]` |
    | output | `[B, num_classes]` |

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        pool = partial(nn.MaxPool2d, 3, stride=2)
        super().__init__(
            OrderedDict(
                block1=nn.Sequential(nin_block(in_channels, 96, 11, stride=4), pool()),
                block2=nn.Sequential(nin_block(96, 256, 5, padding=2), pool()),
                block3=nn.Sequential(nin_block(256, 384, 3, padding=1), pool(), nn.Dropout(0.5)),
                block4=nin_block(384, num_classes, 3, padding=1),
                output=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            )
        )
        xavier_uniform_(self)
