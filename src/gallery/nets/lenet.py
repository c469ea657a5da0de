"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) and its later forms, for grey images of 28 x 28 pixels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from src.gallery.nets.init import normal_, xavier_uniform_


class LeNet(nn.Sequential):
    """Two convolutions and three dense layers, section 6.6. 61,706 parameters.

    | stage | output |
    |---|---|
    | conv1 | `[B, 6, 14, 14]` |
    | conv2 | `[B, 16, 5, 5]` |
    | dense1 | `[B, 120]` |
    | dense2 | `[B, 84]` |
    | output | `[B, num_classes]` |

    Args:
        form: `sigmoid` is the net of 1998 with average pooling and initial weights of Xavier, `modern` uses ReLU, max
            pooling and the initial weights of torch (section 11.11): with larger ones, a learning rate of 0.5 diverges.
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(
        self, form: Literal["sigmoid", "modern"] = "sigmoid", in_channels: int = 1, num_classes: int = 10
    ) -> None:
        activation, pool = (nn.Sigmoid, nn.AvgPool2d) if form == "sigmoid" else (nn.ReLU, nn.MaxPool2d)
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(in_channels, 6, 5, padding=2), activation(), pool(2)),
                conv2=nn.Sequential(nn.Conv2d(6, 16, 5), activation(), pool(2)),
                dense1=nn.Sequential(nn.Flatten(), nn.Linear(400, 120), activation()),
                dense2=nn.Sequential(nn.Linear(120, 84), activation()),
                output=nn.Linear(84, num_classes),
            )
        )
        if form == "sigmoid":
            xavier_uniform_(self)


class BatchNormLeNet(nn.Sequential):
    """LeNet with batch normalization (Ioffe, Szegedy 2015) before each sigmoid, section 7.5. 44,878 parameters.

    | stage | output |
    |---|---|
    | conv1 | `[B, 6, 12, 12]` |
    | conv2 | `[B, 16, 4, 4]` |
    | dense1 | `[B, 120]` |
    | dense2 | `[B, 84]` |
    | output | `[B, num_classes]` |

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        def convolution(c_in: int, c_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(c_in, c_out, 5), nn.BatchNorm2d(c_out), nn.Sigmoid(), nn.AvgPool2d(2))

        def dense(size_in: int, size_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Flatten(), nn.Linear(size_in, size_out), nn.BatchNorm1d(size_out), nn.Sigmoid())

        super().__init__(
            OrderedDict(
                conv1=convolution(in_channels, 6),
                conv2=convolution(6, 16),
                dense1=dense(256, 120),
                dense2=dense(120, 84),
                output=nn.Linear(84, num_classes),
            )
        )
        xavier_uniform_(self)


class ParallelLeNet(nn.Sequential):
    """Wider LeNet with ReLU for training on several devices, section 12.5. 129,068 parameters.

    Args:
        in_channels: Channels of the images.
        num_classes: Scores per image.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(in_channels, 20, 3), nn.ReLU(), nn.AvgPool2d(2)),
                conv2=nn.Sequential(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.AvgPool2d(2)),
                dense1=nn.Sequential(nn.Flatten(), nn.Linear(800, 128), nn.ReLU()),
                output=nn.Linear(128, num_classes),
            )
        )
        normal_(self)
