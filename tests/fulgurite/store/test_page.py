"""The example of docs/configuration.md runs as it stands there."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from fulgurite.store import Loader
from tests.support.project import ROOT

PAGE = (ROOT / "docs/configuration.md").read_text().split("\n## Store\n")[1].split("\n## ")[0]


def test_the_example_runs_and_prints_what_its_sources_say(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) <= 30
    env = {**os.environ, "PYTHONPATH": str(ROOT), "APP_OPTIMIZER__LR": "0.01"}
    (tmp_path / "live.yaml").write_text("optimizer: {lr: 0.5}\npatience: 7\n")

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env={**env, **more}, capture_output=True, text=True, check=False)

    assert run().stdout == "0.01 5 7 flags\n"
    assert run(APP_OPTIMIZER__LR="2").stderr.endswith("ValueError: optimizer.lr is above 1\n")


def test_the_page_names_all_options_with_their_defaults() -> None:
    parameters = inspect.signature(Loader).parameters
    for name, shown in (("required", "`true`"), ("stop_on_failure", "`false`"), ("max_retry", "0, 1 s")):
        row = next(line for line in PAGE.splitlines() if line.startswith("| ") and f"`{name}`" in line)
        assert row.split("|")[2].strip() == shown
        assert str(parameters[name].default).lower() in shown
    assert {name for name in parameters if f"`{name}`" in PAGE} == parameters.keys() - {"self"}
