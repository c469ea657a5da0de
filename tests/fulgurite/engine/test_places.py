"""What is wrong with a value of a file has that file and line, also where the run finds it late."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fulgurite.core.errors import ConfigError, UserError
from fulgurite.engine.build import build
from fulgurite.engine.outcome import classify_error
from tests.fulgurite.engine.test_usage_errors import composed
from tests.support.compose import with_file

TEXT = "# @package _global_\nmonitor: val/x\nvars: {names: [a, b]}\ntrainer: {accelerator: tpu}\n"


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
def test_missing_hardware_has_the_place_that_asks_for_it(tmp_path: Path) -> None:
    with composed("trainer=gpu", folder=tmp_path) as cfg, pytest.raises(ConfigError) as caught:
        build(cfg)
    (line,) = caught.value.findings
    assert re.match(r"configs/trainer/gpu\.yaml:\d+: trainer.accelerator=gpu: this machine has no CUDA", line)
    with composed("trainer.accelerator=tpu", folder=tmp_path) as cfg, pytest.raises(ConfigError) as caught:
        build(cfg)
    assert caught.value.findings[0].startswith("command line: trainer.accelerator=tpu: torch_xla finds no TPU here")


# what a run raises, and its reason
LATE = {
    "monitor=val/x: the run logs no such metric": "{file}:2: monitor=val/x: the run logs no such metric",
    "trainer.accelerator=gpu: another value": "trainer.accelerator=gpu: another value",
    "resume=auto: not a value of a file": "resume=auto: not a value of a file",
    "seed=7: typed": "seed=7: typed",
    "vars.names: has no value in the line": "vars.names: has no value in the line",
    "/data/x.ckpt: is missing": "/data/x.ckpt: is missing",
}


@pytest.mark.parametrize("kind", [UserError, ConfigError])
def test_an_error_amid_a_run_has_the_place_of_the_value_that_it_names(
    kind: type[UserError], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = with_file(tmp_path, "experiment/ours.yaml", TEXT)
    error = ConfigError([*LATE]) if kind is ConfigError else UserError("\n".join(LATE))
    with composed(*search, "experiment=ours", "seed=7", folder=tmp_path) as cfg:
        reason = classify_error(error, cfg).reason
        assert classify_error(error, cfg).reason == reason, "places are added once"
    expected = [line.format(file=f"{tmp_path}/experiment/ours.yaml") for line in LATE.values()]
    assert reason == "; ".join(expected)
    assert str(error).splitlines() == expected
