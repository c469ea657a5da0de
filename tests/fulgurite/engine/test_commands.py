"""Test the everyday commands as users type them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMALL
from tests.support.cli import WarmProcess, only_run, read_json, run_cli
from tests.support.project import ROOT


def results_of(folder: Path) -> dict[str, float]:
    """Return the metrics of a run directory."""
    metrics: dict[str, float] = read_json(folder / "results.json")["metrics"]
    return metrics


def ok(*overrides: str, logs: Path, entry_point: str = "train", **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run a small run that must succeed."""
    done = run_cli(entry_point, *SMALL, *overrides, logs=logs, **kwargs)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_run_works_from_any_folder_and_as_a_module(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ok("test=false", logs=tmp_path / "a", cwd=elsewhere)
    ok("test=false", logs=tmp_path / "b", module=True)
    assert run_cli("train", "--cfg", "job", module=True, cold=True).returncode == 0
    first, second = (only_run(tmp_path / name) for name in "ab")
    assert results_of(first) == results_of(second)
    assert list(elsewhere.iterdir()) == []


def test_the_terminal_ends_with_a_table_and_holds_no_advert_or_warning(tmp_path: Path) -> None:
    done = ok(logs=tmp_path)
    metrics = results_of(only_run(tmp_path))
    assert f"test/acc     │ {metrics['test/acc']:.4g}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("run ")
    for unwanted in ("💡", "Warning", "WARNING", "litlogger"):
        assert unwanted not in done.stdout + done.stderr


def test_lightnings_messages_stand_in_the_runs_log(tmp_path: Path) -> None:
    ok(logs=tmp_path)
    text = (only_run(tmp_path) / "train.log").read_text()
    assert "GPU available" in text
    assert "epoch 0/0" in text


def test_help_and_a_refused_typo_import_no_torch(tmp_path: Path) -> None:
    for words, code in ((["--help"], 0), (["--cfg", "job"], 0), (["trainer.max_epoch=3"], 2)):
        program = (
            "import runpy, sys\n"
            f"sys.argv = ['src/train.py', *{words!r}]\n"
            "try:\n    runpy.run_path('src/train.py', run_name='__main__')\n"
            "except SystemExit as end:\n    code = end.code or 0\nelse:\n    code = 0\n"
            "print('code', code, 'torch', 'torch' in sys.modules, 'lightning' in sys.modules, file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1] == f"code {code} torch False False", (words, done.stderr)


def test_eight_starts_in_one_second_leave_eight_directories(tmp_path: Path) -> None:
    words = [f"paths.log_dir={tmp_path}/logs", "train=false", "test=false"]
    running = [WarmProcess("train", [*words, f"seed={seed}"], tmp_path / str(seed)) for seed in range(8)]
    ended = [started.wait(timeout=240) for started in running]
    assert [done.returncode for done in ended] == [0] * 8, [done.stderr for done in ended]
    folders = sorted((tmp_path / "logs/train/runs").iterdir())
    assert len(folders) == 8
    overrides = [yaml.safe_load((folder / ".hydra/overrides.yaml").read_text())[-1] for folder in folders]
    assert sorted(overrides) == [f"seed={seed}" for seed in range(8)]
    assert all(
        read_json(folder / "run.json")["seed"] == int(o[-1]) for folder, o in zip(folders, overrides, strict=True)
    )


def test_train_false_and_eval_print_the_same_accuracy(tmp_path: Path) -> None:
    ok(logs=tmp_path)
    folder = only_run(tmp_path)
    weights = folder / read_json(folder / "results.json")["weights"]
    again = ok("train=false", f"ckpt_path={weights}", logs=tmp_path / "again")
    scored = ok(f"ckpt_path={weights}", logs=tmp_path / "eval", entry_point="eval")
    lines = [[line for line in done.stdout.splitlines() if "test/acc" in line] for done in (again, scored)]
    assert len(lines[0]) == 1
    assert lines[0] == lines[1]
    assert f"{results_of(folder)['test/acc']:.4g}" in lines[0][0]


@pytest.mark.parametrize(
    "flags",
    [
        ("+trainer.gradient_clip_val=0.5", "+trainer.accumulate_grad_batches=2", "+trainer.val_check_interval=0.5"),
        ('+trainer.max_time="00:12:00:00"', "+trainer.detect_anomaly=true", "+trainer.precision=bf16-mixed"),
    ],
)
def test_lightnings_flags_are_passed_on(flags: tuple[str, ...], tmp_path: Path) -> None:
    ok(*flags, "test=false", logs=tmp_path)
    assert 0 <= results_of(only_run(tmp_path))["train/acc"] <= 1


@pytest.mark.parametrize("recipe", ["default", "fdr", "limit", "overfit", "profiler"])
def test_every_debug_recipe_runs_in_its_own_folder(recipe: str, tmp_path: Path) -> None:
    faster = ["extras.print_config=false"]
    faster += {"default": ["+trainer.limit_train_batches=3"], "profiler": ["+trainer.limit_train_batches=3"]}.get(
        recipe, []
    )
    done = run_cli("train", f"debug={recipe}", "experiment=example", *faster, logs=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = only_run(tmp_path, "debug")
    assert "test/acc" in results_of(folder)
    if recipe == "profiler":
        assert (folder / "fit-profile.txt").stat().st_size > 0
    if recipe == "overfit":
        assert results_of(folder)["train/acc"] > 0.9  # a few batches are learned by heart


@pytest.mark.slow
def test_a_grid_of_six_makes_six_jobs_each_with_its_own_values(tmp_path: Path) -> None:
    ok("-m", "data.batch_size=32,64,128", "model.optimizer.lr=0.001,0.0005", "test=false", logs=tmp_path)
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [path.name for path in jobs] == ["0", "1", "2", "3", "4", "5"]
    words = [yaml.safe_load((job / ".hydra/overrides.yaml").read_text()) for job in jobs]
    seen = {tuple(word for word in job if "batch_size=" in word or "lr=" in word) for job in words}
    assert len(seen) == 6
    for number, job in enumerate(jobs):
        record = read_json(job / "run.json")
        assert (record["status"], record["sweep"]) == ("done", {"dir": str(sweep), "job": number})


@pytest.mark.slow
def test_every_experiment_runs_in_one_sweep(tmp_path: Path) -> None:
    ok("-m", "experiment=glob(*)", logs=tmp_path)
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    count = len(list((ROOT / "configs/experiment").glob("*.yaml")))
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == count


def test_seeds_in_a_sweep_with_a_list_of_tags(tmp_path: Path) -> None:
    tags = 'tags=["benchmark"]'
    done = ok("-m", "seed=1,2", "trainer.deterministic=True", "logger=csv", tags, "test=false", logs=tmp_path)
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    records = [read_json(sweep / job / "run.json") for job in "01"]
    assert [record["seed"] for record in records] == [1, 2]
    assert [record["tags"] for record in records] == [["benchmark"], ["benchmark"]]
    first, second = (results_of(sweep / job)["val/acc"] for job in "01")
    assert results_of(sweep / "0") != results_of(sweep / "1")
    assert "mean ± half the 95 % interval" in done.stdout
    assert f"{(first + second) / 2:.4g} ± " in done.stdout
    assert (sweep / "summary.csv").read_text().startswith("values,jobs,failed,")


def test_a_failed_job_of_a_sweep_does_not_hide_the_others(tmp_path: Path) -> None:
    done = run_cli("train", *SMALL, "-m", "data.val_size=500,5000", "test=false", logs=tmp_path)
    assert done.returncode == 2
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    assert [read_json(sweep / job / "run.json")["status"] for job in "01"] == ["done", "failed"]
    assert "Traceback" not in done.stderr
    assert "1 (1 failed)" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("trainer=ddp_sim",), ("trainer=ddp_spawn",), ("trainer=fsdp", "trainer.accelerator=cpu")], ids=" ".join
)
def test_two_cpu_processes_are_one_run(words: tuple[str, ...], tmp_path: Path) -> None:
    ok(*words, "data.batch_size=32", logs=tmp_path)
    folder = only_run(tmp_path)
    assert read_json(folder / "run.json")["ranks"] == 2
    assert {"val/acc", "test/acc"} <= set((folder / "metrics.csv").read_text().splitlines()[0].split(","))
    assert "test/acc" in results_of(folder)


def test_env_variables_from_dotenv_reach_the_config(tmp_path: Path) -> None:
    # the root's own .env may hold private values: use the variable as the loader leaves it, set or not
    env = {**os.environ, "MY_VAR": "shown"}  # a value of 6 characters or more would be hidden
    command = [
        sys.executable,
        "src/train.py",
        "--cfg",
        "job",
        "--resolve",
        "-p",
        "task_name",
        "task_name=${oc.env:MY_VAR}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "shown\n", done.stderr
