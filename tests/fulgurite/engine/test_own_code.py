"""Code as people write it: what trains is not refused, and what is refused is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fulgurite.config.compose import compose
from fulgurite.engine.build import build
from fulgurite.validation.validate import validate
from tests.support.compose import findings, with_file
from tests.support.own_code import own_package
from tests.support.own_configs import CONFIGS, SMALL


@pytest.fixture(scope="module", autouse=True)
def _own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_package(tmp_path_factory.mktemp("own")):
        yield


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_of_a_public_project_is_not_refused_and_trains(name: str, tmp_path: Path) -> None:
    search = with_file(tmp_path, "experiment/mine.yaml", f"# @package _global_\n{CONFIGS[name]}\n")
    cfg = compose([*search, "experiment=mine", *SMALL], output_dir=tmp_path / "run")
    (tmp_path / "run").mkdir()
    validate(cfg)
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert run.trainer.global_step == 1


def test_there_are_sixty() -> None:
    assert len(CONFIGS) >= 60


def test_a_value_that_only_a_replaced_class_had_is_asked_for(tmp_path: Path) -> None:
    text = "data: {_target_: owncode.data.Points}\nmodel: {net: {_target_: owncode.nets.Small}}\n"
    search = with_file(tmp_path, "experiment/mine.yaml", f"# @package _global_\n{text}")
    (line,) = findings(*search, "experiment=mine")
    assert line.startswith("configs/model/classifier.yaml:3: model.num_classes")
    assert line.endswith("refers to a key that does not exist: Points does not take it. Set model.num_classes=<value>")


def test_a_value_that_an_annotation_excludes_is_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "model: {_target_: owncode.lit.Plain, width: 0.5, dropout: x, steps: a}\ndata: {num_workers: 0}\n"
    search = with_file(tmp_path, "experiment/mine.yaml", f"# @package _global_\n{text}")
    cfg = compose([*search, "experiment=mine"], output_dir=tmp_path / "run")
    with caplog.at_level("WARNING"):
        validate(cfg)
    # the defaults of dropout and steps break their annotations, which are not believed
    assert [record.getMessage().rpartition("model.")[2] for record in caplog.records] == [
        "width=0.5: Plain wants a whole number. The value is passed as it is"
    ]
