"""What docs/configuration.md says of `explain` is what the command prints."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from fulgurite.explain.explain_cli import main
from tests.support.project import ROOT

PAGE = (ROOT / "docs/configuration.md").read_text()
SECTION = PAGE.split("## Where a value comes from")[1].split("\n## ")[0]


def test_the_shown_output_is_that_of_the_first_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = next(line for line in SECTION.splitlines() if line.startswith("python -m fulgurite explain"))
    [shown] = re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL)
    assert main(shlex.split(command)[4:]) == 0
    assert capsys.readouterr().out == shown


def test_the_order_of_the_table_is_that_in_which_places_apply(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", SECTION, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    order = ["`configs/`", "`experiment`", "`optimizer`", "`debug`", "the command line"]
    positions = [next(at for at, (_, place) in enumerate(rows) if name in place) for name in order]
    assert positions == sorted(positions)
    options = sorted((ROOT / "configs/optimizer").glob("*.yaml"))
    option = next(path.stem for path in options if "lr:" in path.read_text())  # you may have replaced each of them
    overrides = [
        "experiment=example",
        f"optimizer={option}",
        "debug=limit",
        "model.optimizer.lr=3",
        "trainer.max_epochs=4",
    ]
    assert main(["model.optimizer.lr", "trainer.max_epochs", "--json", *overrides]) == 0
    rate, epochs = json.loads(capsys.readouterr().out)
    assert folders(rate) == ["model", "experiment", "optimizer", "command line"]
    assert folders(epochs) == ["trainer", "experiment", "debug", "command line"]


def folders(explanation: dict[str, Any]) -> list[str]:
    """Return the group of each place, or `command line`, each once."""
    return list(dict.fromkeys(folder_of(place["place"]) for place in explanation["places"]))


def folder_of(place: str) -> str:
    """Return the group of a place, or `command line`."""
    return place.split("/")[1] if place.startswith("configs/") else place.partition(":")[0]
