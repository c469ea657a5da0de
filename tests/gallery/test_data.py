"""Data modules of the gallery: what a batch holds, and what is refused."""

from __future__ import annotations

import hashlib
import math
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from fulgurite import UserError
from src.gallery.data import text_files
from src.gallery.data.characters import CharacterDataModule, WindowBatches
from src.gallery.data.images import BookImages
from src.gallery.data.sentences import BOS, EOS, PAD, UNKNOWN, SentencePairs, words_of
from src.gallery.data.synthetic import kernel_regression, linear, noisy_sine, polynomial
from src.gallery.data.tables import HousePrices, features_of
from src.gallery.data.tensors import TensorDataModule
from src.gallery.data.text_files import TextFile, read_text
from tests.conftest import ComposeSmall
from tests.gallery.files import write_files
from tests.gallery.test_experiments import fitted
from tests.support.project import ROOT


def characters(**arguments: object) -> CharacterDataModule:
    data = CharacterDataModule("shakespeare", str(ROOT / "data/shakespeare"), **arguments)  # type: ignore[arg-type]
    data.setup()
    return data


def test_sequential_windows_continue_each_other_and_cover_the_text() -> None:
    data = characters()
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 8
    for (tokens, targets), (following, _) in pairwise(batches):
        assert tokens.shape == targets.shape == (32, 35)
        assert torch.equal(targets[:, :-1], tokens[:, 1:])
        assert torch.equal(targets[:, -1], following[:, 0])


def test_each_pass_starts_at_another_token_and_validation_does_not() -> None:
    data = characters()
    firsts = {next(iter(data.train_dataloader()))[0][0].sum().item() for _ in range(12)}
    assert len(firsts) > 1
    assert len({next(iter(data.val_dataloader()))[0][0].sum().item() for _ in range(3)}) == 1


def test_random_windows_are_windows_of_the_text() -> None:
    data = characters(order="random")
    text = "".join(map(chr, data.train_set.tokens + 97))
    for tokens, _ in data.train_dataloader():
        assert all("".join(map(chr, row + 97)) in text for row in tokens)


def test_the_text_has_28_tokens_and_decodes() -> None:
    vocab = characters().vocab
    assert len(vocab) == 28
    assert vocab.decode(vocab.encode("to be or not")) == "to be or not"
    assert vocab.encode("é").tolist() == [0]


def test_a_text_that_fills_no_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"^data.max_tokens=100: fills no batch. Use 1155 or more"):
        WindowBatches(100, 35, 32, "sequential", shift=True)
    with pytest.raises(UserError, match=r"^data.val_tokens=100: fills no batch. Use 1155 or more"):
        characters(val_tokens=100).val_dataloader()


def test_another_text_is_read_and_may_not_be_too_short(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Ab, c!\n  42 de")
    data = CharacterDataModule("shakespeare", str(tmp_path), "mine.txt", max_tokens=4, val_tokens=2)
    data.setup()
    assert data.vocab.decode(torch.cat([data.train_set.tokens, data.val_set.tokens])) == "ab cde"
    data = CharacterDataModule("shakespeare", str(tmp_path), "mine.txt", max_tokens=5, val_tokens=2)
    with pytest.raises(UserError, match=r"^data.max_tokens=5: with data.val_tokens=2 the text needs 7 .* and has 6"):
        data.setup()


def test_pixels_are_0_to_1_and_images_are_resized_in_batches() -> None:
    data = BookImages("mnist_sample", str(ROOT / "data/mnist_sample"), image_size=32, batch_size=16)
    data.setup()
    images, labels = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert images.shape == (16, 1, 32, 32)
    assert labels.shape == (16,)
    assert 0 == images.min() < images.max() <= 1


def test_sentences_are_padded_and_end_with_eos(tmp_path: Path) -> None:
    (tmp_path / "fra.txt").write_text("Go now!\tVa !\tx\nGo.\tVa, maintenant et vite.\tx\n")
    data = SentencePairs("english_french", str(tmp_path), num_steps=5, min_count=1)
    data.setup()
    source, lengths, target, target_lengths = next(iter(data.val_dataloader()))
    assert data.source_words.decode(source[0].tolist()) == ["go", "now", "!", "<eos>", "<pad>"]
    assert (lengths.tolist(), target_lengths.tolist()) == ([4, 3], [3, 5])
    assert data.target_words.decode(target[1].tolist()) == ["va", ",", "maintenant", "et", "vite"]  # cut
    assert [UNKNOWN, PAD, BOS, EOS] == [0, 1, 2, 3]
    assert words_of("Il a\u202fperdu !") == ["il", "a", "perdu", "!"]


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "fra.txt").write_text("go go\tva\tx\ngo home\tva\tx\n")
    data = SentencePairs("english_french", str(tmp_path), min_count=2)
    data.setup()
    assert data.source_words.words == ["<unk>", "<pad>", "<bos>", "<eos>", "go"]


