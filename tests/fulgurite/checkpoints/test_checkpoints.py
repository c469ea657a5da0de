"""Checkpoint files are whole or absent: described, kept in two generations, safe from kills and full disks."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO
from fulgurite.checkpoints.disk_space import expected_size, warn_if_disk_full_soon
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.loading import checkpoint_to_test
from fulgurite.checkpoints.manifest import manifest_of, newest_intact, verify
from fulgurite.checkpoints.setup import install_checkpoint_io
from fulgurite.core.errors import DiskFull, UserError
from fulgurite.core.files import sha256_of
from fulgurite.engine.build import build
from fulgurite.runs.provenance import config_hash
from src.eval import evaluate
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.checkpoint_killer import kill_writers
from tests.support.cli import WarmProcess, only_run, read_json
from tests.support.disk_full import largest_file
from tests.support.project import ROOT
from tests.support.run_if import RunIf

posix = RunIf(posix=True)


def checkpoint(step: int, numbers: int = 1000) -> dict[str, Any]:
    """Return a small checkpoint."""
    return {"state_dict": {"w": torch.full((numbers,), float(step))}, "global_step": step, "epoch": step // 10}


def step_of(path: Path) -> int:
    """Return the step a checkpoint was saved at."""
    return int(torch.load(path, weights_only=True)["global_step"])


def names_in(folder: Path) -> list[str]:
    """Return every name in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_manifest_describes_the_file_and_the_run_it_is_of(small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small("trainer.max_epochs=2", "test=false")
    train(cfg)
    folder = tmp_path / "run/checkpoints"
    best = next(folder.glob("best-*.ckpt"))
    for path, step, epoch in ((folder / "last.ckpt", 8, 1), (folder / "last-previous.ckpt", 4, 0), (best, None, None)):
        told = read_json(manifest_of(path))
        assert (told["sha256"], told["size"]) == (sha256_of(path), path.stat().st_size)
        assert (told["step"], told["epoch"]) == (step or step_of(path), told["epoch"] if epoch is None else epoch)
        assert told["config_hash"] == config_hash(cfg) == read_json(tmp_path / "run/run.json")["config_hash"]
        assert told["versions"]["torch"] == torch.__version__
    assert [step_of(folder / name) for name in ("last.ckpt", "last-previous.ckpt")] == [8, 4]
    assert len(names_in(folder)) == 6  # nothing else, nothing temporary


def test_removing_a_checkpoint_removes_its_manifest(tmp_path: Path) -> None:
    files = VerifiedCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        files.save_checkpoint(checkpoint(1), tmp_path / name)
    files.remove_checkpoint(tmp_path / "a.ckpt")
    assert names_in(tmp_path) == ["b.ckpt", "b.ckpt.json"]


def test_two_generations_of_the_last_checkpoint_are_kept_and_one_of_others(tmp_path: Path) -> None:
    files = VerifiedCheckpointIO({"note": "x"})
    for step in (1, 2, 3):
        files.save_checkpoint(checkpoint(step), tmp_path / "last.ckpt")
        files.save_checkpoint(checkpoint(step), tmp_path / "best.ckpt")
    whole = [path for path in tmp_path.glob("*.ckpt") if not verify(path) and manifest_of(path).exists()]
    assert {path.name: step_of(path) for path in whole} == {"last.ckpt": 3, "last-previous.ckpt": 2, "best.ckpt": 3}
    assert read_json(tmp_path / "last.ckpt.json")["note"] == "x"


def test_a_file_system_without_links_keeps_two_generations_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), tmp_path / "last.ckpt")
    assert [step_of(tmp_path / name) for name in ("last.ckpt", "last-previous.ckpt")] == [3, 2]
    assert not verify(tmp_path / "last-previous.ckpt")


