"""`scripts/gallery.py run` records what entries measure, and reports those that fail without losing the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from scripts import gallery
from scripts.gallery_entries import Band, Entry
from tests.gallery.files import SAMPLE
from tests.support.project import CONFIGS


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(gallery, "RECORD", tmp_path / "gallery.json")


def test_an_entry_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = (Band("train/loss", most=1000), Band("val/loss", most=0))
    good = Entry("good", "", "1", "experiment=gallery/linear_regression trainer.max_epochs=1", "", shown, seeds=1)
    bad = Entry("bad", "", "1", "experiment=gallery/linear_regresion", "", shown, seeds=1)
    monkeypatch.setattr(gallery, "ENTRIES", [bad, good])
    assert gallery.main(["run"]) == 1
    record = json.loads((tmp_path / "gallery.json").read_text())
    assert list(record) == ["good"]
    assert record["good"]["missed"] == ["val/loss <= 0"]
    assert 0 < record["good"]["values"]["train/loss <= 1000"][0] < 1000
    assert record["good"]["cpu_minutes"] > 0
    failed, missed = capfd.readouterr().err.splitlines()
    assert failed.startswith("error: bad: ")
    assert "Did you mean 'gallery/linear_regression'" in failed
    assert missed == "error: good: val/loss <= 0 is missed"


def test_unknown_entries_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gallery.main(["run", "lenet", "lennet"]) == 2
    assert capsys.readouterr().err.startswith("error: lennet: there is no such entry. There is linear_regression, ")
    assert not (tmp_path / "gallery.json").exists()


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_the_slice_of_few_batches_holds_for_each_length_of_the_data(name: str) -> None:
    limit = OmegaConf.load(CONFIGS / "slice/few_batches.yaml").trainer[f"limit_{name}_batches"]
    assert type(limit) is int  # Lightning refuses a share that is less than one batch
    assert limit > 0


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["nin", "alexnet", "resnet18_small_stem"])
def test_it_trains_the_nets_that_the_page_names(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = f"experiment=gallery/{experiment} +slice=few_batches data.batch_size=8 {' '.join(SAMPLE)}"
    entry = Entry(experiment, "", "1", overrides, "", (Band("train/loss"),), seeds=1)
    monkeypatch.setattr(gallery, "ENTRIES", [entry])
    assert gallery.main(["run"]) == 0
