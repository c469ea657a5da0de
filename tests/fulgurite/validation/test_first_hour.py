"""Mistakes of the first hour with one's own code: each is said at once, in one line, with its place and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.resume.shorthand import expand_shorthands
from tests.support.compose import compose_raw, findings, with_file

HEADER = "# @package _global_\n"
# text of an experiment file, line that is named, what is said
FILES = {
    "no package, with a defaults list": (
        "defaults:\n  - override /data: mnist\nseed: 3\n",
        1,
        "without its first line '# @package _global_' the keys of the file stand below 'experiment'. Add that line",
    ),
    "no package": (
        "model:\n  optimizer: {lr: 0.1}\n",
        2,
        "experiment: without its first line '# @package _global_' the keys of the file stand below 'experiment'",
    ),
    "override without a slash": (
        f"{HEADER}defaults:\n  - override data: mnist\n",
        3,
        "a group of another folder needs a slash. Write '- override /data: mnist'",
    ),
    "override without a slash, and no package": (
        "defaults:\n  - override model: mnist\n",
        2,
        "Write '- override /model: mnist', and '# @package _global_' as the first line",
    ),
    "no override": (
        f"{HEADER}defaults:\n  - /data: mnist\n  - _self_\n",
        3,
        "/data has a value already. Write '- override /data: mnist'",
    ),
    "target without src": (
        f"{HEADER}model:\n  net:\n    _target_: models.nets.dense.SimpleDenseNet\n",
        4,
        "a class of the project is named from its root. Write src.models.nets.dense.SimpleDenseNet",
    ),
    "target without src, below a folder of the root": (
        f"{HEADER}data:\n  _target_: data.mnist.MNISTDataModule\n",
        3,
        "Write src.data.mnist.MNISTDataModule",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_an_experiment_is_named_with_its_line_and_its_remedy(name: str, tmp_path: Path) -> None:
    text, number, said = FILES[name]
    (line,) = findings(*with_file(tmp_path, "experiment/mine.yaml", text), "experiment=mine")
    assert line.startswith(f"{tmp_path}/experiment/mine.yaml:{number}: ")
    assert said in line


@pytest.mark.parametrize("entry", ["override /data: mnist", "override /logger: csv"])
def test_entries_that_are_right_compose(entry: str, tmp_path: Path) -> None:
    search = with_file(tmp_path, "experiment/mine.yaml", f"{HEADER}defaults:\n  - {entry}\n")
    assert findings(*search, "experiment=mine") == []


def test_an_override_written_as_an_option_is_named() -> None:
    # argparse reads --experiment as its own --experimental-rerun
    said = r"^--experiment=x: .* dashes: experiment=x\n--seed: there is no such option\. .*: seed=<value>$"
    with pytest.raises(UserError, match=said):
        expand_shorthands(["--experiment=x", "--seed"], "train")
    right = ["--config-dir=a", "--cfg", "job", "--multirun", "--help", "-m", "--config", "b"]
    assert expand_shorthands(right, "train") == right


def test_resume_auto_says_that_it_starts_a_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fulgurite.resume.plan import plan_resume

    plan_resume(compose_raw("resume.run=auto", f"paths.log_dir={tmp_path}"))
    assert capsys.readouterr().err == "resume=auto: no unfinished run has this config. This starts a new run\n"
    plan_resume(compose_raw(f"paths.log_dir={tmp_path}"))
    assert capsys.readouterr().err == ""
