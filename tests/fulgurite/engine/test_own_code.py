"""Code as people write it: what trains is not refused, and what is refused is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from fulgurite.config.compose import compose
from fulgurite.config.view import ConfigView
from fulgurite.engine.build import build
from fulgurite.validation.targets import check_targets
from fulgurite.validation.validate import validate
from tests.support.compose import findings, with_file
from tests.support.own_code import own_package
from tests.support.own_configs import CONFIGS, SMALL
from tests.support.own_idioms import IDIOMS

ALL = CONFIGS | IDIOMS


@pytest.fixture(scope="module", autouse=True)
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("own")
    with own_package(folder):
        yield folder


@pytest.mark.parametrize("name", ALL)
def test_a_config_of_a_public_project_is_not_refused_and_trains(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    search = with_file(tmp_path, "experiment/ours.yaml", f"# @package _global_\n{ALL[name]}\n")
    cfg = compose([*search, "experiment=ours", *SMALL], output_dir=tmp_path / "run")
    (tmp_path / "run").mkdir()
    validate(cfg)
    run = build(cfg)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    assert run.trainer.global_step == 1
    assert "not exact after a resume" not in caplog.text


def test_there_are_ninety() -> None:
    assert len(ALL) == len(CONFIGS) + len(IDIOMS) >= 90


def test_a_value_that_only_a_replaced_class_had_is_asked_for(tmp_path: Path) -> None:
    text = "data: {_target_: owncode.data.Points}\nmodel: {net: {_target_: owncode.nets.Small}}\n"
    search = with_file(tmp_path, "experiment/ours.yaml", f"# @package _global_\n{text}")
    (line,) = findings(*search, "experiment=ours")
    assert line.startswith("configs/model/classifier.yaml:3: model.num_classes")
    assert line.endswith("refers to a key that does not exist: Points does not take it. Set model.num_classes=<value>")


def test_the_range_of_a_name_holds_for_the_shipped_classes_only(tmp_path: Path) -> None:
    """A number that a class of the user's own takes as `all` or `none` is not refused for its name."""
    model = "model: {_target_: owncode.lit.Anything, width: 3, num_classes: 0, batch_size: -1, num_folds: 0}\n"
    own = f"{model}data: {{_target_: owncode.data.FolderData, num_workers: -1, num_classes: 0, batch_size: 0, fold: 9}}"
    search = with_file(tmp_path, "experiment/ours.yaml", f"# @package _global_\n{own}\n")
    assert findings(*search, "experiment=ours") == []
    shipped = "# @package _global_\ndata: {num_workers: -1, num_classes: 0, batch_size: 0, num_folds: 1}\n"
    lines = findings(*with_file(tmp_path, "experiment/ours.yaml", shipped), "experiment=ours")
    assert len([line for line in lines if f"{tmp_path}/experiment/ours.yaml:2: data." in line]) == 4


def test_a_value_that_an_annotation_excludes_is_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "model: {_target_: owncode.lit.Plain, width: 0.5, dropout: x, steps: a}\ndata: {num_workers: 0}\n"
    search = with_file(tmp_path, "experiment/ours.yaml", f"# @package _global_\n{text}")
    cfg = compose([*search, "experiment=ours"], output_dir=tmp_path / "run")
    with caplog.at_level("WARNING"):
        validate(cfg)
    # the defaults of dropout and steps break their annotations, which are not believed
    assert [record.getMessage().rpartition("model.")[2] for record in caplog.records] == [
        "width=0.5: Plain wants a whole number. The value is passed as it is"
    ]


MODES = """
from enum import Enum, auto
from typing import List, Literal, Optional


class Mode(Enum):
    LOW = 1
    HIGH = 2


class Size(str, Enum):
    SMALL = "s"
    BIG = "b"


class Step(Enum):
    ONE = auto()
    TWO = auto()


class Open(Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value):
        return cls.A


class Net:
    def __init__(self, mode: Mode = Mode.LOW, size: Optional[Size] = None, step: "Step" = Step.ONE,
                 act: Literal["relu", "tanh"] = "relu", modes: List[Mode] = (), any_: Open = Open.A):
        pass
"""
# arguments, what is said of each
CHOICES = {
    "{mode: medium}": "mode=medium: Net wants one of 'LOW', 'HIGH' (Mode)",
    "{mode: 3}": "mode=3: Net wants one of 'LOW', 'HIGH' (Mode)",
    "{size: xl}": "size=xl: Net wants one of 's', 'b' (Size) or null",
    "{step: three}": "step=three: Net wants one of 'ONE', 'TWO' (Step)",
    "{act: gelu}": "act=gelu: Net wants 'relu' or 'tanh'. Did you mean 'relu'?",
    "{modes: [LOW, medium]}": "modes: Net wants a list (one of 'LOW', 'HIGH' (Mode))",
    "{mode: LOW, size: s, step: ONE, act: tanh, modes: [low, 2], any_: x}": "",  # by name or by value
    "{mode: 2, size: BIG, step: 2, any_: b}": "",
}


@pytest.mark.parametrize("given", CHOICES)
def test_a_value_that_an_enum_or_a_literal_lacks_is_named_with_the_choices(given: str, own_code: Path) -> None:
    (own_code / "owncode/modes.py").write_text(MODES)
    cfg = OmegaConf.create({"vars": {"net": {"_target_": "owncode.modes.Net", **yaml.safe_load(given)}}})
    found = [finding for finding in check_targets(ConfigView(cfg)) if finding.is_warning]
    said = [f"vars.net.{CHOICES[given]}"] if CHOICES[given] else []
    assert [finding.line.removesuffix(" The value is passed as it is").removesuffix(".") for finding in found] == said
