"""Settings of the Slurm and Ray launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fulgurite.core.errors import UserError
from fulgurite.launchers.cluster import ray as on_ray
from fulgurite.launchers.cluster import slurm as on_slurm
from fulgurite.launchers.cluster.envelope import JobEnvelope
from fulgurite.launchers.cluster.slurm import make_executor
from fulgurite.launchers.cluster.worker import clear_single_task_env
from tests.support.project import ROOT
from tests.support.run_if import RunIf

MODULES = {"slurm": on_slurm, "ray": on_ray}


def keys_of(launcher: str, **changed: Any) -> dict[str, Any]:
    """Return the keys of a launcher's config, some of them changed."""
    given: dict[str, Any] = yaml.safe_load((ROOT / f"fulgurite/conf/hydra/launcher/{launcher}.yaml").read_text())
    del given["_target_"]
    return {**given, **changed}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both packages found."""
    for module in MODULES.values():
        monkeypatch.setattr(module, "import_package", lambda *_: None)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/sbatch")
    for name in ("SUBMITIT_PREEMPT_SIGNAL", "RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")  # set by what is tested


@pytest.mark.parametrize("launcher", MODULES)
@pytest.mark.usefixtures("installed")
def test_the_default_config_of_a_launcher_is_valid(launcher: str) -> None:
    given = keys_of(launcher)
    assert MODULES[launcher].check_settings(given) == given
    assert set(MODULES[launcher].SETTINGS) == set(given)


@pytest.mark.parametrize(
    ("launcher", "changed", "said"),
    [
        ("slurm", {"slotz": 2}, "hydra.launcher.slotz=2: hydra/launcher=slurm has no such key. Did you mean 'slots'?"),
        ("slurm", {"slots": 0}, "hydra.launcher.slots=0: must be positive"),
        ("slurm", {"slots": True}, "hydra.launcher.slots=True: must be int"),
        ("slurm", {"mem_gb": "8GB"}, "hydra.launcher.mem_gb=8GB: must be int or float or null"),
        ("slurm", {"cluster": "sge"}, "hydra.launcher.cluster=sge: is not one of slurm, local"),
        (
            "slurm",
            {"timeout_min": 2},
            "hydra.launcher.signal_delay_s=120: is not below hydra.launcher.timeout_min=2. ",
        ),
        (
            "slurm",
            {"cluster": "local", "nodes": 2},
            "hydra.launcher.nodes=2: cluster=local has only one",
        ),
        (
            "ray",
            {"slots": -1, "num_gpus": "all"},
            "hydra.launcher.slots=-1: must be positive\nhydra.launcher.num_gpus=",
        ),
        ("ray", {"num_cpus": 0}, "hydra.launcher.num_cpus=0 hydra.launcher.num_gpus=0: a job needs resources"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_an_invalid_launcher_key_is_reported_in_one_line(launcher: str, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        MODULES[launcher].check_settings(keys_of(launcher, **changed))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("launcher", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_reported_with_its_install_command(
    launcher: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("SUBMITIT_PREEMPT_SIGNAL", "RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UserError) as refused:
        MODULES[launcher].check_settings(keys_of(launcher))
    assert str(refused.value) == (
        f"hydra/launcher={launcher}: needs the package {package}, which is not installed. "
        f'Run pip install -e ".[{launcher}]".'
    )


def test_a_machine_without_sbatch_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm, "import_package", lambda *_: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "")
    with pytest.raises(UserError, match=r"this machine has no sbatch\. Start the sweep on a login node"):
        on_slurm.check_settings(keys_of("slurm"))


@RunIf(package="submitit", posix=True)
def test_the_keys_become_sbatch_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = {"partition": "gpu", "account": "me", "gpus_per_node": 2, "mem_gb": 12.5, "setup": ["module load cuda"]}
    more = {"additional_parameters": {"reservation": "mine"}, "cpus_per_task": 6, "timeout_min": 90, "qos": "high"}
    executor = make_executor(keys_of("slurm", **asked, **more), tmp_path / "2026-01-01_10-00-00")._executor
    text = executor._make_submission_file_text("python job", "1").splitlines()
    assert {line.removeprefix("#SBATCH --") for line in text if line.startswith("#SBATCH")} >= {
        *("partition=gpu", "account=me", "gpus-per-node=2", "mem=12800MB", "cpus-per-task=6", "time=90", "qos=high"),
        *("nodes=1", "ntasks-per-node=1", "reservation=mine", "job-name=2026-01-01_10-00-00"),
    }
    assert any(line.startswith("#SBATCH --signal=") and line.endswith("@120") for line in text)
    assert text.index("export SUBMITIT_PREEMPT_SIGNAL=USR1") < text.index("module load cuda")
    assert executor.max_num_timeout == 20


def test_a_machine_that_does_not_see_the_project_is_reported(tmp_path: Path) -> None:
    line = JobEnvelope(str(tmp_path / "no"), str(tmp_path), b"")()
    assert f"does not see {tmp_path}/no/.project-root. Move the project and paths.log_dir to a filesystem that" in line
    assert JobEnvelope(str(ROOT), str(tmp_path), b"").find_missing_paths() == ""


def test_a_single_task_job_drops_the_rank_variables_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for tasks, left in (("1", None), ("2", "1")):
        monkeypatch.setenv("SLURM_NTASKS", tasks)
        monkeypatch.setenv("SLURM_PROCID", "1")
        clear_single_task_env()
        assert os.environ.get("SLURM_PROCID") == left
