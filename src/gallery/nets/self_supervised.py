"""Encoder with projection and prediction heads, for learning without labels (BYOL, Grill et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn


def head(size_in: int, hidden_size: int, size_out: int) -> nn.Sequential:
    """Return two dense layers with batch norm and ReLU between them."""
    return nn.Sequential(
        nn.Linear(size_in, hidden_size), nn.BatchNorm1d(hidden_size), nn.ReLU(), nn.Linear(hidden_size, size_out)
    )


class Encoder(nn.Sequential):
    """Small convolutional encoder of grey images of 28 x 28 pixels.

    | stage | output |
    |---|---|
    | conv1 | `[B, 32, 14, 14]` |
    | conv2 | `[B, 64, 7, 7]` |
    | dense | `[B, feature_size]` |

    Args:
        feature_size: Width of the features.
    """

    def __init__(self, feature_size: int = 128) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU())
        self.dense = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 49, feature_size), nn.BatchNorm1d(feature_size), nn.ReLU()
        )


class Projector(nn.Module):
    """Encoder and projection head; student and teacher each have one.

    Args:
        encoder: Maps images to features `[B, feature_size]`.
        feature_size: Width of the features.
        hidden_size: Width of the head's hidden layer.
        size: Width of the projection.
    """

    def __init__(self, encoder: nn.Module, feature_size: int = 128, hidden_size: int = 256, size: int = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head(feature_size, hidden_size, size)
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return projections `[B, size]` of images `[B, 1, 28, 28]`."""
        projections: torch.Tensor = self.head(self.encoder(images))
        return projections
