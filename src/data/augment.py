"""Changes of the training images, made on whole batches; give one to `data.augment`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fulgurite.core.errors import UserError


class RandomShift:
    """Move each image by its own random whole number of pixels; what comes in repeats the edge.

    Draws from torch's global generator, so `seed` fixes it, also in the workers of a data loader.

    Args:
        pixels: The farthest move along each axis, in pixels; 0 moves nothing.
    """

    def __init__(self, pixels: int = 2) -> None:
        if pixels < 0:
            raise UserError(f"pixels={pixels}: an image is moved by 0 pixels or more; choose e.g. 2")
        self.pixels = pixels

    def __call__(self, images: Tensor) -> Tensor:
        """Return the moved images.

        Args:
            images: [B, C, H, W] float.
        """
        batch_size, _, height, width = images.shape
        down, right = torch.randint(2 * self.pixels + 1, (2, batch_size), device=images.device)
        padded = functional.pad(images, (self.pixels,) * 4, mode="replicate")
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2p + 1, 2p + 1, H, W], a view
        return windows[torch.arange(batch_size, device=images.device), :, down, right]
