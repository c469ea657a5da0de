"""The first lines of a run: the run directory, then what differs from the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from fulgurite.config.changes import changes
from fulgurite.core.formatting import show_config
from tests.support.cli import only_run, run_cli
from tests.support.compose import compose_raw, with_file

NOTHING = ("train=false", "test=false")


def shown_changes(*overrides: str) -> dict[str, list[str]]:
    """Return what differs from the defaults in a config, as `hydra.main` composes it."""
    cfg = compose_raw(*overrides, "paths.output_dir=run")
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg.hydra
    try:
        return dict(changes(cfg))
    finally:
        HydraConfig.instance().cfg = None


def test_the_first_line_is_the_run_directory_and_the_next_are_what_differs(tmp_path: Path) -> None:
    overrides = ("experiment=example", "trainer.max_epochs=3", *NOTHING, "+logger.wandb.project=x")
    done = run_cli("train", *overrides, logs=tmp_path)
    assert done.returncode == 0, done.stderr
    run, left_out, typed, experiment = (line.partition("[INFO] ")[2] for line in done.stderr.splitlines()[:4])
    folder = only_run(tmp_path)
    assert run == f"run {folder}"
    assert left_out.startswith("logger.wandb: has no _target_ and is left out")
    assert typed.startswith("command line: experiment=example  trainer.max_epochs=3  train=false")
    assert experiment.startswith("configs/experiment/example.yaml: ")
    assert "model.net.lin1_size=128" in experiment
    assert "max_epochs" not in experiment, "the command line won"
    assert "accelerator" not in done.stdout + done.stderr, "the whole config is in the run directory"
    assert "accelerator" in (folder / ".hydra/config.yaml").read_text()
    assert run in (folder / "train.log").read_text()


def test_a_file_of_another_folder_is_named_by_its_path(tmp_path: Path) -> None:
    with_file(tmp_path / "mine", "experiment/small.yaml", "# @package _global_\nseed: 5\n")
    done = run_cli("train", f"--config-dir={tmp_path}/mine", "experiment=small", *NOTHING, logs=tmp_path / "logs")
    assert f"[INFO] {tmp_path}/mine/experiment/small.yaml: seed=5\n" in done.stderr


@pytest.mark.parametrize(
    ("defaults", "sources"),
    [
        ("[base]", ["child: data.batch_size=16", "base: model=mnist_convnet  seed=5  trainer.max_epochs=3"]),
        ("[/experiment/base@_global_, _self_]", ["child: data.batch_size=16", "base: model=mnist_convnet  seed=5  "]),
        ("[_self_, base]", ["base: model=mnist_convnet  seed=5  trainer.max_epochs=3  data.batch_size=8"]),
    ],
)
def test_what_a_parent_experiment_sets_is_shown(defaults: str, sources: list[str], tmp_path: Path) -> None:
    base = "# @package _global_\ndefaults: [{override /model: mnist_convnet}]\nseed: 5\ntrainer: {max_epochs: 3}\n"
    with_file(tmp_path, "experiment/base.yaml", f"{base}data: {{batch_size: 8}}\n")
    child = f"# @package _global_\ndefaults: {defaults}\ndata: {{batch_size: 16}}\n"
    search = with_file(tmp_path, "experiment/child.yaml", child)
    found = shown_changes("experiment=child", *search)
    files = [(Path(source).stem, "  ".join(lines)) for source, lines in found.items()][1:]
    assert len(files) == len(sources)
    for (name, lines), shown in zip(files, sources, strict=True):
        assert f"{name}: {lines}".startswith(shown)


def test_a_group_on_the_command_line_hides_no_key_of_an_experiment() -> None:
    found = shown_changes("experiment=example", "data=fashion_mnist")
    assert "data.batch_size=64" in found["configs/experiment/example.yaml"]


def test_a_job_of_a_sweep_has_one_line(tmp_path: Path) -> None:
    done = run_cli("train", "-m", "seed=1,2", *NOTHING, logs=tmp_path)
    [sweep] = (tmp_path / "train/multiruns").iterdir()
    lines = [line.partition("[INFO] ")[2] for line in done.stderr.splitlines() if "[INFO] job" in line]
    assert "HYDRA" not in done.stdout + done.stderr, "one line a job"
    assert lines == [f"job {number} in {sweep}/{number}  seed={number + 1}" for number in (0, 1)]


def test_full_prints_the_whole_config_and_a_secret_is_masked(tmp_path: Path) -> None:
    folder = "paths.data_dir=ftp://me:s3cret@host/x"  # pragma: allowlist secret
    done = run_cli("train", "extras.print_config=full", folder, *NOTHING, logs=tmp_path)
    assert "accelerator: cpu" in done.stdout
    assert "paths.data_dir=ftp://me:***@host/x" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_narrow_terminal_wraps_the_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = list(range(1000, 1040))
    show_config({"sizes": ",".join(map(str, numbers))})
    shown = capsys.readouterr().out
    assert all(str(number) in "".join(shown.split()) for number in numbers)
