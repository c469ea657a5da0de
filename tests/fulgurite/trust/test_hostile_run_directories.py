"""A run or a sweep of another origin, unpacked and resumed, writes to no file elsewhere and moves no folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fulgurite.core.errors import UserError
from fulgurite.resume.plan import resume_in_place
from fulgurite.runs.layout import LOCK_FILE
from fulgurite.runs.lock import run_lock
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.runs.sweep_ledger import GRID, LEDGER, append_event
from fulgurite.sweeps.jobs import NEW, Job
from fulgurite.sweeps.resume import job_folder, restore_job_states


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make a run directory beside a file of the user."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "killed"}')
    (folder / ".hydra/config.yaml").write_text("seed: 1\n")
    (tmp_path / "precious").write_text("canary")
    return folder


@pytest.mark.parametrize("name", [LOCK_FILE, "train.log", "metrics.csv", "sweep.jsonl"])
@pytest.mark.parametrize("target", ["precious", "made"])
def test_a_file_that_is_a_link_to_another_place_is_refused(name: str, target: str, run: Path) -> None:
    (run / name).symlink_to(run.parent / target)
    said = rf"^{run}/{re.escape(name)}: is a link to {run.parent}/{target}, outside of the run directory\. Remove it\.$"
    with pytest.raises(UserError, match=said), run_lock(run):
        pass
    with pytest.raises(UserError, match=said):
        resume_in_place(OmegaConf.create({}), OmegaConf.create({}), RunDirectory.of(run), is_named=True)
    assert (run.parent / "precious").read_text() == "canary"
    assert not (run.parent / "made").exists()


def test_links_within_a_run_and_linked_folders_stay(run: Path) -> None:
    (run / "newest.json").symlink_to("run.json")
    (run / "checkpoints").symlink_to(run.parent, target_is_directory=True)
    with run_lock(run):
        assert (run / LOCK_FILE).is_file()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n", "aliases expand"),
        ("a0: x\n", "interpolations expand"),
    ],
    ids=["aliases", "interpolations"],
)
def test_a_saved_config_that_multiplies_is_refused(config: str, said: str, run: Path) -> None:
    if "&" in config:
        config += "".join(f"b{n}: &b{n} [{', '.join(['*b' + str(n - 1) if n else '*a'] * 10)}]\n" for n in range(6))
    else:
        config += "".join(f"a{n}: ${{a{n - 1}}}${{a{n - 1}}}\n" for n in range(1, 30))
    (run / ".hydra/config.yaml").write_text(config)
    with pytest.raises(UserError, match=rf"{said} to .* values"):
        resume_in_place(OmegaConf.create({}), OmegaConf.create({}), RunDirectory.of(run), is_named=True)


def hostile_sweep(tmp_path: Path, folder: str) -> Path:
    """Leave a sweep whose ledger has a folder for its failed job."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    append_event(sweep, GRID, jobs=[{"job": 0, "key": "a", "words": ["seed=1"]}])
    append_event(sweep, "started", job=0, key="a", words=["seed=1"], folder=folder, pid=1)
    append_event(sweep, "failed", job=0, key="a", reason="x", exit_code=1)
    return sweep


@pytest.mark.parametrize("folder", ["../precious", "/", "{tmp}/precious", "link", ".", "0/../../precious"])
def test_a_ledger_names_no_folder_outside_of_its_sweep(folder: str, tmp_path: Path) -> None:
    """A failed job that is run again has its folder moved, a killed one is resumed in it."""
    (tmp_path / "precious").mkdir()
    sweep = hostile_sweep(tmp_path, folder.format(tmp=tmp_path))
    (sweep / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=rf"^sweep\.resume={sweep}: {LEDGER} has \S+ for job 0, outside of the sweep"):
        restore_job_states([Job(0, "a", ("seed=1",), state=NEW)], sweep)


def test_a_job_whose_own_run_is_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/run.json").write_text(json.dumps({"sweep": {"dir": str(tmp_path / "sweep"), "job": 3}}))
    assert job_folder(tmp_path / "sweep", str(tmp_path / "elsewhere"), 3) == tmp_path / "elsewhere"
    with pytest.raises(UserError, match="outside of the sweep"):
        job_folder(tmp_path / "sweep", str(tmp_path / "elsewhere"), 4)
