"""What cannot resume exactly is named once and recorded."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from fulgurite.config.compose import compose
from fulgurite.core.context import ProcessContext, set_context
from fulgurite.core.exactness import name_inexact
from fulgurite.engine.record import RunRecord


@pytest.fixture(autouse=True)
def own_context() -> Iterator[None]:
    set_context(ProcessContext())
    yield
    set_context(ProcessContext())


def test_a_finding_is_logged_once_and_stands_in_run_json(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = RunRecord(_config(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text())["exact"] is True
    for _ in range(2):
        name_inexact("data.sampler", "its order is unknown")
    assert caplog.text.count("not exact after a resume: data.sampler: its order is unknown") == 1
    record.write(status="done")
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["exact"], found["inexact"]) == (False, ["data.sampler: its order is unknown"])


def test_the_next_run_of_the_process_starts_without_findings(tmp_path: Path) -> None:
    RunRecord(_config(tmp_path))
    name_inexact("model.cache", "it cannot be saved")
    RunRecord(_config(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text())["inexact"] == []


def _config(folder: Path) -> DictConfig:
    cfg = compose([])
    OmegaConf.update(cfg, "paths.output_dir", str(folder))
    return cfg
