"""Names, folders and numbers that no run can have are refused in one line before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import ConfigError, explain_file_error
from fulgurite.core.project import prepare_environment
from fulgurite.trust import composed as composed_module
from fulgurite.trust.composed import name_faults
from fulgurite.trust.walk import look_up
from tests.support.cli import run_cli
from tests.support.compose import compose_raw
from tests.support.project import CONFIGS

LONG = "a" * 256


def composed(*overrides: str) -> None:
    prepare_environment()
    guard_configs()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        compose("train", overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("task_name=a/b", "task_name=a/b: is not the name of a folder. Name one folder, e.g. task_name=train."),
        ("task_name=..", "task_name=..: is not the name of a folder."),
        ("task_name=../../x", "task_name=../../x: is not the name of a folder."),
        ("task_name=/tmp/x", "task_name=/tmp/x: is not the name of a folder."),
        ("task_name=''", "task_name=: is not the name of a folder."),
        ("task_name=${monitor}", "task_name=val/acc: is not the name of a folder."),
        ('task_name="a\nb"', r"task_name=a\x0ab: is not the name of a folder."),
        ('task_name="a\u2028b"', r"task_name=a\x2028b: is not the name of a folder."),
        ('task_name="a\udcff"', r"task_name=a\xdcff: is not the name of a folder."),
        (f"task_name={LONG}", f"task_name={'a' * 40}...: has 256 bytes, and the name of a task may have 200."),
        (f"hydra.run.dir=/tmp/{LONG}/x", f"hydra.run.dir=/tmp/{'a' * 35}...: a name in it has 256 bytes"),
        (f"paths.log_dir=/tmp/{LONG}", f"paths.log_dir=/tmp/{'a' * 35}...: a name in it has 256 bytes"),
        ("paths.log_dir=''", "paths.log_dir=: is empty. Name a folder."),
        ("hydra.run.dir=''", "hydra.run.dir=: is empty. Name a folder."),
        ("hydra.sweep.dir=''", "hydra.sweep.dir=: is empty. Name a folder."),
        ("hydra.sweep.subdir=..", "hydra.sweep.subdir=..: leads out of the folder of the sweep."),
        ("hydra.sweep.subdir=/tmp/x", "hydra.sweep.subdir=/tmp/x: leads out of the folder of the sweep."),
        ("monitor=''", "monitor=: is empty."),
        ("resilience.grace_seconds=-5", "resilience.grace_seconds=-5: is not a number of seconds from 0 to "),
        ("resilience.worker_timeout_seconds=-0.5", "resilience.worker_timeout_seconds=-0.5: is not a number of"),
        ("resilience.logger_timeout_seconds=nan", "resilience.logger_timeout_seconds=nan: is not a number of"),
        ("distributed.rank_timeout_seconds=1e300", "distributed.rank_timeout_seconds=1e+300: is not a number of"),
        ("trainer.max_epochs=1e30", "trainer.max_epochs=1e+30: is not a whole number for Lightning."),
        ("trainer.max_epochs=1e3", "trainer.max_epochs=1000: is not a whole number for Lightning."),
        (f"trainer.max_epochs={10**30}", "trainer.max_epochs=1e+30: is more than any run takes."),
        ("data.num_workers=100000", "data.num_workers=100000: would start 100,000 processes."),
        ("+data.loader.num_workers=100000", "data.loader.num_workers=100000: would start 100,000 processes."),
        (
            "callbacks.model_checkpoint.dirpath=/dev/null/x",
            "callbacks.model_checkpoint.dirpath=/dev/null/x: /dev/null",
        ),
        (f"callbacks.model_checkpoint.filename={LONG}", f"callbacks.model_checkpoint.filename={'a' * 40}...: has 256"),
        ("callbacks.model_checkpoint.filename='{epoch'", "callbacks.model_checkpoint.filename={epoch: has braces"),
        ("callbacks.model_checkpoint.filename='{epoch:zz}'", "callbacks.model_checkpoint.filename={epoch:zz}: 'zz' is"),
        ("callbacks.model_checkpoint.filename='{0}'", "callbacks.model_checkpoint.filename={0}: {0} names no metric."),
        ('callbacks.last_checkpoint.filename="a\nb"', r"callbacks.last_checkpoint.filename=a\x0ab: holds a control"),
    ],
)
def test_an_odd_value_is_refused_with_its_key(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        composed(override)
    (found,) = raised.value.findings
    assert found.startswith(line)
    assert found.endswith(".")


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("hydra.run.dir", []),
        ("task_name", []),
        ("hydra.sweep.subdir", []),
        ("callbacks.model_checkpoint.filename", []),
        ("logger.csv.name", ["logger=csv"]),
    ],
)
def test_no_folder_and_no_file_is_named_after_a_secret(
    key: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "CANARY-in-a-name")
    value = "'a${oc.env:A_TOKEN}'" if key != "hydra.sweep.subdir" else "'runs/x.api_key=abc,seed=3'"
    with pytest.raises(ConfigError) as raised:
        composed(*more, f"{key}={value}")
    (line,) = raised.value.findings
    assert line == f"{key}=***: holds a secret, which the name of a folder or a file would show. Remove it."


@pytest.mark.parametrize(
    "override",
    [
        "task_name='my task, 2nd try (é)'",
        "hydra.run.dir=/tmp/x/../y",
        "hydra.sweep.subdir=${hydra.job.num}_${hydra.job.override_dirname}",
        "hydra.sweep.subdir=a/b",
        "trainer.devices=auto",
        "trainer.devices=-1",
        "trainer.devices='0,1'",
        "trainer.devices=[0,1]",
        "resilience.worker_timeout_seconds=0",
        "callbacks.model_checkpoint.filename='{epoch:03d}-{val/acc:.2f}-{step}'",
        "callbacks.model_checkpoint.filename=a/b",
        "callbacks.model_checkpoint.dirpath=checkpoints/of/mine",
        "callbacks.model_checkpoint.dirpath=s3://bucket/x",
        "data.num_workers=16",
        "trainer.max_epochs=-1",
        "callbacks.model_checkpoint.filename=null",
        "callbacks.model_checkpoint.filename=${now:%Y}",
    ],
)
def test_what_runs_is_not_refused(override: str) -> None:
    composed(override)


def test_each_value_is_resolved_at_most_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose_raw("experiment=example", "logger=csv")
    looked_up: list[str] = []

    def value(cfg: DictConfig, key: str, plain: Any = composed_module._value) -> Any:
        looked_up.append(key)
        return plain(cfg, key)

    monkeypatch.setattr(composed_module, "_value", value)
    assert name_faults(cfg) == []
    assert sorted(set(looked_up)) == sorted(looked_up)
    written = OmegaConf.to_container(cfg, resolve=False)
    assert all("${" in str(look_up(written, key)) for key in looked_up)  # a literal is not resolved


def test_all_findings_come_together() -> None:
    with pytest.raises(ConfigError) as raised:
        composed("task_name=a/b", "resilience.grace_seconds=-1", "callbacks.model_checkpoint.filename='{0}'")
    assert [line.partition("=")[0] for line in raised.value.findings] == [
        "task_name",
        "resilience.grace_seconds",
        "callbacks.model_checkpoint.filename",
    ]


def test_nothing_is_written_for_a_refused_name(tmp_path: Path) -> None:
    done = run_cli("train", "task_name=../x", logs=tmp_path / "logs")
    assert done.returncode == 2
    assert done.stderr == "error: task_name=../x: is not the name of a folder. Name one folder, e.g. task_name=train.\n"
    assert not (tmp_path / "logs").exists()


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    with pytest.raises(OSError, match="Not a directory") as raised:
        Path("/dev/null/x").mkdir()
    assert explain_file_error(raised.value).startswith("/dev/null/x: Not a directory. Set hydra.run.dir")


def test_a_checkpoint_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    overrides = ("callbacks.model_checkpoint.dirpath=/proc/x", "+trainer.limit_train_batches=1", "test=false")
    done = run_cli("train", *overrides, "trainer.max_epochs=1", logs=tmp_path / "logs")
    assert done.returncode == 2
    line = "callbacks.model_checkpoint.dirpath=/proc/x: No such file or directory. Set a folder that you may write to."
    assert line in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ConfigError, match=rf"dirpath=\S+: {tmp_path} may not be written to\. Set a folder"):
        composed(f"callbacks.model_checkpoint.dirpath={tmp_path}/a/b")


def test_a_job_of_a_sweep_is_checked_before_the_first_one_starts(tmp_path: Path) -> None:
    done = run_cli("train", "-m", "task_name=a,b/c", logs=tmp_path / "logs")
    assert done.returncode == 2
    fault = "task_name=b/c: is not the name of a folder. Name one folder, e.g. task_name=train."
    assert done.stderr == f"error: job 1 (task_name=b/c): {fault}\n"
    assert [*tmp_path.rglob("run.json")] == []


@pytest.mark.parametrize("values", [("seed=range(1,10000000000)",), ("seed=range(1,1000)", "+vars.x=range(1,1000)")])
def test_a_grid_without_end_is_refused_before_it_is_listed(values: tuple[str, ...], tmp_path: Path) -> None:
    done = run_cli("train", "-m", *values, logs=tmp_path / "logs")
    assert done.returncode == 2
    assert done.stderr == f"error: {values[-1]}: the sweep has more than 100,000 jobs. Pass fewer values.\n"
