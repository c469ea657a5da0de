"""Checkpoints written behind the training's back are the same files, in the same order, with the same errors."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from fulgurite.checkpoints.async_io import AsyncVerifiedCheckpointIO, copy_to_host
from fulgurite.checkpoints.io import VerifiedCheckpointIO
from fulgurite.checkpoints.manifest import manifest_of, verify
from fulgurite.core.errors import DiskFull
from fulgurite.core.files import sha256_of
from fulgurite.engine.build import build
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import read_json


class Gate:
    """Holds every write until it is opened, or lets it fail.

    Args:
        monkeypatch: Puts it in place of the writer.
        failure: What a write raises.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.open = threading.Event()
        real = VerifiedCheckpointIO.save_checkpoint

        def save(*words: Any) -> None:
            assert self.open.wait(60)
            if failure is not None:
                raise failure
            real(*words)

        monkeypatch.setattr(VerifiedCheckpointIO, "save_checkpoint", save)


def checkpoint(step: int, weight: torch.Tensor) -> dict[str, Any]:
    """Return a checkpoint of one weight."""
    return {"state_dict": {"w": weight}, "global_step": step, "epoch": 0}


def value_in(path: Path) -> float:
    """Return the weight in a file."""
    return float(torch.load(path, weights_only=True)["state_dict"]["w"])


def test_a_run_leaves_the_same_weights_and_manifests_as_one_that_waits(small: ComposeSmall, tmp_path: Path) -> None:
    results = {}
    for name in ("false", "true"):
        cfg = small("trainer.max_epochs=2", f"resilience.async_checkpoints={name}", folder=tmp_path / name)
        results[name] = train(cfg)
    assert results["true"] == results["false"]
    cfg = small("resilience.async_checkpoints=true", folder=tmp_path / "third")
    assert type(build(cfg).trainer.strategy.checkpoint_io) is AsyncVerifiedCheckpointIO
    for file in (tmp_path / "false/checkpoints").glob("*.ckpt"):
        other = tmp_path / "true/checkpoints" / file.name
        waited, behind = (torch.load(path, weights_only=True)["state_dict"] for path in (file, other))
        assert all(torch.equal(behind[key], value) for key, value in waited.items())
        told = [read_json(manifest_of(path)) for path in (file, other)]
        assert told[1]["sha256"] == sha256_of(other)
        assert all(told[0][key] == told[1][key] for key in ("step", "epoch", "config_hash"))
    folders = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in results]
    assert folders[0] == folders[1]
    assert len(folders[0]) == 6


def test_an_async_save_is_unaffected_by_training_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, files, weight = Gate(monkeypatch), AsyncVerifiedCheckpointIO(), torch.ones(())
    files.save_checkpoint(checkpoint(1, weight), tmp_path / "last.ckpt")
    weight.fill_(7)
    assert not (tmp_path / "last.ckpt").exists()  # and yet the call has returned
    gate.open.set()
    assert files.load_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"] == 1  # waits
    assert not verify(tmp_path / "last.ckpt")


def test_a_second_save_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, files = Gate(monkeypatch), AsyncVerifiedCheckpointIO()
    files.save_checkpoint(checkpoint(1, torch.ones(())), tmp_path / "last.ckpt")
    second = threading.Thread(
        target=files.save_checkpoint, args=(checkpoint(2, torch.zeros(())), tmp_path / "last.ckpt")
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.open.set()
    second.join(60)
    files.teardown()
    assert [value_in(tmp_path / name) for name in ("last.ckpt", "last-previous.ckpt")] == [0, 1]


def test_what_a_save_replaces_stays_until_that_save_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, old = AsyncVerifiedCheckpointIO(), tmp_path / "best-000.ckpt"
    for failure in (OSError("no"), None):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(1, torch.ones(())), old)
        with monkeypatch.context() as patch:
            gate = Gate(patch, failure)
            files.save_checkpoint(checkpoint(2, torch.ones(())), tmp_path / "best-001.ckpt")
            files.remove_checkpoint(old)
            assert old.exists()
            gate.open.set()
            if failure:
                with pytest.raises(OSError, match="no"):
                    files.finish()
            else:
                files.finish()
        assert old.exists() == manifest_of(old).exists() == bool(failure)
    assert value_in(tmp_path / "best-001.ckpt") == 1


def test_an_error_is_raised_once_at_the_next_save_or_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Gate(monkeypatch, DiskFull("no room for it")).open.set()
    files, value = AsyncVerifiedCheckpointIO(), checkpoint(1, torch.ones(()))
    files.save_checkpoint(value, tmp_path / "last.ckpt")
    with pytest.raises(DiskFull, match="no room for it"):
        files.save_checkpoint(value, tmp_path / "last.ckpt")
    files.teardown()  # it was told
    files.save_checkpoint(value, tmp_path / "last.ckpt")
    with pytest.raises(DiskFull, match="no room for it"):
        files.teardown()
    files.save_checkpoint(value, tmp_path / "last.ckpt")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        files.teardown()  # what ended the run is not hidden
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == ["no room for it"]


def test_the_copy_keeps_types_attributes_and_tied_tensors_and_shares_nothing_else() -> None:
    weight = torch.arange(6.0)
    state = OrderedDict(a=weight, tied=weight.detach(), part=weight[2:])
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    given: dict[str, Any] = {"state_dict": state, "list": [weight, {"x": 1}], "pair": (1, None), "none": torch.empty(0)}
    copy = copy_to_host(given)
    assert vars(copy["state_dict"]) == {"_metadata": {"": {"version": 2}}}
    assert type(copy["state_dict"]) is OrderedDict
    assert copy["state_dict"]["a"].data_ptr() == copy["state_dict"]["tied"].data_ptr() != weight.data_ptr()
    assert copy["pair"] == (1, None)
    weight.fill_(-1)
    given["list"][1]["x"] = 2
    assert copy["list"][0].tolist() == [0, 1, 2, 3, 4, 5]
    assert copy["state_dict"]["part"].tolist() == [2, 3, 4, 5]
    assert copy["list"][1] == {"x": 1}
