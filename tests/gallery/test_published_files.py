"""The files that the book's numbers were measured with, from the folder that FULGURITE_TEST_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from src.gallery.data.characters import CharacterDataModule
from src.gallery.data.sentences import SentencePairs
from src.gallery.data.tables import airfoil

FOLDER = Path(os.environ.get("FULGURITE_TEST_DATA", ""))
pytestmark = pytest.mark.skipif(
    "FULGURITE_TEST_DATA" not in os.environ, reason="FULGURITE_TEST_DATA does not name the folder of the files"
)


def test_the_time_machine_has_28_tokens() -> None:
    data = CharacterDataModule("time_machine", str(FOLDER), max_tokens=165_000)
    data.setup()
    assert len(data.vocab) == 28
    assert data.vocab.decode(data.train_set.tokens[:40]) == "the time machine by h g wellsithe time tr"[:40]


def test_the_best_linear_model_of_the_airfoil_has_the_loss_of_the_book() -> None:
    train = airfoil(torch.Generator(), str(FOLDER)).train
    [inputs], targets = train.inputs, train.targets
    with_bias = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    weights = torch.linalg.lstsq(with_bias.double(), targets.double()).solution
    loss = (with_bias.double() @ weights - targets).square().mean() / 2
    assert loss == pytest.approx(0.2417, abs=1e-4)


def test_the_pairs_have_the_vocabulary_of_the_measurements() -> None:
    data = SentencePairs("english_spanish", str(FOLDER))
    data.setup()
    assert (len(data.source_words), len(data.target_words)) == (155, 153)