@pytest.mark.parametrize(
    ("place", "call", "newest", "described"),
    [
        ("os.link", 1, 2, True),
        ("pathlib.Path.replace", 1, 2, True),  # of the old manifest
        ("pathlib.Path.replace", 2, 2, False),  # of the new file
        ("fulgurite.checkpoints.io.write_atomic", 1, 3, False),
    ],
)
def test_between_any_two_steps_of_a_save_no_file_lies_beside_the_manifest_of_another(
    place: str, call: int, newest: int, described: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), tmp_path / "last.ckpt")
    calls, real = [], Path.replace

    class Stop(BaseException):
        pass

    def stop(*words: Any) -> object:  # where a kill could come
        calls.append(words)
        if len(calls) == call:
            raise Stop
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(place, stop)
        with pytest.raises(Stop):
            VerifiedCheckpointIO().save_checkpoint(checkpoint(3), tmp_path / "last.ckpt")
    assert step_of(tmp_path / "last.ckpt") == newest
    assert not any(verify(path) for path in tmp_path.glob("*.ckpt"))
    VerifiedCheckpointIO().save_checkpoint(checkpoint(4), tmp_path / "last.ckpt")
    more = ["last-previous.ckpt.json"] if described else []  # the manifest had gone before the stop
    assert names_in(tmp_path) == ["last-previous.ckpt", *more, "last.ckpt", "last.ckpt.json"]


def damage(path: Path, how: str) -> None:
    """Cut a checkpoint short, flip one bit of it, or spoil its manifest."""
    if how == "manifest":
        manifest_of(path).write_text("{")
        return
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content if how == "flipped" else content[: len(content) // 2])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("cut", r"it has \d+ bytes, not \d+ as in last.ckpt.json"),
        ("flipped", r"its sha256 is \w{12}..., not \w{12}... as in last.ckpt.json"),
        ("manifest", "its manifest last.ckpt.json is unreadable"),
    ],
)
def test_a_damaged_checkpoint_is_rejected_and_the_previous_one_is_named(
    how: str, told: str, small: ComposeSmall, tmp_path: Path
) -> None:
    train(small("trainer.max_epochs=2", "test=false", "callbacks.model_checkpoint=null"))
    last = tmp_path / "run/checkpoints/last.ckpt"
    damage(last, how)
    with pytest.raises(UserError, match=told) as caught:
        evaluate(small(f"ckpt_path={last}", config_name="eval", folder=tmp_path / "eval"))
    line = str(caught.value)
    assert f"use {last.with_name('last-previous.ckpt')}, which is intact (step 4)" in line
    assert "\n" not in line
    assert read_json(tmp_path / "eval/run.json")["exit_code"] == 2


@pytest.mark.parametrize("writer", [VerifiedCheckpointIO, AsyncVerifiedCheckpointIO])
@pytest.mark.parametrize(
    ("how", "has_manifest"),  # without a manifest, a changed weight cannot be seen
    [("flipped", True), *((how, given) for how in ("cut", "empty", "header") for given in (True, False))],
)
def test_a_trainer_that_loads_a_damaged_file_is_refused(
    how: str, has_manifest: bool, writer: type[VerifiedCheckpointIO], tmp_path: Path
) -> None:
    path, saving = tmp_path / "last.ckpt", writer()
    for step in (1, 2):
        saving.save_checkpoint(checkpoint(step), path)
    assert saving.load_checkpoint(path, weights_only=True)["global_step"] == 2
    content = path.read_bytes()
    if how in {"empty", "header"}:
        path.write_bytes(b"" if how == "empty" else bytes(64) + content[64:])
    else:
        damage(path, how)
    if not has_manifest:
        path.with_name("last.ckpt.json").unlink()
    with pytest.raises(UserError, match=r"last-previous.ckpt, which is intact \(step 1\)"):
        saving.load_checkpoint(path, weights_only=True)


def test_a_damaged_previous_checkpoint_is_not_suggested(tmp_path: Path) -> None:
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), tmp_path / "last.ckpt")
    for path in tmp_path.glob("*.ckpt"):
        damage(path, "flipped")
    trainer = Trainer(logger=False, accelerator="cpu", callbacks=[best := ModelCheckpoint(monitor="x")])
    best.best_model_path = str(tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="no intact checkpoint is in its folder"):  # nor are damaged weights ever scored
        checkpoint_to_test(trainer, trained=True, given=None)


