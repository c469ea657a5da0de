"""Attention: kernel regression (Nadaraya, Watson 1964), additive (Bahdanau et al. 2014), multi-head (Vaswani 2017)."""

from __future__ import annotations

import math

import torch
from torch import nn


def masked_softmax(scores: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Return weights over the last axis that are 0 from each length on; a length of 0 gives equal weights.

    Args:
        scores: `[B, Q, K]`.
        lengths: Valid keys, `[B]` or `[B, Q]`. None takes all.

    Returns:
        `[B, Q, K]`, each row sums to 1.
    """
    if lengths is not None:
        lengths = lengths[:, None] if lengths.dim() == 1 else lengths
        positions = torch.arange(scores.shape[-1], device=scores.device)
        # not -inf: a row without a valid key would become NaN
        scores = scores.masked_fill(positions >= lengths[..., None], -1e6)
    return torch.softmax(scores, dim=-1)


class NadarayaWatson(nn.Module):
    """Mean of the values, weighted by a Gaussian kernel of learned width, section 10.2. 1 parameter.

    | stage | output |
    |---|---|
    | weights | `[B, K]` |
    | prediction | `[B, 1]` |
    """

    def __init__(self) -> None:
        super().__init__()
        self.inverse_width = nn.Parameter(torch.rand(1))

    def weights(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return the weight of each key for each query, `[B, K]`, for queries `[B, 1]` and keys `[B, K]`."""
        return torch.softmax(-(((queries - keys) * self.inverse_width) ** 2) / 2, dim=1)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return `[B, 1]` for queries `[B, 1]`, keys `[B, K]` and values `[B, K]`."""
        return (self.weights(queries, keys) * values).sum(dim=1, keepdim=True)


class AdditiveAttention(nn.Module):
    """Scores each key with a small net of one hidden layer, section 10.3.

    Args:
        query_size: Width of a query.
        key_size: Width of a key.
        hidden_size: Width of the hidden layer.
        dropout: Probability that a weight is zeroed.
    """

    def __init__(self, query_size: int, key_size: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(key_size, hidden_size, bias=False)
        self.score = nn.Linear(hidden_size, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted values `[B, Q, V]` and the weights `[B, Q, K]`.

        Args:
            queries: `[B, Q, query_size]`.
            keys: `[B, K, key_size]`.
            values: `[B, K, V]`.
            lengths: Valid keys of each example, `[B]`.
        """
        hidden = torch.tanh(self.query(queries)[:, :, None] + self.key(keys)[:, None])  # [B, Q, K, H]
        weights = masked_softmax(self.score(hidden).squeeze(-1), lengths)
        return torch.bmm(self.dropout(weights), values), weights


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several subspaces, section 10.5.

    Args:
        size: Width of queries, keys, values and outputs, divisible by the number of heads.
        num_heads: Subspaces.
        dropout: Probability that a weight is zeroed.
    """

    def __init__(self, size: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs `[B, Q, size]` and weights `[B, heads, Q, K]`.

        Args:
            queries: `[B, Q, size]`.
            keys: Keys, which are the values too, `[B, K, size]`.
            lengths: Valid keys, `[B]`, or `[B, Q]` where each query has its own.
        """
        q, k, v = self._split(self.query(queries)), self._split(self.key(keys)), self._split(self.value(keys))
        scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
        repeated = None if lengths is None else lengths.repeat_interleave(self.num_heads, dim=0)
        weights = masked_softmax(scores, repeated)
        size = (-1, self.num_heads, weights.shape[1])
        heads = torch.bmm(self.dropout(weights), v).view(*size, q.shape[-1])  # [B, heads, Q, size / heads]
        return self.output(heads.transpose(1, 2).flatten(2)), weights.view(*size, weights.shape[2])

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """Return `[B * heads, T, size / heads]` for `[B, T, size]`."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2).flatten(0, 1)
