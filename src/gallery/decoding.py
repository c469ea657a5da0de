"""Write sentences with an encoder-decoder, and score them: greedy decoding, beam search, BLEU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def before_eos(tokens: Sequence[int], eos: int) -> list[int]:
    """Return the tokens before the first `eos`, or all without one."""
    tokens = list(tokens)
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


@torch.no_grad()
def beam_search(
    net: Any,
    source: torch.Tensor,
    lengths: torch.Tensor,
    bos: int,
    eos: int,
    num_steps: int,
    num_beams: int = 1,
    alpha: float = 0.75,
) -> list[list[int]]:
    """Return the best sentence for each source: section 9.8. One beam is greedy decoding.

    Args:
        net: Has `start(source, lengths)`, a tuple of tensors `[B, ...]`, and `step(tokens, state)`, scores and the
            state.
        source: `[B, S]`, int64.
        lengths: Tokens of each source without padding, `[B]`.
        bos: Token that begins a sentence.
        eos: Token that ends it.
        num_steps: Longest sentence.
        num_beams: Candidates that are kept for each source.
        alpha: The log-likelihood of a sentence is divided by its length to this power.

    Returns:
        Tokens of each sentence, without `bos` and `eos`.
    """
    num_sources = len(source)
    # row r * num_beams + b is candidate b of source r
    state = tuple(part.repeat_interleave(num_beams, dim=0) for part in net.start(source, lengths))
    tokens = torch.full((num_sources * num_beams, 1), bos, device=source.device)
    likelihood = torch.full((num_sources, num_beams), -math.inf, device=source.device)
    likelihood[:, 0] = 0  # all candidates are the same at first
    length = torch.zeros_like(likelihood)
    done = torch.zeros_like(likelihood, dtype=torch.bool)
    offset = torch.arange(num_sources, device=source.device)[:, None] * num_beams
    for _ in range(num_steps):
        scores, state = net.step(tokens, state)
        step = scores.log_softmax(dim=-1).view(num_sources, num_beams, -1)  # [R, beams, V]
        vocab = step.shape[-1]
        # a finished sentence has one continuation, itself
        ended = torch.full_like(step, -math.inf)
        ended[..., eos] = 0
        step = torch.where(done[..., None], ended, step)
        longer = length + (~done).float()
        ranked = (likelihood[..., None] + step) / longer[..., None] ** alpha
        best = ranked.flatten(1).topk(num_beams, dim=1).indices  # [R, beams]
        parent, token = best // vocab, best % vocab
        likelihood = (likelihood[..., None] + step).flatten(1).gather(1, best)
        length, done = longer.gather(1, parent), done.gather(1, parent) | (token == eos)
        rows = (offset + parent).flatten()
        tokens = torch.cat([tokens[rows], token.flatten()[:, None]], dim=1)
        state = tuple(part[rows] for part in state)
        if done.all():
            break
    first = tokens.view(num_sources, num_beams, -1)[:, 0, 1:]
    return [before_eos(sentence, eos) for sentence in first.tolist()]


def book_bleu(guess: Sequence[Any], label: Sequence[Any], max_n: int) -> float:
    """Return the score of a translation against one label, between 0 and 1: section 9.7.

    Unlike BLEU of Papineni et al. (2002), precision of n-grams counts with weight 1 / 2^n, for one sentence.

    Args:
        guess: Tokens of the translation.
        label: Tokens of the label.
        max_n: Longest n-gram.
    """
    if not guess:
        return 0.0
    score = math.exp(min(0.0, 1 - len(label) / len(guess)))
    for n in range(1, min(max_n, len(guess)) + 1):
        found = Counter(tuple(guess[i : i + n]) for i in range(len(guess) - n + 1))
        known = Counter(tuple(label[i : i + n]) for i in range(len(label) - n + 1))
        score *= ((found & known).total() / found.total()) ** 0.5**n
    return score
