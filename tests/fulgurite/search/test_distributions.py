"""Search spaces become the distributions that Hydra's plugin for Optuna makes, without the plugin."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from fulgurite.compat.hydra import IS_1_3
from fulgurite.search.distributions import from_node, from_override
from fulgurite.search.space import read_space

PLUGIN = "hydra_plugins.hydra_optuna_sweeper._impl"
SWEEPS = [
    "x=choice(1,2)",
    "x=choice(a,0.5,true,'b c')",
    "x=a,null",
    "x=1,2,3",
    "x=choice([1,2],[3,4])",
    "x=shuffle(a,b,c)",
    "x=shuffle(range(1,5))",
    "x=interval(1,9)",
    "x=interval(-1.5,0.1)",
    "x=interval(3,3)",
    "x=int(interval(1,9))",
    "x=tag(log,interval(1e-4,0.1))",
    "x=tag(log,int(interval(1,64)))",
    "x=tag(other,interval(0,1))",
    "x=float(interval(1,9))",
]
RANGES = {
    "x=range(1,9)": (1, 8, 1),
    "x=range(0,10,4)": (0, 8, 4),
    "x=range(9,1,-2)": (3, 9, 2),
    "x=range(0,1,0.25)": (0.0, 0.75, 0.25),
    "x=range(1.5,0,-0.5)": (0.5, 1.5, 0.5),
    "x=range(3)": (0, 2, 1),
    "x=float(range(1,4))": (1.0, 3.0, 1.0),
}
NODES: list[dict[str, Any]] = [
    {"type": "categorical", "choices": [16, 32]},
    {"type": "int", "low": 1, "high": 9},
    {"type": "int", "low": 1, "high": 9, "step": 4},
    {"type": "int", "low": 1, "high": 64, "log": True},
    {"type": "float", "low": 0, "high": 1},
    {"type": "float", "low": 0.001, "high": 0.1, "log": True},
    {"type": "float", "low": 0.0, "high": 1.0, "step": 0.25},
]


def parsed(text: str) -> Override:
    """Return a fresh override: reading one may change it."""
    return OverridesParser.create().parse_overrides([text])[0]


def contents(distribution: Any) -> tuple[type, dict[str, Any]]:
    """Return the class and the attributes; choices without their order, which a shuffle makes random."""
    attributes = {name: value for name, value in vars(distribution).items() if name != "choices"}
    return type(distribution), attributes | {"choices": sorted(map(repr, getattr(distribution, "choices", ())))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("text", SWEEPS)
def test_a_sweep_is_the_distribution_of_the_plugin(text: str) -> None:
    plugin = pytest.importorskip(PLUGIN)
    ours, theirs = from_override(parsed(text)), plugin.create_optuna_distribution_from_override(parsed(text))
    assert contents(ours) == contents(theirs)
    if "shuffle" not in text:
        assert ours == theirs


@pytest.mark.parametrize("text", RANGES)
def test_a_range_ends_at_its_last_value(text: str) -> None:
    if text.startswith("x=float(") and not IS_1_3:
        pytest.skip("a cast range is categorical, as in the plugin for Hydra 1.4")
    found: Any = from_override(parsed(text))
    low, high, step = RANGES[text]
    assert (found.low, found.high, getattr(found, "q", None) or found.step) == (low, high, step)
    # the plugin for Hydra 1.3 takes the end of a range for a value, so it is given the range up to the last one
    plugin = pytest.importorskip(PLUGIN)
    same = f"x=range({low},{high},{step})" if IS_1_3 else text
    assert found == plugin.create_optuna_distribution_from_override(parsed(same))


@pytest.mark.skipif(not IS_1_3, reason="the plugin for Hydra 1.4 has no search_space")
@pytest.mark.parametrize("node", NODES)
def test_a_node_of_the_older_form_is_the_distribution_of_the_plugin(node: dict[str, Any]) -> None:
    plugin = pytest.importorskip(PLUGIN)
    assert from_node(node) == plugin.create_optuna_distribution_from_config(node)


@pytest.mark.parametrize("text", ["x=glob(*)", "x=range(1,1)", "x=interval(5,1)", "x=tag(log,interval(0,1))"])
def test_a_sweep_that_is_not_a_space_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_override(parsed(text))


@pytest.mark.parametrize(
    "node", [3, {}, {"type": "int", "low": 1}, {"type": "text"}, {"type": "float", "low": 1, "high": 2, "max": 3}]
)
def test_a_node_that_is_not_a_space_is_refused(node: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        from_node(node)


def test_a_space_is_read_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hydra_plugins.hydra_optuna_sweeper")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_optuna_sweeper", None)
    with pytest.raises(ImportError):
        importlib.import_module(PLUGIN)
    older = {"lr": {"type": "float", "low": 0.1, "high": 1.0}}
    space = read_space(["n=choice(1,2)"], OmegaConf.create({"search_space": older}))
    assert space.boundary_points() == [("lr=0.1", "n=1"), ("lr=1.0", "n=1"), ("lr=0.1", "n=2")]
