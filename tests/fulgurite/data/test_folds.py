"""Cross-validation: folds share out all rows evenly, the test stays out of them, and a sweep over them is one row."""

from __future__ import annotations

import csv
import doctest
import hashlib
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from fulgurite.config.view import ConfigView
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.formatting import format_spread
from fulgurite.data import splits
from fulgurite.data.splits import split_fold, stratified_split
from fulgurite.reporting.statistics import spread
from fulgurite.reporting.sweep_summary import summarise
from fulgurite.validation.rules import check_folds
from fulgurite.validation.validate import find_problems
from src.data.mnist import MNISTDataModule
from src.data.mnist_files import DATASETS
from tests.conftest import SMALL
from tests.fulgurite.reporting.test_sweep_summary import job
from tests.support.cli import read_json, run_cli
from tests.support.compose import compose_raw
from tests.support.project import ROOT, shipped_options
from tests.support.tiny_mnist import tiny_dataset

SAMPLE_DIR = ROOT / "data" / "mnist_sample"
DATA = shipped_options("data")
CUT = "035ea1cdf3fca0a64aeeaa31589379e7938a3139c742a987b76300d4bf601e02"  # sha256 of its rows before there were folds


def _sample(**changes: Any) -> MNISTDataModule:
    data = MNISTDataModule("mnist_sample", str(SAMPLE_DIR), **changes)
    data.setup()
    return data


def _rows(data: MNISTDataModule) -> list[torch.Tensor]:
    return [data.train_set.rows, data.val_set.rows, data.test_set.rows]


