"""The Transformer as an encoder-decoder (Vaswani et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch import nn

from src.gallery.nets.attention import MultiHeadAttention
from src.gallery.nets.init import xavier_uniform_

State = tuple[torch.Tensor, ...]


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the position, of wavelengths from 2 pi up to 10,000 * 2 pi.

    Args:
        size: Width of the input, even.
        dropout: After the sum.
        max_length: Longest sequence.
    """

    encoding: torch.Tensor

    def __init__(self, size: int, dropout: float = 0.0, max_length: int = 1000) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        angles = torch.arange(max_length)[:, None] / 10_000 ** (torch.arange(0, size, 2) / size)
        encoding = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # [max_length, size]
        self.register_buffer("encoding", encoding, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B, T, size]` for `x` of the same shape."""
        encoded: torch.Tensor = self.dropout(x + self.encoding[: x.shape[1]])
        return encoded


class Block(nn.Module):
    """Attention and a dense net for each position, each with a residual connection and layer norm after it.

    Args:
        size: Width of the input and output.
        ffn_size: Width of the hidden layer of the dense net.
        num_heads: Attention heads.
        dropout: Of attention weights, and before each sum.
        cross: Also attend to a memory, as a decoder does.
    """

    def __init__(self, size: int, ffn_size: int, num_heads: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(size, num_heads, dropout)
        self.cross_attention = MultiHeadAttention(size, num_heads, dropout) if cross else None
        self.ffn = nn.Sequential(nn.Linear(size, ffn_size), nn.ReLU(), nn.Linear(ffn_size, size))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3 if cross else 2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor,
        memory: torch.Tensor | None = None,
        memory_lengths: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs `[B, T, size]` and the weights of the last attention, `[B, heads, T, K]`.

        Args:
            x: `[B, T, size]`.
            lengths: Positions that each one may see, `[B]` or `[B, T]`.
            memory: Encoder outputs `[B, S, size]`, for a block with `cross`.
            memory_lengths: Valid positions of the memory, `[B]`.
        """
        y, weights = self.self_attention(x, x, lengths)
        x = self.norms[0](x + self.dropout(y))
        if self.cross_attention is not None and memory is not None:
            y, weights = self.cross_attention(x, memory, memory_lengths)
            x = self.norms[1](x + self.dropout(y))
        return self.norms[-1](x + self.dropout(self.ffn(x))), weights


class Transformer(nn.Module):
    """Encoder and decoder of blocks with multi-head attention, section 10.7.

    | stage | output |
    |---|---|
    | encoder | `[B, S, size]` |
    | decoder | `[B, T, size]`, weights `[B, heads, T, S]` |
    | output | `[B, T, target_vocab]` |

    Args:
        source_vocab: Number of source tokens.
        target_vocab: Number of target tokens.
        size: Width of embeddings and blocks.
        ffn_size: Width of the hidden layer of the dense nets.
        num_heads: Attention heads.
        num_layers: Blocks of the encoder and of the decoder.
        dropout: Of attention weights, embeddings, and before each sum.

    Attributes:
        attention_weights: Mean over the heads of the last block's weights over the source, of the last call `[B, T,
            S]`.
    """

    attention_weights: torch.Tensor

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        size: int = 32,
        ffn_size: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(size)
        self.source_embedding = nn.Embedding(source_vocab, size)
        self.target_embedding = nn.Embedding(target_vocab, size)
        self.position = PositionalEncoding(size, dropout)
        self.encoder = nn.ModuleList(Block(size, ffn_size, num_heads, dropout) for _ in range(num_layers))
        self.decoder = nn.ModuleList(Block(size, ffn_size, num_heads, dropout, cross=True) for _ in range(num_layers))
        self.output = nn.Linear(size, target_vocab)
        xavier_uniform_(self)

    def forward(self, source: torch.Tensor, lengths: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return scores `[B, T, target_vocab]` of the token after each token of the target.

        Args:
            source: `[B, S]`, int64.
            lengths: Tokens of each source without padding, `[B]`.
            target: Known tokens, `[B, T]`; each position sees itself and those before it.
        """
        return self._decode(target, *self.start(source, lengths))

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> State:
        """Return the encoder's outputs `[B, S, size]` and the lengths `[B]`."""
        x = self.position(self.source_embedding(source) * self.scale)
        for block in self.encoder:
            x, _ = block(x, lengths)
        return x, lengths

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Return scores of the next token `[B, target_vocab]` and the state, for the tokens so far `[B, t]`."""
        return self._decode(tokens, *state)[:, -1], state

    def _decode(self, tokens: torch.Tensor, memory: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x = self.position(self.target_embedding(tokens) * self.scale)
        visible = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).expand(len(tokens), -1)
        for block in self.decoder:
            x, weights = block(x, visible, memory, lengths)
            self.attention_weights = weights.detach().mean(dim=1)
        scores: torch.Tensor = self.output(x)
        return scores
