"""Recurrent encoder-decoders: sequence to sequence (Sutskever et al. 2014), attention (Bahdanau et al. 2014).

All nets of this kind have three methods: `forward` scores a known target (teacher forcing), `start` encodes a source
and `step` scores the next token. A state is a tuple of tensors `[B, ...]`, so that a beam search can reorder it.
"""

from __future__ import annotations

import torch
from torch import nn

from src.gallery.nets.attention import AdditiveAttention
from src.gallery.nets.init import xavier_uniform_

State = tuple[torch.Tensor, ...]


class GRUSeq2Seq(nn.Module):
    """A GRU reads the source, its last state starts another that writes the target, section 9.7.

    | stage | output |
    |---|---|
    | encoder | `[B, S, H]`, state `[B, layers, H]` |
    | decoder | `[B, T, H]` |
    | output | `[B, T, target_vocab]` |

    Padding is read as the book reads it: the last state is that of the last slot, padded or not.

    Args:
        source_vocab: Number of source tokens.
        target_vocab: Number of target tokens.
        embedding_size: Width of an embedded token.
        hidden_size: Width of each GRU layer, H.
        num_layers: GRU layers of encoder and decoder.
        dropout: Between the layers.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        embedding_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(source_vocab, embedding_size)
        self.target_embedding = nn.Embedding(target_vocab, embedding_size)
        self.encoder = nn.GRU(embedding_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.decoder = nn.GRU(embedding_size + hidden_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.output = nn.Linear(hidden_size, target_vocab)
        xavier_uniform_(self)

    def forward(self, source: torch.Tensor, lengths: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return scores `[B, T, target_vocab]` of the token after each token of the target.

        Args:
            source: `[B, S]`, int64.
            lengths: Tokens of each source without padding, `[B]`.
            target: Known tokens, `[B, T]`, the first one begins the sentence.
        """
        context, hidden = self.start(source, lengths)
        return self._decode(target, context, hidden)[0]

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> State:
        """Return the state before the first token: context `[B, H]`, hidden states `[B, layers, H]`."""
        _, hidden = self.encoder(self.source_embedding(source))
        return hidden[-1], hidden.transpose(0, 1)

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Return scores of the next token `[B, target_vocab]` and the new state, for the tokens so far `[B, t]`."""
        scores, hidden = self._decode(tokens[:, -1:], *state)
        return scores[:, -1], (state[0], hidden)

    def _decode(
        self, tokens: torch.Tensor, context: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        repeated = context[:, None].expand(-1, tokens.shape[1], -1)
        x = torch.cat([self.target_embedding(tokens), repeated], dim=2)
        features, after = self.decoder(x, hidden.transpose(0, 1).contiguous())
        return self.output(features), after.transpose(0, 1)


class BahdanauSeq2Seq(GRUSeq2Seq):
    """As `GRUSeq2Seq`, but each step reads a mean of all encoder outputs, weighted by attention, section 10.4.

    | stage | output |
    |---|---|
    | encoder | `[B, S, H]`, state `[B, layers, H]` |
    | attention | context `[B, 1, H]`, weights `[B, 1, S]`, for each step |
    | output | `[B, T, target_vocab]` |

    Args:
        source_vocab: Number of source tokens.
        target_vocab: Number of target tokens.
        embedding_size: Width of an embedded token.
        hidden_size: Width of each GRU layer, H.
        num_layers: GRU layers of encoder and decoder.
        dropout: Between the layers, and of the attention weights.

    Attributes:
        attention_weights: Of the last call, `[B, T, S]`.
    """

    attention_weights: torch.Tensor

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        embedding_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(source_vocab, target_vocab, embedding_size, hidden_size, num_layers, dropout)
        self.attention = AdditiveAttention(hidden_size, hidden_size, hidden_size, dropout)
        xavier_uniform_(self.attention)

    def forward(self, source: torch.Tensor, lengths: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return scores `[B, T, target_vocab]` of the token after each token of the target; see `GRUSeq2Seq`."""
        state = self.start(source, lengths)
        scores, weights = [], []
        for position in range(target.shape[1]):
            score, state = self.step(target[:, : position + 1], state)
            scores.append(score)
            weights.append(self.attention_weights)
        self.attention_weights = torch.cat(weights, dim=1).detach()
        return torch.stack(scores, dim=1)

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> State:
        """Return the state before the first token: outputs `[B, S, H]`, lengths `[B]`, hidden `[B, layers, H]`."""
        outputs, hidden = self.encoder(self.source_embedding(source))
        return outputs, lengths, hidden.transpose(0, 1)

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Return scores of the next token `[B, target_vocab]` and the new state, for the tokens so far `[B, t]`."""
        outputs, lengths, hidden = state
        context, weights = self.attention(hidden[:, -1:], outputs, outputs, lengths)
        self.attention_weights = weights.detach()
        scores, hidden = self._decode(tokens[:, -1:], context[:, 0], hidden)
        return scores[:, -1], (outputs, lengths, hidden)
