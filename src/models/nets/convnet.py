"""Small convolutional nets for square images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class SimpleConvNet(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 max pooling, then one hidden dense layer.

    Args:
        in_channels: Channels of the images: 1 for grey, 3 for colour.
        channels: Output channels of each block; each block halves height and width.
        hidden_size: Width of the dense layer after the blocks.
        output_size: Scores per image, one per class.
        image_size: Height and width of the images in pixels, divisible by 2 once per block.

    Raises:
        ValueError: `image_size` cannot be halved once per block.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32),
        hidden_size: int = 64,
        output_size: int = 10,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        shrink = 2 ** len(channels)
        if image_size % shrink:
            raise ValueError(
                f"image_size={image_size}: is not divisible by {shrink}. Use fewer than {len(channels)} blocks."
            )
        blocks: list[nn.Module] = []
        for c_in, c_out in zip([in_channels, *channels[:-1]], channels, strict=True):
            # no bias: batch norm removes it
            convolution = nn.Conv2d(c_in, c_out, kernel_size=3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        features = channels[-1] * (image_size // shrink) ** 2
        head = [
            nn.Flatten(),
            nn.Linear(features, hidden_size),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_size, output_size),
        ]
        self.layers = nn.Sequential(*blocks, *head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores.

        Args:
            x: Images, `[B, in_channels, image_size, image_size]`.

        Returns:
            Scores before softmax, `[B, output_size]`.
        """
        scores: torch.Tensor = self.layers(x)
        return scores
