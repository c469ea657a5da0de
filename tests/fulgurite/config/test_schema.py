"""The schema of the library's keys: defaults, the config files beside it, and the keys of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from fulgurite.config.compose import compose
from fulgurite.config.schema import (
    GROUPS,
    MOVED,
    TOP_LEVEL,
    Distributed,
    Extras,
    Resilience,
    describe_move,
    field_types,
    move_keys,
    move_override,
    read_settings,
)
from fulgurite.core.errors import ConfigError
from fulgurite.core.project import project_root
from fulgurite.engine.saved_run import load_run
from fulgurite.validation.validate import validate
from tests.support.cli import run_cli

CONFIGS = project_root() / "configs"


@pytest.mark.parametrize("schema", [Extras, Resilience, Distributed])
def test_the_defaults_of_the_schema_are_those_of_its_config_file(schema: type[Any]) -> None:
    content = yaml.safe_load((CONFIGS / schema.group / "default.yaml").read_text())
    assert vars(schema()) == content


def test_every_group_of_a_composed_config_has_the_keys_of_its_schema() -> None:
    cfg = compose()
    for schema in GROUPS:
        assert set(cfg[schema.group]) == set(field_types(schema))
    assert set(TOP_LEVEL) - {"hydra", "run", "logger", "vars"} == set(map(str, cfg))


def test_a_missing_key_has_the_default_and_a_given_one_its_type() -> None:
    assert read_settings(OmegaConf.create({}), Distributed) == Distributed()
    given = OmegaConf.create({"distributed": {"rank_timeout_seconds": 5, "interfaces": ["lo"], "init_method": None}})
    read = read_settings(given, Distributed)
    assert (read.rank_timeout_seconds, read.interfaces, read.init_method) == (5.0, ["lo"], None)
    assert type(read.rank_timeout_seconds) is float
    assert type(read.interfaces) is list


def test_the_saved_config_of_an_earlier_version_is_read_where_its_keys_were(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    old = OmegaConf.to_container(compose())
    assert isinstance(old, dict)
    del old["resilience"], old["distributed"]
    old["extras"] |= {"grace_seconds": 7, "rank_timeout": 11, "tracker_timeout": 3, "exact_resume": False}
    old["trainer"]["strategy"] = {"timeout": {"seconds": "${extras.rank_timeout}"}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(old))
    cfg = load_run(folder).cfg
    assert read_settings(cfg, Resilience) == Resilience(exact_resume=False, grace_seconds=7, logger_timeout_seconds=3)
    assert read_settings(cfg, Distributed).rank_timeout_seconds == cfg.trainer.strategy.timeout.seconds == 11
    moved = move_keys(cfg)
    assert read_settings(moved, Resilience) == read_settings(cfg, Resilience)
    assert not {key.partition(".")[2] for key in MOVED} & set(moved.extras)
    assert moved.trainer.strategy.timeout.seconds == 11


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("extras.rank_timeout=10", "distributed.rank_timeout_seconds=10"),
        ("+extras.comm_env.NCCL_DEBUG=INFO", "+distributed.comm_env.NCCL_DEBUG=INFO"),
        ("~extras.interfaces", "~distributed.interfaces"),
    ],
)
def test_an_override_of_an_earlier_version_is_refused_with_the_new_one(old: str, new: str) -> None:
    assert describe_move(old) == f"moved. Use {new}."
    assert move_override(old) == new
    assert (describe_move(new), move_override(new)) == (None, new)


def test_the_command_line_refuses_a_moved_key_in_one_line(tmp_path: Path) -> None:
    for override in ("extras.rank_timeout=10", "++extras.rank_timeout=10"):
        done = run_cli("train", override, logs=tmp_path)
        assert done.returncode == 2
        assert f"command line: {override}: moved. Use distributed.rank_timeout_seconds=10." in done.stderr


def test_a_file_with_a_moved_key_or_a_reference_to_it_is_refused() -> None:
    cfg = compose(["++extras.grace_seconds=5", "++extras.comm_env.NCCL_DEBUG=INFO", "++trainer.x=${extras.interfaces}"])
    with pytest.raises(ConfigError) as refused:
        validate(cfg)
    lines = str(refused.value).splitlines()
    assert "extras.grace_seconds=5: moved. Use resilience.grace_seconds=5." in lines
    assert "extras.comm_env: moved. Use distributed.comm_env." in lines
    assert any(
        "${extras.interfaces} refers to a key that does not exist. Use ${distributed.interfaces}" in line
        for line in lines
    )
