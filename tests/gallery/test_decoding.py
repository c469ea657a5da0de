"""Greedy decoding and beam search find what an exhaustive search does, and BLEU is that of the book."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from src.gallery.decoding import beam_search, before_eos, book_bleu

BOS, EOS, VOCAB, STEPS = 0, 1, 4, 3
State = tuple[torch.Tensor, ...]


class Table:
    """Scores the next token by the source, the position and the last token."""

    def __init__(self, num_sources: int) -> None:
        self.scores = torch.randn(num_sources, STEPS, VOCAB, VOCAB, generator=torch.Generator().manual_seed(1))

    def start(self, source: torch.Tensor, lengths: torch.Tensor) -> State:
        return (source[:, 0],)

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return self.scores[state[0], tokens.shape[1] - 1, tokens[:, -1]], state


def likelihood(net: Table, row: int, sentence: tuple[int, ...]) -> float:
    tokens, total = [BOS], 0.0
    for token in sentence:
        scores, _ = net.step(torch.tensor([tokens]), (torch.tensor([row]),))
        total += float(scores.log_softmax(-1)[0, token])
        tokens.append(token)
    return total


def every_sentence() -> list[tuple[int, ...]]:
    inner = [token for token in range(VOCAB) if token != EOS]
    ended = [(*head, EOS) for size in range(STEPS) for head in itertools.product(inner, repeat=size)]
    return ended + list(itertools.product(inner, repeat=STEPS))


@pytest.mark.parametrize("row", range(6))
def test_a_wide_beam_finds_the_best_of_all_sentences(row: int) -> None:
    net, alpha = Table(6), 0.75
    best = max(every_sentence(), key=lambda sentence: likelihood(net, row, sentence) / len(sentence) ** alpha)
    found = beam_search(net, torch.arange(6)[:, None], torch.ones(6), BOS, EOS, STEPS, num_beams=64, alpha=alpha)
    assert found[row] == before_eos(best, EOS)


def test_one_beam_takes_the_most_likely_token_each_time() -> None:
    net = Table(6)
    for row, found in enumerate(beam_search(net, torch.arange(6)[:, None], torch.ones(6), BOS, EOS, STEPS)):
        tokens = [BOS]
        while len(tokens) <= STEPS and tokens[-1] != EOS:
            tokens.append(int(net.step(torch.tensor([tokens]), (torch.tensor([row]),))[0].argmax()))
        assert found == before_eos(tokens[1:], EOS)


def test_bleu_of_the_book() -> None:
    # section 9.7: label A B C D E F, prediction A B B C D: p1 = 4/5, p2 = 3/4
    expected = math.exp(1 - 6 / 5) * 0.8**0.5 * 0.75**0.25
    assert book_bleu("ABBCD", "ABCDEF", 2) == pytest.approx(expected)
    assert book_bleu("AB", "AB", 2) == 1
    assert book_bleu("", "AB", 2) == 0
    assert book_bleu("A", "A", 2) == 1
