"""Interpolations that multiply are refused before anything resolves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fulgurite.compat.hydra import VERSION_BASE
from fulgurite.compat.interpolations import Expansion
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import ConfigError
from tests.support.project import ROOT

LEVELS = 30  # 2 to the power of 30 values


def chain(link: str, last: str = "x", levels: int = LEVELS) -> str:
    """Return keys a0, a1, ..., each of which stands for two of the next; `NEXT` in the link is its path."""
    lines = [f"  a{level}: {link.replace('NEXT', f'vars.a{level + 1}')}\n" for level in range(levels)]
    return f"vars:\n{''.join(lines)}  a{levels}: {last}\n"


HOSTILE = {
    "text": chain("${NEXT}${NEXT}"),
    "long text": chain("'${NEXT}${NEXT}'", "x" * 50_000, levels=3),
    "list": chain("['${NEXT}', '${NEXT}']"),
    "dictionary": chain("{x: '${NEXT}', y: {z: '${NEXT}'}}"),
    "other resolvers": chain("'${oc.select:NEXT}${oc.select:nowhere,${NEXT}}'"),
    "decoded": chain('\'${oc.decode:"${NEXT}"}${oc.decode:"${NEXT}"}\''),
    "created": chain("'${oc.create:[${NEXT},${NEXT}]}'"),
    "values": chain("{x: '${oc.dict.values:vars}', y: '${NEXT}', z: '${NEXT}'}"),
    "indirect": chain("'${${oc.select:name}.${part}}'").replace("vars.a", "a")
    + "name: vars\npart: a1\nvars2: {a: '"
    + "${vars.a1}" * 3000
    + "'}\n",
    "environment at the end": chain("${NEXT}${NEXT}", "${oc.env:HOME}"),
    "time at the end": chain("${NEXT}${NEXT}", "${now:%Y}${hydra:job.name}"),
    "many in one text": "vars:\n  b: x\n  a: '" + "${vars.b}" * 2_001 + "'\n",
    "read by hydra": chain("${NEXT}${NEXT}")
    + "hydra:\n  job:\n    config:\n      override_dirname:\n        kv_sep: ${vars.a0}\n",
    "beside an error": chain("['${nowhere}', '${NEXT}', '${NEXT}']"),
}


def composed(path: Path, *more: str) -> Any:
    """Compose the training config with an experiment of a folder."""
    guard_configs()
    overrides = [f"hydra.searchpath=[{path}]", f"trust=[{path}]", "experiment=hostile", *more]
    with initialize_config_dir(**VERSION_BASE, config_dir=str(ROOT / "configs")):
        return compose("train", overrides=overrides)


@pytest.mark.parametrize("name", HOSTILE)
def test_interpolations_that_multiply_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/hostile.yaml").write_text(f"# @package _global_\n{HOSTILE[name]}")
    with pytest.raises(ConfigError, match=r"^(vars|hydra)\S+: its interpolations expand to more") as caught:
        composed(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_files_that_multiply_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "debug").mkdir()
    (tmp_path / "experiment/hostile.yaml").write_text(f"# @package _global_\n{chain('${NEXT}${NEXT}', '???', 8)}")
    more = chain("${NEXT}${NEXT}").replace("vars.a", "vars.b").replace("  a", "  b").replace("b0", "a8")
    (tmp_path / "debug/hostile.yaml").write_text(f"# @package _global_\n{more}")
    with pytest.raises(ConfigError, match=r"^vars\.a\d: its interpolations expand"):
        composed(tmp_path, "debug=hostile")


def test_no_resolver_with_an_effect_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    OmegaConf.register_new_resolver("effect", called.append, replace=True)
    cfg = OmegaConf.create(
        {"a": "${effect:x}", "b": "${oc.decode:'${effect:y}'}", "c": "${oc.select:nowhere,${effect:z}}"}
    )
    assert Expansion(100, 100).find_excess(cfg) == ""
    assert called == []
    assert cfg.a is None
    assert called == ["x"]
    OmegaConf.clear_resolver("effect")


def test_the_count_is_that_of_the_values_in_the_resolved_config() -> None:
    cfg = OmegaConf.create({"a": 1, "b": ["${a}", "${a}"], "c": {"d": "${b}", "e": "${b}"}, "f": "${c}"})
    # b has 2; c.d and c.e have 1 and the 4 of b; f has 1 and the 12 of c
    counted = [Expansion(limit, 100).find_excess(cfg) for limit in range(28)]
    assert [counted.index(key) for key in ("b[0]", "c.d", "c.e", "f", "")] == [0, 2, 7, 12, 25]


def test_the_shipped_configs_and_references_to_long_lists_pass(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    names = ", ".join(f"name{number}" for number in range(1000))
    uses = "".join(f"  use{number}: ${{vars.names}}\n" for number in range(9))
    (tmp_path / "experiment/hostile.yaml").write_text(f"# @package _global_\nvars:\n  names: [{names}]\n{uses}")
    assert len(composed(tmp_path).vars.use3) == 1000
