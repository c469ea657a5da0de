"""Pairs of sentences in two languages, from the Tatoeba project, for translation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.core.errors import UserError, suggest_or_list
from fulgurite.data import device_batch_size
from src.gallery.data.tensors import Rows, Split
from src.gallery.data.text_files import TextFile, read_text

UNKNOWN, PAD, BOS, EOS = range(4)
SPECIAL = ["<unk>", "<pad>", "<bos>", "<eos>"]
PAIRS = {
    "english_french": TextFile(
        "fra-eng.zip",
        ("https://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip",),
        "94646ad1522d915e7b0f9296181140edcf86a4f5",  # pragma: allowlist secret
        "fra-eng/fra.txt",
    ),
    "english_spanish": TextFile("spa-eng-600.tsv"),
}


class WordVocab:
    """Numbers for words that occur at least `min_count` times, the most frequent first; all others are unknown.

    Args:
        sentences: Lists of words.
        min_count: Occurrences that a word needs.
        max_size: Largest number of tokens, with the four special ones.
    """

    def __init__(self, sentences: Iterable[Sequence[str]], min_count: int, max_size: int) -> None:
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = [word for word, count in counts.items() if count >= min_count]
        self.words = [*SPECIAL, *sorted(kept, key=lambda word: (-counts[word], word))][:max_size]
        self.index = {word: position for position, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentences: Sequence[Sequence[str]], num_steps: int) -> tuple[Tensor, Tensor]:
        """Return tokens with `eos` at the end, cut or padded to `[N, num_steps]`, and their lengths `[N]`."""
        tokens = torch.full((len(sentences), num_steps), PAD)
        lengths = torch.empty(len(sentences), dtype=torch.int64)
        for row, sentence in enumerate(sentences):
            numbers = ([self.index.get(word, UNKNOWN) for word in sentence] + [EOS])[:num_steps]
            tokens[row, : len(numbers)] = torch.tensor(numbers)
            lengths[row] = len(numbers)
        return tokens, lengths

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """Return the words."""
        return [self.words[token] for token in tokens]


def words_of(sentence: str) -> list[str]:
    """Return lower-case words; punctuation is a word of its own."""
    sentence = sentence.replace("\u202f", " ").replace("\xa0", " ").lower()
    spaced = "".join(f" {character}" if character in ",.!?" else character for character in sentence)
    return spaced.split()


class SentencePairs(LightningDataModule):
    """The first pairs of a file, each cut or padded to one length.

    A batch is `(source [B, S], source lengths [B], target [B, T], target lengths [B])`, all int64, with S = T =
    `num_steps`. Validation and test use the training pairs, as the book does.

    Args:
        name: The pairs. `english_french` is downloaded once; `english_spanish` is a file that you have.
        data_dir: Folder of the file.
        num_pairs: Pairs to use.
        num_steps: Tokens of a sentence, with the one that ends it.
        min_count: Occurrences that a word of the vocabulary needs.
        batch_size: Global batch size. It must be divisible by the number of data-parallel ranks.
        vocab_size: Largest vocabulary of each language; rarer words are unknown.
        local_dirs: Folders that are searched before a download.
    """

    def __init__(
        self,
        name: Literal["english_french", "english_spanish"],
        data_dir: str,
        num_pairs: int = 600,
        num_steps: int = 10,
        min_count: int = 2,
        batch_size: int = 64,
        vocab_size: int = 256,
        local_dirs: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if name not in PAIRS:
            raise UserError(f"data.name={name}: no such pairs{suggest_or_list(name, PAIRS, 'The pairs are')}")
        self.file, self.data_dir = PAIRS[name], Path(data_dir)
        self.local_dirs = [Path(folder).expanduser() for folder in local_dirs]
        self.num_pairs, self.num_steps, self.min_count, self.batch_size = num_pairs, num_steps, min_count, batch_size
        self.vocab_size = vocab_size

    def prepare_data(self) -> None:
        """Download the file, once per machine."""
        read_text(self.data_dir, self.file, self.local_dirs)

    def setup(self, stage: str | None = None) -> None:
        """Read the pairs, the same for every `stage` and on every rank."""
        if hasattr(self, "pairs"):
            return
        lines = read_text(self.data_dir, self.file, self.local_dirs).splitlines()[: self.num_pairs]
        columns = [line.split("\t")[:2] for line in lines]
        if any(len(pair) < 2 for pair in columns):
            raise UserError(f"{self.data_dir}: a line of {self.file.name} has no tab between two sentences.")
        sources, targets = ([words_of(pair[side]) for pair in columns] for side in (0, 1))
        self.source_words, self.target_words = (
            WordVocab(sentences, self.min_count, self.vocab_size) for sentences in (sources, targets)
        )
        source, source_lengths = self.source_words.encode(sources, self.num_steps)
        target, target_lengths = self.target_words.encode(targets, self.num_steps)
        self.pairs = Split((source, source_lengths, target), target_lengths)

    def _loader(self, *, shuffle: bool = False) -> DataLoader[Any]:
        batch_size = device_batch_size(self.batch_size, self.trainer)
        return DataLoader(Rows(self.pairs), batch_size=batch_size, shuffle=shuffle, collate_fn=flat)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches, in a new order each epoch."""
        return self._loader(shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the training pairs, always in the same order."""
        return self._loader()

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the training pairs, always in the same order."""
        return self._loader()


def flat(batch: Any) -> tuple[Tensor, ...]:
    """Return `(source, source lengths, target, target lengths)`."""
    inputs, last = batch
    return *inputs, last
