"""The example of docs/configuration.md runs as it stands there."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest

from fulgurite.store import Loader
from tests.support.project import ROOT

PAGE = (ROOT / "docs/configuration.md").read_text().split("\n## Store\n")[1].split("\n## ")[0]


def test_the_example_runs_and_prints_what_its_sources_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) <= 30
    (tmp_path / "live.yaml").write_text("optimizer: {lr: 0.5}\npatience: 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP_OPTIMIZER__LR", "0.01")
    program = tmp_path / "example.py"
    program.write_text(code)
    runpy.run_path(str(program))
    assert capsys.readouterr().out == "0.01 5 7 flags\n"
    monkeypatch.setenv("APP_OPTIMIZER__LR", "2")
    with pytest.raises(ValueError, match=r"optimizer.lr is above 1"):
        runpy.run_path(str(program))


def test_the_page_names_all_options_with_their_defaults() -> None:
    parameters = inspect.signature(Loader).parameters
    for name, shown in (("required", "`true`"), ("stop_on_failure", "`false`"), ("max_retry", "0, 1 s")):
        row = next(line for line in PAGE.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        assert row.split("|")[2].strip() == shown
        assert str(parameters[name].default).lower() in shown
    assert {name for name in parameters if f"`{name}`" in PAGE} == parameters.keys() - {"self"}
