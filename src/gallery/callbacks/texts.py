"""Texts that a model writes: files in the run directory, and lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from fulgurite.core.errors import UserError
from src.gallery.callbacks.pictures import Picture, evaluating

log = logging.getLogger(__name__)


def save_text(trainer: Trainer, name: str, text: str) -> None:
    """Write a file to the run directory, and its lines to the log."""
    (Path(trainer.default_root_dir) / name).write_text(text + "\n", encoding="utf-8")
    for line in text.splitlines():
        log.info(line)


class GeneratedText(Callback):
    """Writes the most likely continuation of a text when training ends, to `generated.txt`.

    Args:
        prefix: Beginning of the text, in lower case letters and spaces.
        num_tokens: Characters that are added.
    """

    def __init__(self, prefix: str = "to be or", num_tokens: int = 100) -> None:
        if not prefix:
            raise UserError("prefix=: the first token needs one before it. Use at least one letter.")
        self.prefix, self.num_tokens = prefix, num_tokens

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the text."""
        vocab = cast("Any", trainer).datamodule.vocab
        with evaluating(pl_module) as model:
            tokens = model.generate(vocab.encode(self.prefix).to(model.device), self.num_tokens)
        save_text(trainer, "generated.txt", vocab.decode(tokens))


class Translations(Picture):
    """Translates sentences when training ends, to `translations.txt`, and draws what a net with attention looks at.

    Args:
        sentences: Source sentences.
        name: Name of the picture.
    """

    def __init__(
        self, sentences: Sequence[str] = ("go .", "i lost .", "he's calm .", "i'm home ."), name: str = "attention"
    ) -> None:
        super().__init__(name, 3 * len(sentences), 3)
        self.sentences = list(sentences)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the translations, and draw the attention if the net has one."""
        data = cast("Any", trainer).datamodule
        with evaluating(pl_module) as model:
            guesses = model.translate(*self._encoded(data, model.device), data.num_steps)
        pairs = zip(self.sentences, guesses, strict=True)
        lines = [f"{sentence} => {' '.join(data.target_words.decode(guess))}" for sentence, guess in pairs]
        save_text(trainer, "translations.txt", "\n".join(lines))
        if hasattr(pl_module.net, "attention_weights"):
            super().on_fit_end(trainer, pl_module)

    def _encoded(self, data: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        words = [sentence.lower().split() for sentence in self.sentences]
        source, lengths = data.source_words.encode(words, data.num_steps)
        return source.to(device), lengths.to(device)

    def draw(self, figure: Any, trainer: Trainer, model: Any) -> None:
        """Draw one map per sentence; see `Picture.draw`."""
        data = cast("Any", trainer).datamodule
        source, lengths = self._encoded(data, model.device)
        for position, sentence in enumerate(self.sentences):
            row = slice(position, position + 1)
            [guess] = model.translate(source[row], lengths[row], data.num_steps)
            target = torch.tensor([[model.bos, *guess]], device=model.device)
            model.net(source[row], lengths[row], target)
            words = [*sentence.lower().split(), "<eos>"]
            weights = model.net.attention_weights[0, :, : len(words)].cpu().numpy()
            axes = figure.add_subplot(1, len(self.sentences), position + 1)
            axes.imshow(weights, cmap="Reds", vmin=0, vmax=1)
            axes.set_xticks(range(len(words)), words, rotation=45)
            axes.set_yticks(range(len(guess) + 1), [*data.target_words.decode(guess), "<eos>"])
