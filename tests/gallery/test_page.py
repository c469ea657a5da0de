"""The page of the gallery is what its script writes, and what it shows lies in the required ranges."""

from __future__ import annotations

import json

import pytest

from scripts.gallery import PAGE, RECORD, ROOT, page
from scripts.gallery_entries import ENTRIES, Entry

MEASURED = json.loads(RECORD.read_text())


def test_the_page_holds_the_recorded_results() -> None:
    assert f"\n{page()}\n" in PAGE.read_text()


def test_every_experiment_has_an_entry() -> None:
    files = {path.stem for path in (ROOT / "configs/experiment/gallery").glob("*.yaml")}
    entries = {entry.overrides.split()[0].removeprefix("experiment=gallery/") for entry in ENTRIES}
    assert entries == files


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.name in MEASURED], ids=lambda entry: entry.name)
def test_the_recorded_results_lie_in_the_required_range(entry: Entry) -> None:
    values = MEASURED[entry.name]["values"]
    assert values.keys() == {str(band) for band in entry.bands}
    for band in entry.bands:
        assert all(map(band.holds, values[str(band)]))
        assert len(values[str(band)]) == (1 if entry.folds else entry.seeds)
