"""Ordinary users' code, killed and resumed, ends as if it had not been, or is named, or is refused: never silent."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
from lightning.pytorch import callbacks
from torch.optim import lr_scheduler
from torch.utils import data

from tests.support.shapes import hidden, loaders
from tests.support.shapes.docs import PAGE, with_table
from tests.support.shapes.runs import Outcome, judge
from tests.support.shapes.schedules import MAKE
from tests.support.shapes.shape import Shape
from tests.support.shapes.table import FAST, PENDING, SHAPES

# bases of others, and callbacks that print, measure, or save a file more
NO_TRAINING = {
    "BaseFinetuning",
    "BasePredictionWriter",
    "Callback",
    "Checkpoint",
    "DeviceStatsMonitor",
    "LambdaCallback",
    "ModelSummary",
    "OnExceptionCheckpoint",
    "ProgressBar",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "ThroughputMonitor",
    "WeightAveraging",
}


def _case(shape: Shape) -> object:
    marks = [] if shape.name in FAST else [pytest.mark.slow]
    if shape.needs and find_spec(shape.needs) is None:
        marks.append(pytest.mark.skip(reason=f"{shape.needs} is not installed"))
    if shape.name in PENDING:
        marks.append(pytest.mark.xfail(strict=True, reason=PENDING[shape.name]))
    return pytest.param(shape, id=shape.name, marks=marks)


@pytest.mark.parametrize("shape", [_case(shape) for shape in SHAPES])
def test_a_killed_and_resumed_run_is_what_its_shape_declares(shape: Shape, tmp_path: Path) -> None:
    outcome = judge(shape, tmp_path)
    report = "\n".join([*(f"{kind}: {line}" for kind, line in outcome.differences.items()), *outcome.lines])
    assert outcome.verdict == shape.expect, report
    if shape.expect != "equal":
        assert any(shape.line in line for line in outcome.lines), report
    if shape.expect == "refused":
        assert len(outcome.lines) == 1, report


def test_the_comparison_fails_where_exact_resume_is_off(tmp_path: Path) -> None:
    outcome: Outcome = judge(Shape("off", "control", overrides=["resilience.exact_resume=false"]), tmp_path)
    assert {"examples", "last.ckpt state_dict", "last.ckpt optimizer_states", "metrics.csv"} <= set(outcome.differences)


def test_no_two_shapes_share_a_name() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    assert {shape.name for shape in SHAPES} >= PENDING.keys() | FAST
    assert len(SHAPES) >= 60


def test_the_page_has_the_table_of_the_shapes() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "python -m tests.support.shapes.docs"


def test_each_scheduler_of_torch_is_a_shape() -> None:
    classes = {name for name, item in vars(lr_scheduler).items() if isinstance(item, type) and not name.startswith("_")}
    found = {name for name in classes if issubclass(getattr(lr_scheduler, name), lr_scheduler.LRScheduler)}
    assert found - {"LRScheduler"} == MAKE.keys() - {"SWALR"}


def test_each_sampler_of_torch_is_a_shape() -> None:
    found = {name for name, item in vars(data).items() if isinstance(item, type) and issubclass(item, data.Sampler)}
    source = "".join(inspect.getsource(module) for module in (loaders, hidden))
    assert {name for name in found - {"Sampler"} if f"{name}(" not in source} == set()


def test_each_callback_of_lightning_is_a_shape_or_changes_no_training() -> None:
    shapes = {shape.name.partition("(")[0] for shape in SHAPES if shape.kind == "Lightning's callbacks"}
    assert set(callbacks.__all__) - shapes - NO_TRAINING == set()
