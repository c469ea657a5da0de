"""What tests remember of parsed configs changes no result."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf, base

from tests.support.compose import compose_raw, with_file


def test_an_edited_file_is_read_again_at_the_same_size_and_time(tmp_path: Path) -> None:
    given = with_file(tmp_path, "extras/edited.yaml", "# @package _global_\nseed: 1111\n")
    assert compose_raw("extras=edited", *given).seed == 1111
    (tmp_path / "extras/edited.yaml").write_text("# @package _global_\nseed: 2222\n")
    assert compose_raw("extras=edited", *given).seed == 2222


def test_a_changed_config_does_not_change_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("layers: [1, 2]\n")
    with file.open() as opened:
        OmegaConf.load(opened).layers.append(3)
    with file.open() as opened:
        assert OmegaConf.load(opened).layers == [1, 2]


def test_a_broken_file_is_reported_with_its_name_each_time(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("a: [1\n")
    for _ in range(2):
        with file.open() as opened, pytest.raises(Exception, match=f'in "{file}", line'):
            OmegaConf.load(opened)


def test_an_interpolation_is_parsed_once_and_resolved_each_time() -> None:
    assert [OmegaConf.create({"a": value, "b": "${a}"}).b for value in (1, 2)] == [1, 2]
    parse = vars(base)["parse"]
    assert parse("${a}") is parse("${a}")
