"""Data sets that define their own order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset


class Stream(IterableDataset[Any]):
    def __init__(self, ds: Any) -> None:
        self.ds = ds

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self.ds)):
            yield self.ds[i]


class ResumableStream(Stream):
    def __init__(self, ds: Any) -> None:
        super().__init__(ds)
        self.place = 0

    def __iter__(self) -> Iterator[Any]:
        while self.place < len(self.ds):
            self.place += 1
            yield self.ds[self.place - 1]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]
