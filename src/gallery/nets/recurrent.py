"""Recurrent language models: RNN (Elman 1990), LSTM (Hochreiter, Schmidhuber 1997), GRU (Cho et al. 2014)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.functional import one_hot

from src.gallery.nets.init import normal_

State = torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None
CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class RecurrentLM(nn.Module):
    """One-hot tokens, recurrent layers, and a dense layer that scores the next token, sections 8.5, 8.6, 9.1 to 9.4.

    | stage | output |
    |---|---|
    | one-hot | `[B, T, V]` |
    | cells | `[B, T, H]`, twice as wide if bidirectional |
    | output | `[B, T, V]` |

    For 28 tokens and one layer of 256: RNN 80,412 parameters, GRU 226,844, LSTM 300,060.

    Args:
        vocab_size: Number of tokens, V.
        cell: Kind of the recurrent layers.
        hidden_size: Width of each layer, H.
        num_layers: Recurrent layers on top of each other.
        bidirectional: Read the text in both directions. A language model that does sees the token it predicts: section
            9.4 shows this misuse.
        init_std: Standard deviation of the initial weights. None keeps the default of torch.
    """

    def __init__(
        self,
        vocab_size: int,
        cell: Literal["rnn", "gru", "lstm"] = "gru",
        hidden_size: int = 256,
        num_layers: int = 1,
        bidirectional: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.cells = CELLS[cell](vocab_size, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional)
        self.output = nn.Linear(hidden_size * (2 if bidirectional else 1), vocab_size)
        if init_std is not None:
            normal_(self, init_std)

    def forward(self, tokens: torch.Tensor, state: State = None) -> tuple[torch.Tensor, State]:
        """Return the scores of each next token, and the state after the last token.

        Args:
            tokens: `[B, T]`, int64.
            state: State that an earlier call returned, to continue the text. None begins one.

        Returns:
            Scores `[B, T, V]`, and the state, to be passed to the next call.
        """
        features, state = self.cells(one_hot(tokens, self.vocab_size).float(), state)
        return self.output(features), state
