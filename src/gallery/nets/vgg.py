"""VGG (Simonyan, Zisserman 2014)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from src.gallery.nets.init import xavier_uniform_


class VGG(nn.Sequential):
    """Blocks of 3 x 3 convolutions, each halving the image, then three dense layers, section 7.2.

    The defaults are VGG-11 with a quarter of its channels, as the book trains it, for images of 224 x 224 pixels:
    43,093,322 parameters.

    | stage | output |
    |---|---|
    | block1 | `[B, 16, 112, 112]` |
    | block2 | `[B, 32, 56, 56]` |
    | block3 | `[B, 64, 28, 28]` |
    | block4 | `[B, 128, 14, 14]` |
    | block5 | `[B, 128, 7, 7]` |
    | dense1, dense2 | `[B, 4096]` |
    | output | `[B, num_classes]` |

    Args:
        blocks: Convolutions and channels of each block.
        in_channels: Channels of the images.
        num_classes: Scores per image.
        image_size: Height and width in pixels, divisible by 2 once per block.
        hidden_size: Width of the two dense layers before the last.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, int]] = ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128)),
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 224,
        hidden_size: int = 4096,
    ) -> None:
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for position, (num_convolutions, c_out) in enumerate(blocks, start=1):
            layers: list[nn.Module] = []
            for _ in range(num_convolutions):
                layers += [nn.Conv2d(channels, c_out, 3, padding=1), nn.ReLU()]
                channels = c_out
            stages[f"block{position}"] = nn.Sequential(*layers, nn.MaxPool2d(2))
        features = channels * (image_size // 2 ** len(blocks)) ** 2
        stages["dense1"] = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden_size), nn.ReLU(), nn.Dropout(0.5))
        stages["dense2"] = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Dropout(0.5))
        stages["output"] = nn.Linear(hidden_size, num_classes)
        super().__init__(stages)
        xavier_uniform_(self)
