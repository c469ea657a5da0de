"""Bad input, given to the real command: one clear line, exit code 2, no traceback, and a record that says failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import only_run, read_json, run_cli
from tests.support.run_if import RunIf

QUIET = "extras.print_config=false"


def refused(tmp_path: Path, *overrides: str, entry_point: str = "train", recorded: bool = True) -> str:
    """Run the command, hold what is promised of every refusal, and return the line it ended with."""
    done = run_cli(entry_point, *overrides, QUIET, logs=tmp_path / "logs")
    errors = [line for line in done.stderr.splitlines() if "[ERROR]" in line or line.startswith("error:")]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(errors) == 1, done.stderr
    if recorded:
        folder = only_run(tmp_path / "logs", entry_point)
        record = read_json(folder / "run.json")
        assert (record["status"], record["exit_code"]) == ("failed", 2)
        assert record["reason"] in errors[0]
        written = {path.name for path in folder.iterdir()} - {"code.patch"}  # of a clone with changes
        assert written == {".hydra", ".owner", "run.json", f"{entry_point}.log"}
    else:
        assert not (tmp_path / "logs").exists()
    return errors[0]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch=3: there is no such key. Did you mean 'trainer.max_epochs'"),
        ("experiment=exmple", "there is no experiment 'exmple'. Did you mean 'example'"),
    ],
)
def test_a_misspelled_word_on_the_command_line(override: str, line: str, tmp_path: Path) -> None:
    # refused by Hydra before the run has a directory
    assert line in refused(tmp_path, override, recorded=False)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sed: 1", "typo.yaml:2: sed=1: .*Did you mean 'seed'"),
        ("trainer: {max_epoch: 3}", "typo.yaml:2: trainer.max_epoch=3: .*Did you mean 'max_epochs'"),
        ("model: {net: {lin1_sise: 3}}", "typo.yaml:2: model.net.lin1_sise=3: .*Did you mean 'lin1_size'"),
        ("callbacks: {early_stopping: {patiense: 3}}", "typo.yaml:2: .*patiense=3: .*Did you mean 'patience'"),
        ("callbacks: {early_stoping: {patience: 3}}", "typo.yaml:2: .*early_stoping.*Did you mean 'early_stopping'"),
        (
            "logger: {csv: {_target_: lightning.pytorch.loggers.CSVLogger, save_dri: x, save_dir: y}}",
            "typo.yaml:2: logger.csv.save_dri=x: .*Did you mean 'save_dir'",
        ),
        ("trainer: {max_epochs: three}", "typo.yaml:2: trainer.max_epochs=three: Trainer wants a whole number"),
        (
            "model: {optimizer: {_target_: torch.optim.Adamm}}",
            "typo.yaml:2: .*torch.optim.*'?Adamm'?.*Did you mean 'Adam",
        ),
        ("model: {optimizer: {_target_: troch.optim.Adam}}", "typo.yaml:2: .*troch"),
    ],
)
def test_a_mistake_in_an_experiment_file_is_reported_with_its_file_and_line(
    text: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "typo.yaml").write_text(f"# @package _global_\n{text}\n")
    errors = refused(tmp_path, f"--config-dir={tmp_path}/mine", f"trust=[{tmp_path}/mine]", "experiment=typo")
    assert re.search(line, errors), errors


def test_a_module_that_fails_to_import_is_reported_with_its_own_error(tmp_path: Path, small: ComposeSmall) -> None:
    from fulgurite.core.errors import ConfigError
    from fulgurite.engine.build import build
    from tests.support.project import ROOT

    broken = ROOT / "src" / "models" / "nets" / "broken_for_a_test.py"
    broken.write_text("import a_package_nobody_has\n\n\nclass Net: ...\n")
    try:
        cfg = small()
        cfg.model.net = {"_target_": "src.models.nets.broken_for_a_test.Net"}
        with pytest.raises(ConfigError) as caught:
            build(cfg)
    finally:
        broken.unlink()
    [finding] = caught.value.findings
    assert "cannot be imported: src/models/nets/broken_for_a_test.py:1: " in finding
    assert "No module named 'a_package_nobody_has'" in finding


@pytest.mark.parametrize("key", ["seed", "tags", "extras.print_config"])
def test_an_interpolation_that_is_read_before_the_checks_is_reported_as_any_other(key: str, tmp_path: Path) -> None:
    done = run_cli("train", f"{key}=${{nope}}", logs=tmp_path / "logs")
    assert done.returncode == 2, done.stderr
    assert f"command line: {key}=${{nope}}: ${{nope}} refers to a key that does not exist." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_three_ways_a_target_can_be_wrong_are_distinguished(tmp_path: Path) -> None:
    unknown_module = refused(tmp_path / "a", "model.net._target_=src.models.nets.dens.SimpleDenseNet")
    unknown_class = refused(tmp_path / "b", "model.net._target_=src.models.nets.dense.SimpleDensNet")
    assert "'dense'" in unknown_module
    assert "'SimpleDenseNet'" in unknown_class
    assert "no module" in unknown_module.lower()
    assert "no module" not in unknown_class.lower()


def test_eval_without_a_checkpoint(tmp_path: Path) -> None:
    line = refused(tmp_path, entry_point="eval")
    assert "ckpt_path: missing, and eval scores a checkpoint. Add ckpt_path=<file or https URL>" in line


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.ckpt" in refused(tmp_path, "ckpt_path=nowhere.ckpt", entry_point="eval")


def test_a_checkpoint_of_another_net(tmp_path: Path, small: ComposeSmall) -> None:
    train(small("test=false", "model.net.lin1_size=8"))
    line = refused(tmp_path, f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", entry_point="eval")
    assert (
        "was saved from another model (net.layers.1.weight is (8, 784) in the file and (64, 784) in the model" in line
    )


@pytest.mark.parametrize(
    ("kept", "reason"),
    [(0.0, "is not a checkpoint, or is damaged"), (0.5, "its archive is damaged")],
    ids=["empty", "half"],
)
def test_a_truncated_checkpoint(kept: float, reason: str, tmp_path: Path, small: ComposeSmall) -> None:
    train(small("test=false"))
    whole = (tmp_path / "run/checkpoints/last.ckpt").read_bytes()
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    line = refused(tmp_path, f"ckpt_path={cut}", entry_point="eval")
    assert f"ckpt_path={cut}: {reason}" in line


def test_a_checkpoint_that_would_run_code(tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (touched,))

    evil = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"net": Payload()}}, evil)
    assert "could run code" in refused(tmp_path, f"ckpt_path={evil}", entry_point="eval")
    assert not touched.exists()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert "trainer.accelerator=gpu: this machine has no CUDA or MPS device. Set trainer=cpu." in refused(
        tmp_path, "trainer=gpu"
    )


@RunIf(posix=True)
def test_a_data_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    # a file stands where the folder should be: holds for root too
    (tmp_path / "file").write_text("")
    done = run_cli("train", QUIET, "data=mnist", f"data.data_dir={tmp_path}/file/mnist", logs=tmp_path / "logs")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert f"{tmp_path}/file/mnist" in line
    assert "data.data_dir" in line
    assert read_json(only_run(tmp_path / "logs") / "run.json")["status"] == "failed"


@pytest.mark.slow
@RunIf(posix=True)
def test_a_home_and_caches_that_cannot_be_written_cost_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", "/nonexistent")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, f"{tmp_path}/file/{name}")
    done = run_cli("train", "debug=fdr", "logger=[csv,tensorboard]", logs=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == ""


def test_no_tags_and_nobody_to_ask(tmp_path: Path) -> None:
    assert "tags: empty, but extras.enforce_tags is true" in refused(tmp_path, "tags=[]")


def test_all_mistakes_of_one_command_are_reported_together(tmp_path: Path) -> None:
    done = run_cli("train", QUIET, "trainer.max_epoch=3", "experiment=exmple", "data.batch_sise=2", logs=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2
    assert len(errors) == 3, done.stderr


@RunIf(posix=True)
def test_a_log_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("train", logs=tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set paths.log_dir=<folder>" in done.stderr


def test_a_class_that_moved_to_the_library_is_refused_with_its_new_place(tmp_path: Path) -> None:
    line = refused(tmp_path, "callbacks.nan_guard._target_=src.callbacks.nan_guard.NanGuard")
    assert "moved. Use fulgurite.callbacks.NaNGuard" in line


@pytest.mark.parametrize(("entry_point", "shorthand"), [("train", "resume="), ("eval", "run=")])
def test_an_empty_shorthand_starts_nothing(tmp_path: Path, entry_point: str, shorthand: str) -> None:
    done = run_cli(entry_point, shorthand, logs=tmp_path / "logs")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {shorthand}: has no value. Name a run directory, or remove {shorthand}\n",
    )
    assert not (tmp_path / "logs").exists()
