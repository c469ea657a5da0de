"""AlexNet (Krizhevsky, Sutskever, Hinton 2012)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from src.gallery.nets.init import xavier_uniform_


class AlexNet(nn.Sequential):
    """Five convolutions and three dense layers for images of 224 x 224 pixels, section 7.1. 46,764,746 parameters.

    | stage | output |
    |---|---|
    | conv1 | `[B, 96, 26, 26]` |
    | conv2 | `[B, 256, 12, 12]` |
    | conv3 | `[B, 384, 12, 12]` |
    | conv4 | `[B, 384, 12, 12]` |
    | conv5 | `[B, 256, 5, 5]` |
    | dense1, dense2 | `[B, 4096]` |
    | output | `[B, num_classes]` |

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        pool = partial(nn.MaxPool2d, 3, stride=2)
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(in_channels, 96, 11, stride=4, padding=1), nn.ReLU(), pool()),
                conv2=nn.Sequential(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), pool()),
                conv3=nn.Sequential(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
                conv4=nn.Sequential(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
                conv5=nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), pool()),
                dense1=nn.Sequential(nn.Flatten(), nn.Linear(6400, 4096), nn.ReLU(), nn.Dropout(0.5)),
                dense2=nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
                output=nn.Linear(4096, num_classes),
            )
        )
        xavier_uniform_(self)
