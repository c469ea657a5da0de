"""Translation: an encoder-decoder learns target sentences of source sentences, with padding masked out of the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from src.gallery.decoding import beam_search, before_eos, book_bleu
from src.gallery.tasks.task import Task
from src.models.metrics import ExampleMean

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Translation(Task):
    """Trains an encoder-decoder with teacher forcing, and tests it by translating.

    Metrics: `train/loss`, `val/loss`, `test/loss`, cross entropy per target token in nats; `train/loss_book`,
    `val/loss_book`, the number that the book prints: the sum over sentences of the mean over slots, divided by the
    number of target tokens, so a tenth of the loss for 10 slots; `test/bleu`, mean of the book's BLEU with n-grams up
    to 2 over the test sentences.

    Args:
        net: An encoder-decoder of `src.gallery.nets.translation` or `src.gallery.nets.transformer`.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
        bos: Token that begins a target.
        eos: Token that ends a sentence.
        num_beams: Candidates of the beam search that translates. 1 is greedy decoding.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        bos: int = 2,
        eos: int = 3,
        num_beams: int = 1,
    ) -> None:
        super().__init__(net, optimizer, scheduler, scheduler_interval)
        self.bos, self.eos, self.num_beams = bos, eos, num_beams
        self.train_loss, self.val_loss, self.test_loss = ExampleMean(), ExampleMean(), ExampleMean()
        self.train_loss_book, self.val_loss_book = ExampleMean(), ExampleMean()
        self.test_bleu = ExampleMean()

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of each slot, 0 at padding, and where a token is: both `[B, T]`."""
        source, source_lengths, target, target_lengths = batch
        begin = torch.full_like(target[:, :1], self.bos)
        scores = self.net(source, source_lengths, torch.cat([begin, target[:, :-1]], dim=1))
        mask = torch.arange(target.shape[1], device=target.device) < target_lengths[:, None]
        losses = cross_entropy(scores.transpose(1, 2), target, reduction="none")
        return losses * mask, mask

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the sum over the batch of the mean over slots, which the book minimizes, scalar."""
        losses, mask = self._losses(batch)
        self.train_loss.update(losses[mask].detach())
        self.train_loss_book.update(losses[mask].detach() / losses.shape[1])
        return losses.mean(dim=1).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation loss."""
        losses, mask = self._losses(batch)
        self.val_loss.update(losses[mask])
        self.val_loss_book.update(losses[mask] / losses.shape[1])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test loss, translate it, and score the translations."""
        losses, mask = self._losses(batch)
        self.test_loss.update(losses[mask])
        source, source_lengths, target, _ = batch
        translations = self.translate(source, source_lengths, target.shape[1])
        pairs = zip(translations, target.tolist(), strict=True)
        scores = [book_bleu(before_eos(guess, self.eos), before_eos(label, self.eos), 2) for guess, label in pairs]
        self.test_bleu.update(torch.tensor(scores))

    def predict_step(self, batch: Batch, batch_idx: int) -> list[list[int]]:
        """Return the translations as lists of tokens."""
        return self.translate(batch[0], batch[1], batch[2].shape[1])

    def translate(self, source: torch.Tensor, lengths: torch.Tensor, num_steps: int) -> list[list[int]]:
        """Return the translation of each source as a list of at most `num_steps` tokens, without the last `eos`.

        Args:
            source: `[B, S]`, int64.
            lengths: Tokens of each source without padding, `[B]`.
            num_steps: Longest translation.
        """
        return beam_search(self.net, source, lengths, self.bos, self.eos, num_steps, self.num_beams)

    def on_train_epoch_end(self) -> None:
        """Log the training losses."""
        self.log_dict({"train/loss": self.train_loss, "train/loss_book": self.train_loss_book}, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the validation losses."""
        self.log_dict({"val/loss": self.val_loss, "val/loss_book": self.val_loss_book}, prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Log the test loss and BLEU."""
        self.log_dict({"test/loss": self.test_loss, "test/bleu": self.test_bleu})