def test_a_best_checkpoint_that_is_gone_leaves_the_next_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best, last = ModelCheckpoint(tmp_path, monitor="val/acc"), ModelCheckpoint(tmp_path)
    VerifiedCheckpointIO().save_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    best.best_model_path, last.best_model_path = str(tmp_path / "best.ckpt"), str(tmp_path / "last.ckpt")
    trainer = Trainer(callbacks=[best, last], logger=False, accelerator="cpu")
    assert checkpoint_to_test(trainer, trained=True, given=None) == str(tmp_path / "last.ckpt")
    assert "best.ckpt: the best checkpoint is missing" in caplog.text


def test_newest_intact_returns_the_newest_generation_and_names_damaged_ones(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "last-previous.ckpt"
    assert newest_intact(tmp_path / "not there") == newest_intact(tmp_path) == (None, [])
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), last)
    VerifiedCheckpointIO().save_checkpoint(checkpoint(9), tmp_path / "best.ckpt")  # is none to go on from
    assert newest_intact(tmp_path) == (last, [])
    damage(last, "flipped")
    found, (line,) = newest_intact(tmp_path)
    assert found == previous
    assert line.startswith(f"{last}: its sha256 is ")
    damage(previous, "cut")
    found, lines = newest_intact(tmp_path)
    assert found is None
    assert [line.partition(":")[0] for line in lines] == [str(last), str(previous)]


@pytest.mark.parametrize(("how", "told"), [("flipped", "its member "), ("cut", "it is not an intact checkpoint")])
def test_newest_intact_verifies_a_file_without_a_manifest(how: str, told: str, tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), last)
    manifest_of(last).unlink()  # a kill right after the file took its name
    assert newest_intact(tmp_path) == (last, [])
    damage(last, how)
    found, (line,) = newest_intact(tmp_path)
    assert found == last.with_name("last-previous.ckpt")
    assert told in line


def test_a_file_without_a_manifest_is_taken(small: ComposeSmall, tmp_path: Path) -> None:
    metrics = train(small())
    weights = tmp_path / "run" / read_json(tmp_path / "run/results.json")["weights"]
    alone = shutil.copy(weights, tmp_path / "alone.ckpt")
    assert (
        evaluate(small(f"ckpt_path={alone}", config_name="eval", folder=tmp_path / "eval"))["test/acc"]
        == metrics["test/acc"]
    )


def test_a_writer_of_the_users_own_is_kept_and_ours_is_the_default(small: ComposeSmall) -> None:
    cfg = small()
    assert type(build(cfg).trainer.strategy.checkpoint_io) is VerifiedCheckpointIO
    own = Trainer(logger=False, accelerator="cpu", plugins=AsyncCheckpointIO(TorchCheckpointIO()))
    install_checkpoint_io(own, {})
    assert isinstance(own.strategy.checkpoint_io, AsyncCheckpointIO)


def test_a_remote_path_is_left_to_lightning() -> None:
    import fsspec  # type: ignore[import-untyped, unused-ignore]  # some environments have its stubs

    VerifiedCheckpointIO().save_checkpoint(checkpoint(1), "memory://far/last.ckpt")
    files = fsspec.filesystem("memory")
    assert files.ls("/far", detail=False) == ["/far/last.ckpt"]
    VerifiedCheckpointIO().remove_checkpoint("memory://far/last.ckpt")
    assert not files.exists("/far/last.ckpt")


def killed(
    folder: Path, kills: int, megabytes: int, *, temporary: str | None = None, writer: str = "VerifiedCheckpointIO"
) -> list[dict[str, Any]]:
    """Kill processes that save and return what each kill left, which must be intact."""
    looks = kill_writers(folder, kills, megabytes * 10**6, writer, temporary)
    assert len(looks) == kills
    for look in looks:
        assert look["last"] is not None  # it loads, and is of one piece
        assert look["last"] >= look["before"]
        assert (look["damage"], look["previous_damage"]) == ("", "")
    assert sum(look["left"] for look in looks) > 0  # some were hit while they wrote
    assert not list(folder.glob(".*")), "the next save takes away what killed ones left"
    return looks


