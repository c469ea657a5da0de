"""Generator and critic of a small GAN (Goodfellow et al. 2014) for images of 28 x 28 pixels, after DCGAN (2015)."""

from __future__ import annotations

import torch
from torch import nn


class Generator(nn.Sequential):
    """Makes images of noise by transposed convolutions.

    | stage | output |
    |---|---|
    | dense | `[B, 64, 7, 7]` |
    | up1 | `[B, 32, 14, 14]` |
    | up2 | `[B, 1, 28, 28]`, between -1 and 1 |

    Args:
        noise_size: Values of noise per image.
    """

    def __init__(self, noise_size: int = 32) -> None:
        super().__init__()
        self.noise_size = noise_size
        self.dense = nn.Sequential(
            nn.Linear(noise_size, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.up1 = nn.Sequential(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.up2 = nn.Sequential(nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh())

    def sample(self, num_images: int) -> torch.Tensor:
        """Return new images `[num_images, 1, 28, 28]`, on the device of the weights."""
        weight = next(self.parameters())
        images: torch.Tensor = self(torch.randn(num_images, self.noise_size, device=weight.device))
        return images


class Critic(nn.Sequential):
    """Scores how real an image looks.

    | stage | output |
    |---|---|
    | down1 | `[B, 32, 14, 14]` |
    | down2 | `[B, 64, 7, 7]` |
    | output | `[B, 1]` |
    """

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2))
        self.down2 = nn.Sequential(nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.2))
        self.output = nn.Sequential(nn.Flatten(), nn.Linear(64 * 49, 1))
