"""Overrides and options as text."""

from __future__ import annotations

import pytest

from fulgurite.config.override_text import as_grammar, options_first, without_null_groups


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["seed=1,2", "-m"], ["-m", "seed=1,2"]),
        (["-m", "seed=1", "--config-dir", "a=b", "x=1"], ["-m", "--config-dir", "a=b", "seed=1", "x=1"]),
        (["seed=1", "--config-dir=a", "+x=-1", "~y"], ["--config-dir=a", "seed=1", "+x=-1", "~y"]),
        (["seed=1", "-cn", "eval"], ["-cn", "eval", "seed=1"]),
    ],
)
def test_options_may_be_written_anywhere(given: list[str], expected: list[str]) -> None:
    assert options_first(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ckpt_path=a/epoch=3.ckpt", "ckpt_path='a/epoch=3.ckpt'"),
        ("ckpt_path=a=1.ckpt,b=2.ckpt", "ckpt_path='a=1.ckpt','b=2.ckpt'"),
        ("ckpt_path='a=1.ckpt'", "ckpt_path='a=1.ckpt'"),
        ("x={a: b=c}", "x={a: b=c}"),
        ("model.scheduler=choice(null,0.5)", "model.scheduler=null,0.5"),
        ("x=choice(nullable,2)", "x=choice(nullable,2)"),
        ("~x", "~x"),
        ("seed=1,2", "seed=1,2"),
    ],
)
def test_an_override_is_written_for_the_grammar(given: str, expected: str) -> None:
    assert as_grammar(given) == expected


def test_a_group_of_null_is_removed() -> None:
    given = ["experiment=null", "seed=null", "+experiment=null", "model=mnist"]
    assert without_null_groups(given, {"experiment", "model"}.__contains__) == ["~experiment", *given[1:]]
