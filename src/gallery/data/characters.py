"""Characters of a text for language models, with batches that continue each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fulgurite.core.errors import UserError, suggest_or_list
from src.data.batches import identity_collate
from src.gallery.data.text_files import TextFile, read_text

UNKNOWN = "<unk>"
TEXTS = {
    "shakespeare": TextFile("hamlet.txt"),
    "time_machine": TextFile(
        "timemachine.txt",
        ("https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",),
        "090b5e7e70c295757f55df93cb0a180b9691891a",  # pragma: allowlist secret
    ),
}


class CharacterVocab:
    """Numbers for characters, the most frequent first; 0 stands for any other.

    Args:
        text: The text that is counted.
    """

    def __init__(self, text: str) -> None:
        counts = Counter(text)
        self.tokens = [UNKNOWN, *sorted(counts, key=lambda token: (-counts[token], token))]
        self.index = {token: position for position, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> Tensor:
        """Return `[len(text)]`, int64."""
        return torch.tensor([self.index.get(character, 0) for character in text], dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Return the characters of `[T]`."""
        return "".join(self.tokens[token] for token in tokens.tolist())


class Windows(Dataset[Any]):
    """Windows of a sequence by their start: tokens `[T]`, and the token after each.

    Args:
        tokens: The whole sequence, `[N]`.
        num_steps: Tokens of a window, T.
    """

    def __init__(self, tokens: Tensor, num_steps: int) -> None:
        self.tokens = tokens
        self.steps = torch.arange(num_steps + 1)

    def __len__(self) -> int:
        return len(self.tokens) - len(self.steps) + 1

    def __getitems__(self, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return tokens and targets `[B, T]` of a batch of starts."""
        windows = self.tokens[torch.as_tensor(starts)[:, None] + self.steps]
        return windows[:, :-1], windows[:, 1:]


class WindowBatches(Sampler[list[int]]):
    """Batches of window starts that cover the sequence, section 8.3 of the book.

    Args:
        num_tokens: Length of the sequence.
        num_steps: Tokens of a window.
        batch_size: Windows of a batch.
        order: `sequential` batches continue each other: row i of a batch continues row i of the batch before. `random`
            batches are windows in any order.
        shift: Begin each pass at a random one of the first tokens.

    Raises:
        UserError: The sequence fills no batch.
    """

    def __init__(
        self, num_tokens: int, num_steps: int, batch_size: int, order: Literal["sequential", "random"], *, shift: bool
    ) -> None:
        self.num_tokens, self.num_steps, self.batch_size = num_tokens, num_steps, batch_size
        self.order, self.shift = order, shift
        longest_shift = num_steps - 1 if shift else 0
        if self._rows(longest_shift) < num_steps:
            need = batch_size * num_steps + num_steps
            key = "data.max_tokens" if shift else "data.val_tokens"
            raise UserError(f"{key}={num_tokens}: fills no batch. Use {need} or more, or a smaller data.batch_size.")

    def _rows(self, offset: int) -> int:
        """Return the tokens of one row."""
        return (self.num_tokens - offset - 1) // self.batch_size

    def __len__(self) -> int:
        return self._rows(self.num_steps - 1 if self.shift else 0) // self.num_steps

    def __iter__(self) -> Iterator[list[int]]:
        offset = int(torch.randint(self.num_steps, ())) if self.shift else 0
        width = self._rows(offset)
        if self.order == "sequential":
            firsts = torch.arange(self.batch_size) * width + offset
            starts = firsts + torch.arange(len(self))[:, None] * self.num_steps  # [batches, B]
        else:
            windows = torch.arange(offset, self.num_tokens - self.num_steps, self.num_steps)
            order = torch.randperm(len(windows))[: len(self) * self.batch_size]
            starts = windows[order].view(len(self), -1)
        yield from starts.tolist()


class CharacterDataModule(LightningDataModule):
    """Windows of one text. The first `max_tokens` characters are trained on, the next `val_tokens` are for validation.

    As in the book, letters are lower case, anything between two of them is one space, and lines follow each other
    without one: 28 tokens with the unknown one.
    A batch is `(tokens [B, T] int64, the token after each [B, T] int64)`.

    Args:
        name: `shakespeare` is a play in this repository; `time_machine` is downloaded once.
        data_dir: Folder of the text.
        file: Another text, in `data_dir`. None uses the text of that name.
        batch_size: Windows of a batch.
        num_steps: Tokens of a window, T.
        max_tokens: Characters to train on.
        val_tokens: Characters for validation, which follow them.
        order: `sequential` batches continue each other, for a carried state; `random` batches do not.
        local_dirs: Folders that are searched before a download.
    """

    def __init__(
        self,
        name: Literal["shakespeare", "time_machine"],
        data_dir: str,
        file: str | None = None,
        batch_size: int = 32,
        num_steps: int = 35,
        max_tokens: int = 10_000,
        val_tokens: int = 5_000,
        order: Literal["sequential", "random"] = "sequential",
        local_dirs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if name not in TEXTS:
            raise UserError(f"data.name={name}: no such text{suggest_or_list(name, TEXTS, 'The texts are')}")
        self.file, self.data_dir, self.order = TextFile(file) if file else TEXTS[name], Path(data_dir), order
        self.local_dirs = [Path(folder).expanduser() for folder in local_dirs]
        self.batch_size, self.num_steps = batch_size, num_steps
        self.max_tokens, self.val_tokens = max_tokens, val_tokens

    def prepare_data(self) -> None:
        """Download the text, once per machine."""
        read_text(self.data_dir, self.file, self.local_dirs)

    def setup(self, stage: str | None = None) -> None:
        """Read the text, the same for every `stage` and on every rank."""
        if hasattr(self, "vocab"):
            return
        lines = read_text(self.data_dir, self.file, self.local_dirs).splitlines()
        text = "".join(re.sub("[^A-Za-z]+", " ", line).strip().lower() for line in lines)
        if len(text) < (num_tokens := self.max_tokens + self.val_tokens):
            raise UserError(
                f"data.max_tokens={self.max_tokens}: with data.val_tokens={self.val_tokens} the text needs "
                f"{num_tokens} letters and spaces, and has {len(text)}. Use smaller numbers."
            )
        self.vocab = CharacterVocab(text)
        tokens = self.vocab.encode(text[:num_tokens])
        self.train_set = Windows(tokens[: self.max_tokens], self.num_steps)
        self.val_set = Windows(tokens[self.max_tokens :], self.num_steps)

    def _loader(self, windows: Windows, order: Literal["sequential", "random"], *, shift: bool) -> DataLoader[Any]:
        batches = WindowBatches(len(windows.tokens), self.num_steps, self.batch_size, order, shift=shift)
        return DataLoader(windows, batch_sampler=batches, collate_fn=identity_collate)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches; each pass begins at another token."""
        return self._loader(self.train_set, self.order, shift=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches, always the same, in the order of the text."""
        return self._loader(self.val_set, "sequential", shift=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the validation batches: the book holds out no text."""
        return self.val_dataloader()