def test_columns_of_a_table_become_numbers() -> None:
    rows = [{"area": "1", "zone": "A"}, {"area": "3", "zone": "NA"}, {"area": "NA", "zone": "B"}]
    root = 0.5**0.5
    expected = torch.tensor([[-root, 0, 1, 0], [root, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(features_of(rows), expected)


def test_folds_are_disjoint_and_cover_the_table(tmp_path: Path) -> None:
    write_files("house_prices", tmp_path)
    held_out = []
    for fold in range(4):
        data = HousePrices(str(tmp_path), "houses.csv", num_features=4, fold=fold, num_folds=4)
        data.setup()
        assert len(data.train_split.targets) == 30
        held_out += data.val_split.targets.flatten().tolist()
    data = HousePrices(str(tmp_path), "houses.csv", num_features=4)
    data.setup()
    assert held_out == data.train_split.targets.flatten().tolist()


def test_the_number_of_features_is_checked(tmp_path: Path) -> None:
    write_files("house_prices", tmp_path)
    data = HousePrices(str(tmp_path), "houses.csv", num_features=331)
    with pytest.raises(UserError, match=r"^data.num_features=331: the table has 4. Use that number.$"):
        data.setup()
    (tmp_path / "houses.csv").write_text("Id,SalePrice\n")
    with pytest.raises(UserError, match=r"^data.file=houses.csv: the table has no rows."):
        data.setup()


def test_synthetic_examples_follow_their_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    splits = linear(generator, [2.0], 1.0, noise=0.0, num_train=5)
    torch.testing.assert_close(splits.train.targets, 2 * splits.train.inputs[0] + 1)
    terms = polynomial(generator, num_terms=4, noise=0.0).train
    torch.testing.assert_close(terms.inputs[0][:, 3], terms.inputs[0][:, 1] ** 3 / 6)
    sine = noisy_sine(generator, noise=0.0)
    assert (len(sine.train.targets), len(sine.val.targets)) == (600, 396)
    torch.testing.assert_close(sine.train.targets[0, 0], torch.tensor(0.05).sin())
    kernel = kernel_regression(generator, num_train=6)
    queries, keys, values = kernel.train.inputs
    assert keys.shape == values.shape == (6, 5)
    assert not (queries == keys).any()


def test_a_batch_size_of_none_takes_all_examples() -> None:
    data = TensorDataModule(kernel_regression, batch_size=None)
    data.setup()
    [((queries, keys, _), targets)] = data.train_dataloader()
    assert (queries.shape, keys.shape, targets.shape) == ((50, 1), (50, 49), (50, 1))
    with pytest.raises(UserError, match=r"^data.batch_size=0: must be 1 or more"):
        TensorDataModule(kernel_regression, batch_size=0)


def test_an_archive_is_read_and_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        archive.writestr("pairs/fra.txt", "Go.\tVa !\n")
    content = (tmp_path / "served.zip").read_bytes()

    def fetch(urls: object, target: Path) -> Path:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        return target

    monkeypatch.setattr(text_files, "download", fetch)
    sha1, addresses = hashlib.sha1(content, usedforsecurity=False).hexdigest(), ("https://example.org/pairs.zip",)
    file = TextFile("pairs.zip", addresses, sha1, "pairs/fra.txt")
    assert read_text(tmp_path / "a", file) == "Go.\tVa !\n"
    wrong = TextFile("pairs.zip", addresses, "0" * 40, "pairs/fra.txt")
    with pytest.raises(UserError, match="it is not the published file"):
        read_text(tmp_path / "b", wrong)
    assert not (tmp_path / "b/pairs.zip").exists()
    with pytest.raises(UserError, match="the file is missing, and no address publishes it"):
        read_text(tmp_path / "c", TextFile("own.tsv"))


def test_only_a_downloaded_file_is_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(b"\xe9")
    with pytest.raises(UserError, match=r"cannot be read .* Replace it by a text in UTF-8\.$"):
        read_text(tmp_path, TextFile("own.txt"))
    with pytest.raises(UserError, match=r"cannot be read .* Delete it, the next run downloads it\.$"):
        read_text(tmp_path, TextFile("own.txt", ("https://example.org/own.txt",)))


def test_a_submission_has_a_price_for_each_house_without_one(small: ComposeSmall, tmp_path: Path) -> None:
    write_files("house_prices", tmp_path)
    rows = (tmp_path / "houses.csv").read_text().splitlines()
    (tmp_path / "kaggle_house_pred_train.csv").write_text("\n".join(rows[:31]))
    (tmp_path / "kaggle_house_pred_test.csv").write_text(
        "\n".join(row.rpartition(",")[0] for row in [rows[0], *rows[31:]])
    )
    run = fitted(small("experiment=gallery/house_prices", f"data.data_dir={tmp_path}", "data.num_features=4"))
    lines = (Path(run.trainer.default_root_dir) / "submission.csv").read_text().splitlines()
    assert lines[0] == "Id,SalePrice"
    assert [line.split(",")[0] for line in lines[1:]] == [str(number) for number in range(30, 40)]
    assert all(math.isfinite(float(line.split(",")[1])) for line in lines[1:])
