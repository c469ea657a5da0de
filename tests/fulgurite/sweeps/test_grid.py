"""A grid before its first job: validation, errors by job, numbers, configs and the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fulgurite.compat.hydra import VERSION_BASE
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import ConfigError, UserError, explain_file_error
from fulgurite.core.project import prepare_environment
from fulgurite.runs.sweep_ledger import LEDGER, append_event, job_key, read_events
from fulgurite.sweeps.code_state import CodeState
from fulgurite.sweeps.config_cache import ConfigCache
from fulgurite.sweeps.jobs import Job, check_jobs, expand_grid
from fulgurite.sweeps.resume import find_sweep, restore_job_states
from tests.fulgurite.sweeps.test_sweep_resume import start
from tests.support.project import ROOT

GROUPS = ("trainer", "logger", "experiment")


@contextmanager
def planned(*given: str) -> Iterator[tuple[list[Job], DictConfig, ConfigLoaderImpl]]:
    """Yield the jobs of a command line, the sweep's config and Hydra's config loader."""
    prepare_environment()
    guard_configs()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        config = loader.load_configuration("train", list(given), RunMode.MULTIRUN)
        yield expand_grid(given, loader), config, loader


def findings(*given: str) -> list[str]:
    """Return the errors of a sweep before its first job."""
    with planned(*given) as (jobs, config, loader), pytest.raises(ConfigError) as refused:
        check_jobs(jobs, config, loader, lambda job, cfg: ())
    return refused.value.findings


def test_every_job_is_checked_and_each_finding_names_the_jobs_that_have_it() -> None:
    assert findings("data.batch_size=32,0", "seed=1,-1") == [
        "jobs 1, 3 (seed=-1): command line: seed=-1: must be between 0 and 4294967295",
        "jobs 2, 3 (data.batch_size=0): command line: data.batch_size=0: must be 1 or more",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=1", "model.optimizer.lr=0.5", "+trainer.limit_train_batches=4", "+tags.a=true"),
        ("seed=2", "trainer=ddp_sim", "~callbacks.early_stopping", "+extra={a: 1}", "logger=csv"),
        ("hydra.verbose=true", "experiment=example", "data.batch_size=8"),
        ("callbacks={}", "model.net.lin1_size=7", "task_name='a b'", "paths.log_dir=${oc.env:HOME}"),
    ],
)
def test_a_job_has_the_config_that_hydra_would_compose_with_later_sweep_overrides(overrides: Sequence[str]) -> None:
    with planned("seed=1,2", "hydra/launcher=local") as (_, config, loader):
        cache = ConfigCache(loader)
        cache.load(config, [item for item in overrides if item.partition("=")[0] in GROUPS or "hydra" in item])
        config.hydra.overrides.hydra += ["hydra.sweep.dir='/a b/c'", "hydra.output_subdir=null"]
        job = loader.load_sweep_config(config, list(overrides))
        expected = cache._compose(config, list(overrides))
    assert job.hydra.sweep.dir == "/a b/c"
    assert OmegaConf.to_container(job) == OmegaConf.to_container(expected)
    assert [OmegaConf.is_struct(one) for one in (job, job.data)] == [True, True]
    assert OmegaConf.get_type(job.hydra.job) is OmegaConf.get_type(expected.hydra.job)


def test_files_are_read_once_for_all_jobs_that_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with planned("seed=range(4)", "trainer=cpu,ddp_sim") as (jobs, config, loader):
        cache, read_for = ConfigCache(loader), []
        plain = cache._compose

        def recorded(cfg: DictConfig, overrides: list[str]) -> DictConfig:
            read_for.append(overrides)
            return plain(cfg, overrides)

        monkeypatch.setattr(cache, "_compose", recorded)
        check_jobs(jobs, config, loader, lambda job, cfg: ())
    assert (len(jobs), read_for) == (8, [["trainer=cpu"], ["trainer=ddp_sim"]])


def test_a_finding_that_all_jobs_have_is_reported_once_as_for_one_run() -> None:
    [line] = findings("seed=1,2", "train=maybe")
    assert line.startswith("command line: train=maybe: must be ")


def test_options_that_hydra_refuses_are_reported_beside_the_errors_of_other_jobs() -> None:
    typo, size = findings("trainer=cpu,gpux", "data.batch_size=0,8")
    assert "there is no trainer 'gpux'. Did you mean 'gpu'?" in typo
    assert size == "job 0 (trainer=cpu data.batch_size=0): command line: data.batch_size=0: must be 1 or more"


def test_overrides_of_the_sweep_are_not_values_of_its_jobs_and_equal_jobs_stay_two() -> None:
    with planned("seed=null,null", "sweep.resume=null", "test=false") as (jobs, _, _):
        assert [job.overrides for job in jobs] == [("seed=null", "test=False")] * 2
        assert [job.key for job in jobs] == [job_key(jobs[0].overrides), f"{job_key(jobs[0].overrides)}-2"]


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with (
        pytest.raises(UserError, match=r"experiment=glob\(nothing\*\): matches nothing"),
        planned("experiment=glob(nothing*)"),
    ):
        pass


def test_a_ledger_continues_after_a_torn_line(tmp_path: Path) -> None:
    append_event(tmp_path, "started", job=0, key="a")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"event": "done", "jo')
    append_event(tmp_path, "started", job=1, key="b")
    assert [(event["event"], event["job"]) for event in read_events(tmp_path)] == [("started", 0), ("started", 1)]


def plan(folder: Path, jobs: list[Job]) -> None:
    """Write the plan of an earlier start."""
    folder.mkdir(parents=True, exist_ok=True)
    append_event(
        folder, "plan", jobs=[{"job": j.number, "key": j.key, "words": list(j.overrides)} for j in jobs], code=""
    )


def test_jobs_keep_their_numbers_in_any_order_of_the_overrides(tmp_path: Path) -> None:
    with planned("seed=1,2", "test=true,false") as (jobs, _, _):
        plan(tmp_path, jobs)
    append_event(tmp_path, "failed", job=2, key=jobs[2].key, reason="no memory")
    with planned("test=false,true", "seed=2,1") as (again, _, _):
        restore_job_states(again, tmp_path)
    assert [(job.number, set(job.overrides), job.state) for job in again] == [
        (3, {"seed=2", "test=False"}, "new"),
        (1, {"seed=1", "test=False"}, "new"),
        (2, {"seed=2", "test=True"}, "failed"),
        (0, {"seed=1", "test=True"}, "new"),
    ]
    assert again[2].reason == "no memory"


def test_another_grid_is_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    with planned("seed=1,2", "trainer.max_epochs=5") as (jobs, _, _):
        plan(tmp_path, jobs)
    with planned("seed=1,2,3", "trainer.max_epochs=6") as (other, _, _), pytest.raises(ConfigError) as refused:
        restore_job_states(other, tmp_path)
    changes = "3 jobs instead of 2, added seed=3 trainer.max_epochs=6, removed trainer.max_epochs=5"
    remedy = "Pass the original values, or drop sweep.resume to start a new sweep."
    assert refused.value.findings == [
        f"sweep.resume={tmp_path}: this command defines a different grid ({changes}). {remedy}"
    ]


def test_last_is_the_most_recently_written_sweep(tmp_path: Path) -> None:
    sweeps = tmp_path / "train/multiruns"
    with planned("seed=1,2", f"paths.log_dir={tmp_path}") as (jobs, config, _):
        with pytest.raises(UserError, match=r"contains no sweep\. Start a sweep without sweep\.resume"):
            find_sweep("last", config)
        for name in ("b", "a"):
            plan(sweeps / name, jobs)
        os.utime(sweeps / "b" / LEDGER, (1, 1))
        (sweeps / "search").mkdir()
        append_event(sweeps / "search", "started", job=0, key="of a search: it has no plan")
        assert find_sweep("last", config) == sweeps / "a"
        with pytest.raises(UserError, match=r"contains no sweep\.jsonl of a grid\. Pass a sweep"):
            find_sweep(str(sweeps / "search"), config)


def test_files_that_change_while_a_sweep_runs_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "src/a.py").write_text("1")
    state = CodeState(tmp_path)
    before = state.digest
    assert state.changes() == []
    (tmp_path / "src/a.py").write_text("2")
    (tmp_path / "configs/model/b.yaml").write_text("c: 1")
    assert state.changes() == ["configs/model/b.yaml", "src/a.py"]
    (tmp_path / "fulgurite/conf").mkdir(parents=True)
    (tmp_path / "fulgurite/d.py").write_text("1")
    (tmp_path / "fulgurite/conf/e.yaml").write_text("f: 1")
    assert state.changes() == ["fulgurite/conf/e.yaml", "fulgurite/d.py"]
    assert state.changes() == []
    assert state.digest != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("sweep.resume=last",), "error: sweep.resume=last: applies to sweeps only. Add -m.\n"),
        (
            ("-m", "hydra/sweeper=basic", "sweep.resume=last"),
            "error: sweep.resume=last: needs a sweeper of this library. Set hydra/sweeper=grid or ",
        ),
        (("-m", "seed=1,2", "data.batch_size=0,8"), "error: jobs 0, 2 (data.batch_size=0): command line: "),
    ],
)
def test_an_invalid_sweep_is_refused_before_a_folder_is_made(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    end = start(tmp_path, list(given))
    assert end.returncode == 2, end.stderr
    assert end.stderr.startswith(said)
    assert not (tmp_path / "logs").exists()


def test_a_dry_run_shows_the_jobs_and_makes_no_folder(tmp_path: Path) -> None:
    end = start(tmp_path, ["-m", "--dry-run", "seed=1,2", "trainer.max_epochs=3,4", "test=false"])
    assert end.returncode == 0, end.stderr
    rows = [line.split() for line in end.stdout.splitlines() if "to start" in line]
    assert [row[1:5] for row in rows][2] == ["2", "│", "seed=2", "trainer.max_epochs=3"]
    assert len(rows) == 4
    assert "all      test=False" in end.stdout
    assert not (tmp_path / "logs").exists()


def test_a_folder_whose_name_is_too_long_is_refused_before_the_first_job() -> None:
    subdir = "hydra.sweep.subdir=${hydra.job.num}-${hydra.job.override_dirname}"
    [line] = findings(f"task_name={'a' * 100},{'b' * 190}", f"+vars.x={'x' * 60}", subdir)
    assert line.startswith("job 1 (task_name=bbb")
    assert "1-+vars.x=xxx" in line
    assert "...: the name has 271 bytes, and file systems take 255. Shorten the run's folder: hydra.run.dir" in line


def test_a_folder_of_a_single_run_whose_name_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / ("a" * 256)).mkdir()
    assert explain_file_error(caught.value).startswith(f"{'a' * 40}...: the name has 256 bytes, and file systems take")