@posix
@pytest.mark.parametrize(
    "writer", ["VerifiedCheckpointIO", pytest.param("AsyncVerifiedCheckpointIO", marks=pytest.mark.slow)]
)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(writer: str, tmp_path: Path) -> None:
    killed(tmp_path, kills=2, megabytes=20, writer=writer)


@pytest.mark.slow
@RunIf(posix=True, path="/dev/shm")
@pytest.mark.parametrize("writer", ["VerifiedCheckpointIO", "AsyncVerifiedCheckpointIO"])
def test_twenty_kills_at_twenty_moments_with_tmpdir_on_another_file_system(writer: str, tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is the same file system")
    before = {path.name for path in shared.iterdir()}
    looks = killed(tmp_path, kills=20, megabytes=200, temporary="/dev/shm", writer=writer)
    assert sum(look["left"] == 1 for look in looks) >= 10
    assert not [path for path in shared.iterdir() if path.name not in before and path.stat().st_size > 1e6]


@posix
@pytest.mark.parametrize("numbers", [10_000, 1_000_000], ids=["at the end", "in the midst"])
def test_a_full_disk_leaves_the_one_before_and_says_what_to_do(numbers: int, tmp_path: Path) -> None:
    files, path = VerifiedCheckpointIO(), tmp_path / "last.ckpt"
    for step in (1, 2):
        files.save_checkpoint(checkpoint(step), path)
    before = {file.name: sha256_of(file) for file in tmp_path.iterdir()}
    with largest_file(20_000), pytest.raises(DiskFull, match="no space for a checkpoint of") as caught:
        files.save_checkpoint(checkpoint(3, numbers), path)
    assert {file.name: sha256_of(file) for file in tmp_path.iterdir()} == before
    line = str(caught.value)
    assert "File too large" in line
    assert "Free some space, or set dirpath=<folder on another disk>" in line
    assert line.endswith(f"resume from the intact previous one with ckpt_path={path}.")
    assert "\n" not in line


@posix
@pytest.mark.parametrize(
    "option",
    ["resilience.async_checkpoints=false", pytest.param("resilience.async_checkpoints=true", marks=pytest.mark.slow)],
)
def test_a_run_on_a_full_disk_ends_with_one_line_and_2(option: str, tmp_path: Path) -> None:
    words = [option, "+trainer.limit_train_batches=4", "extras.print_config=false", f"paths.log_dir={tmp_path}"]
    done = WarmProcess("train", words, tmp_path / "said", largest_file=400 * 1024).wait()
    assert done.returncode == 2, done.stderr
    said = done.stdout + done.stderr
    assert said.count("no space for a checkpoint of 8") == 1  # 8xx KiB
    assert "Traceback" not in said
    run = only_run(tmp_path)
    record = read_json(run / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)
    assert "ulimit -f" in record["reason"]
    assert names_in(run / "checkpoints") == []


def test_a_record_that_cannot_be_written_does_not_hide_how_the_run_ended(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fulgurite.engine.record.RunRecord.close", full)
    with pytest.raises(UserError, match="train=false tests a checkpoint"):
        train(small("train=false"))
    assert "the end of the run cannot be recorded (No space left on device)" in caplog.text


def test_little_disk_space_is_reported_before_the_run(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(ROOT)
    caplog.set_level(logging.WARNING)
    build(small())
    assert "free, and a checkpoint will take about" not in caplog.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    build(small())
    assert "2 MiB free, but a checkpoint takes about 799 KiB, and saving needs three" in caplog.text
    caplog.clear()
    build(small("train=false", "ckpt_path=x.ckpt"))
    assert "free, and" not in caplog.text


def test_the_expected_size_is_that_of_the_file(small: ComposeSmall, tmp_path: Path) -> None:
    cfg = small("test=false", "resilience.exact_resume=false")
    train(cfg)
    real = (tmp_path / "run/checkpoints/last.ckpt").stat().st_size
    run = build(cfg)
    assert expected_size(run.model) == pytest.approx(real, rel=0.05)  # Adam's two moments


def test_the_folder_need_not_exist_to_be_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_disk_full_soon(tmp_path / "not" / "yet", size=10**18)
    assert f"{tmp_path}/not/yet" in caplog.text
