"""Random transforms of whole batches of training images, for `data.augment`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fulgurite.core.errors import UserError


class RandomShift:
    """Shift each image by its own random number of pixels; the edge is repeated.

    Draws from torch's global RNG, so `seed` fixes it, also in DataLoader workers.

    Args:
        pixels: Largest shift along each axis, in pixels.
    """

    def __init__(self, pixels: int = 2) -> None:
        if pixels < 0:
            raise UserError(f"pixels={pixels}: must be 0 or more. Use e.g. 2.")
        self.pixels = pixels

    def __call__(self, images: Tensor) -> Tensor:
        """Return the shifted images.

        Args:
            images: [B, C, H, W] float.
        """
        batch_size, _, height, width = images.shape
        down, right = torch.randint(2 * self.pixels + 1, (2, batch_size), device=images.device)
        padded = functional.pad(images, (self.pixels,) * 4, mode="replicate")
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2p + 1, 2p + 1, H, W], a view
        return windows[torch.arange(batch_size, device=images.device), :, down, right]
