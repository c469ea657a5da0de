"""Ordinary users' code, killed and resumed, ends as if it had not been, or is named, or is refused: never silent."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.shapes.runs import Outcome, judge
from tests.support.shapes.shape import Shape
from tests.support.shapes.table import PENDING, SHAPES


def _case(shape: Shape) -> object:
    marks = [] if shape.fast else [pytest.mark.slow]
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
    assert {shape.name for shape in SHAPES} >= PENDING.keys()
