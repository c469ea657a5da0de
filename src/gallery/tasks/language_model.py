"""Language modelling: predict the next token of a text, with a state that is carried from batch to batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from fulgurite.core.errors import UserError
from src.gallery.tasks.task import Task
from src.models.metrics import ExampleMean

Batch = tuple[torch.Tensor, torch.Tensor]
State = Any  # a tensor, or a tuple of tensors


def detach(state: State) -> State:
    """Return a state that gradients do not pass: backpropagation through time ends at the batch."""
    return tuple(map(detach, state)) if isinstance(state, tuple) else None if state is None else state.detach()


class LanguageModel(Task):
    """Trains a recurrent net by truncated backpropagation through time.

    Metrics: `train/loss`, `val/loss`, `test/loss`, cross entropy per token in nats; `train/perplexity`,
    `val/perplexity`, `test/perplexity`, their exponentials.

    Args:
        net: Maps tokens `[B, T]` and a state to scores `[B, T, V]` and the next state.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer. None keeps the learning rate constant.
        scheduler_interval: The scheduler steps after each epoch or after each optimizer step.
        carry_state: Begin each batch with the state after the batch before, which holds where row i of a batch
            continues row i of the one before. Each epoch begins without a state.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., Any] | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        carry_state: bool = True,
    ) -> None:
        super().__init__(net, optimizer, scheduler, scheduler_interval)
        self.carry_state = carry_state
        self.state: State = None  # of the training text
        self.eval_state: State = None
        self.train_loss, self.val_loss, self.test_loss = ExampleMean(), ExampleMean(), ExampleMean()

    def forward(self, tokens: torch.Tensor, state: State = None) -> tuple[torch.Tensor, State]:
        """Return scores `[B, T, V]` of each next token, and the state after the last."""
        scores, state = self.net(tokens, state)
        return scores, state

    def _step(self, batch: Batch, state: State, loss: ExampleMean) -> tuple[torch.Tensor, State]:
        tokens, targets = batch
        scores, state = self.net(tokens, state if self.carry_state else None)
        losses = cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")  # [B * T]
        loss.update(losses.detach())
        return losses.mean(), detach(state)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the mean loss per token, scalar."""
        loss, self.state = self._step(batch, self.state, self.train_loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation loss."""
        _, self.eval_state = self._step(batch, self.eval_state, self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the test loss."""
        _, self.eval_state = self._step(batch, self.eval_state, self.test_loss)

    def on_fit_start(self) -> None:
        """Refuse to carry a state between batches that do not continue each other.

        Raises:
            UserError: The data module has batches in random order.
        """
        order = getattr(cast("Any", self.trainer).datamodule, "order", None)
        if self.carry_state and order == "random":
            raise UserError("model.carry_state=true: random windows do not continue each other. Set it to false.")

    def on_train_epoch_start(self) -> None:
        """Start the training text without a state."""
        self.state = None

    def on_validation_epoch_start(self) -> None:
        """Start the validation text without a state."""
        self.eval_state = None

    on_test_epoch_start = on_validation_epoch_start

    def _log_epoch(self, stage: str, loss: ExampleMean) -> None:
        mean = loss.compute()
        self.log_dict({f"{stage}/loss": mean, f"{stage}/perplexity": mean.exp()}, prog_bar=True)
        loss.reset()

    def on_train_epoch_end(self) -> None:
        """Log loss and perplexity of the epoch."""
        self._log_epoch("train", self.train_loss)

    def on_validation_epoch_end(self) -> None:
        """Log loss and perplexity of the validation text."""
        self._log_epoch("val", self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log loss and perplexity of the test text."""
        self._log_epoch("test", self.test_loss)

    @torch.no_grad()
    def generate(self, prefix: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Return the prefix `[T]` and the most likely token after it, `num_tokens` times: `[T + num_tokens]`."""
        scores, state = self.net(prefix[None])
        tokens = [*prefix]
        for _ in range(num_tokens):
            tokens.append(scores[0, -1].argmax())
            scores, state = self.net(tokens[-1].view(1, 1), state)
        return torch.stack(tokens)