def _random_labels(num_rows: int, seed: int) -> torch.Tensor:
    """Return labels [num_rows] of up to six classes of very different sizes, in random order."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(6, generator=generator) ** 3 + 0.001
    return torch.multinomial(shares, num_rows, replacement=True, generator=generator)


# --- the folds


@pytest.mark.parametrize("num_rows", [2, 7, 60, 1001])
@pytest.mark.parametrize("num_folds", [2, 3, 5, 10])
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_folds_are_disjoint_complete_even_and_hold_each_class_evenly(num_rows: int, num_folds: int, seed: int) -> None:
    if num_folds > num_rows:
        with pytest.raises(UserError, match=rf"data\.num_folds={num_folds}: there are only {num_rows} rows"):
            split_fold(torch.zeros(num_rows), 0, num_folds, seed)
        return
    labels = _random_labels(num_rows, seed)
    cuts = [split_fold(labels, fold, num_folds, seed) for fold in range(num_folds)]
    everything = torch.arange(num_rows)
    assert torch.equal(torch.cat([val for _, val in cuts]).sort().values, everything)
    assert all(torch.equal(torch.cat(parts).sort().values, everything) for parts in cuts)
    sizes = [len(val) for _, val in cuts]
    assert max(sizes) - min(sizes) <= 1
    classes = torch.stack([torch.bincount(labels[val], minlength=6) for _, val in cuts])
    assert int((classes.max(0).values - classes.min(0).values).max()) <= 1


def test_folds_depend_on_their_seed_alone() -> None:
    labels = _random_labels(500, seed=3)
    torch.manual_seed(1)
    train, val = split_fold(labels, 2, 5, seed=42)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    train_again, val_again = split_fold(labels, 2, 5, seed=42)
    assert torch.equal(torch.get_rng_state(), state), "cutting must not touch the global generator"
    assert torch.equal(train, train_again)
    assert torch.equal(val, val_again)
    assert not torch.equal(val, split_fold(labels, 2, 5, seed=43)[1])


def test_only_the_given_rows_are_split_in_any_order() -> None:
    labels = _random_labels(300, seed=5)
    rows = torch.arange(0, 300, 3)
    train, val = split_fold(labels, 1, 4, seed=0, rows=rows)
    assert torch.equal(torch.cat([train, val]).sort().values, rows)
    assert torch.equal(split_fold(labels, 1, 4, seed=0, rows=rows.flip(0))[1], val)


def test_the_docstring_examples_are_true() -> None:
    result = doctest.testmod(splits)
    assert (result.attempted, result.failed) == (6, 0)


def test_a_stratified_split_keeps_the_class_fractions() -> None:
    labels = torch.tensor([0] * 700 + [1] * 200 + [2] * 100)
    parts = stratified_split(labels, [100, 53], seed=7)
    assert [len(part) for part in parts] == [100, 53, 847]
    assert torch.bincount(labels[parts[0]]).tolist() == [70, 20, 10]
    assert torch.allclose(torch.bincount(labels[parts[1]]) / 53, torch.tensor([0.7, 0.2, 0.1]), atol=0.03)


# --- the data sets


def test_the_split_without_folds_is_unchanged() -> None:
    rows = b"".join(rows.numpy().tobytes() for rows in _rows(_sample()))
    assert hashlib.sha256(rows).hexdigest() == CUT


def test_the_test_images_of_the_sample_are_in_no_fold() -> None:
    without = _sample()
    held_out = []
    for fold in range(5):
        data = _sample(fold=fold, num_folds=5)
        train, val, test = _rows(data)
        assert torch.equal(test, without.test_set.rows)
        assert torch.equal(torch.cat([train, val, test]).sort().values, torch.arange(5000))
        assert torch.bincount(data.val_set.store.labels[val]).tolist() == [90] * 10
        held_out.append(val)
    assert len(set(torch.cat(held_out).tolist())) == 4500


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_data_set_with_its_own_test_set_splits_all_training_rows_into_folds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, files = tiny_dataset()
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    monkeypatch.setitem(DATASETS, name, family)
    held_out = []
    for fold in range(3):
        data = MNISTDataModule(name, str(tmp_path), fold=fold, num_folds=3)  # type: ignore[arg-type]
        data.prepare_data()
        data.setup()
        train, val, test = _rows(data)
        assert (len(train) + len(val), len(test)) == (200, 50)
        held_out.append(val)
    assert torch.cat(held_out).sort().values.tolist() == list(range(200))


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 5, "num_folds": 5}, r"data\.fold=5: must be between 0 and data\.num_folds - 1 = 4"),
        ({"fold": -1, "num_folds": 5}, r"data\.fold=-1: must be between 0 and data\.num_folds - 1 = 4"),
        ({"fold": 0, "num_folds": 1}, r"data\.num_folds=1: must be 2 or more"),
        ({"fold": 0}, r"data\.num_folds: missing, and data\.fold=0 needs it"),
        ({"num_folds": 5}, r"data\.fold: missing, so data\.num_folds=5 has no effect"),
        ({"fold": 0.5, "num_folds": 5}, r"data\.fold=0\.5: must be a whole number"),
        ({"fold": 0, "num_folds": 5, "val_size": 500}, r"data\.val_size=500: has no effect with folds"),
    ],
)
def test_an_invalid_fold_is_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        MNISTDataModule("mnist_sample", "x", **arguments)
    assert len(caught.value.findings) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.num_folds=5", "data.fold=5"], ["data.fold=5: must be between 0 and data.num_folds - 1 = 4"]),
        (["data.fold=0"], ["data.num_folds: missing, and data.fold=0 needs it. Add e.g. data.num_folds=5."]),
        (["data.num_folds=3"], ["data.fold: missing, so data.num_folds=3 has no effect. Add -m 'data.fold=range(3)'"]),
        (
            ["data.num_folds=1", "data.fold=-1", "data.val_size=500", "data.batch_size=0"],
            [
                "data.val_size=500: has no effect with folds",
                "data.fold=-1: must be between 0 and data.num_folds - 1",
                "data.num_folds=1: must be 2 or more",
                "data.batch_size=0: must be 1 or more",
            ],
        ),
        (["data.num_folds=2.5", "data.fold=0"], ["data.num_folds=2.5: MNISTDataModule wants a whole number"]),
        (["data.num_folds=5", "data.fold=4", "data.val_size=null"], []),
        (["data.val_size=400"], []),
    ],
)
def test_all_fold_errors_of_a_config_are_reported_at_once(words: list[str], said: list[str]) -> None:
    lines = [finding.line for finding in find_problems(compose_raw(*words))]
    assert len(lines) == len(said)
    for part in said:
        assert sum(part in line for line in lines) == 1, (part, lines)


def test_other_arguments_named_fold_are_not_checked() -> None:
    assert list(check_folds(ConfigView(OmegaConf.create({"data": {"fold": 3, "val_size": 10}})))) == []


@pytest.mark.parametrize("data", DATA)
def test_every_data_config_takes_a_fold(data: str) -> None:
    assert find_problems(compose_raw(f"data={data}", "data.fold=1", "data.num_folds=2")) == []


# --- the sweep


def test_folds_are_summarised_like_seeds(tmp_path: Path) -> None:
    for number, acc in enumerate([0.8, 0.9, 1.0, 0.5]):
        lr = "lr=0.1" if number < 3 else "lr=0.2"
        job(tmp_path, number, ["data.num_folds=3", lr, f"data.fold={number % 3}", "seed=1"], acc)
    first, second = summarise(tmp_path)
    assert (first.values, len(first.runs), first.in_folds) == (("lr=0.1",), 3, True)
    found = first.spread("test/acc")
    assert found is not None
    assert (found.mean, found.deviation) == pytest.approx((0.9, 0.1))
    assert (second.values, len(second.runs)) == (("lr=0.2",), 1)


def test_one_fold_for_all_jobs_is_no_cross_validation(tmp_path: Path) -> None:
    for number in range(2):
        job(tmp_path, number, ["data.num_folds=3", "data.fold=1", f"seed={number}"], 0.5)
    [row] = summarise(tmp_path)
    assert (row.values, len(row.runs), row.in_folds) == ((), 2, False)


@pytest.mark.slow
def test_a_sweep_over_folds_ends_with_one_row_of_the_mean_of_their_validation(tmp_path: Path) -> None:
    done = run_cli("train", *SMALL, "-m", "data.num_folds=3", "data.fold=range(3)", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "train" / "multiruns").iterdir()
    accuracies = [read_json(sweep / name / "results.json")["metrics"]["val/acc"] for name in "012"]
    assert len(set(accuracies)) > 1, "other images are held out"
    with (sweep / "summary.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["values"], row["jobs"], row["failed"]) == ("", "3", "0")
    assert float(row["val/acc mean"]) == pytest.approx(mean(accuracies))
    assert float(row["val/acc std"]) == pytest.approx(stdev(accuracies))
    found = spread(accuracies)
    assert format_spread(found.mean, found.half_width) in done.stdout
