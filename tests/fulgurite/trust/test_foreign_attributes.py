"""What a checkpoint of another origin restores in the objects of the user: no path, no address, no variable."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from fulgurite.trust.sources import begin_composition
from tests.support.quiet_trainer import fit_hardened
from tests.support.toy_task import OrdinaryData, OrdinaryModel


class Writes(OrdinaryModel):
    """A model that keeps where it writes, and that changes in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.chosen, self.note = "reports", Path("best"), ""
        self.files: list[Any] = []

    def on_train_epoch_end(self) -> None:
        """Change the attributes, and a variable of the environment."""
        epoch = self.current_epoch
        self.folder, self.chosen, self.note = f"reports{epoch}", Path(f"best{epoch}"), f"val/loss {epoch}"
        self.files.append({"file": f"a{epoch}"})
        os.environ["OWN_VARIABLE"] = f"epoch {epoch}"


PLACES = ["/etc/cron.d/x", "~/.ssh/authorized_keys", "https://evil.example/x", "a/../../x", "file:///etc/x"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what trains a model of `Writes`, and edits the saved attributes of its checkpoint."""
    monkeypatch.setenv("OWN_VARIABLE", "at the start")
    few: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    folder = tmp_path / "made"
    fit_hardened(Writes(), OrdinaryData(), folder, [LastCheckpoint(folder / "ck")], **few)

    def edit(change: Callable[[dict[str, Any]], None], to: Path) -> Path:
        content = torch.load(folder / "ck/last.ckpt", weights_only=True)
        [exact] = [state for key, state in content["callbacks"].items() if key.startswith("ExactResume")]
        for own in exact["ranks"]:
            change(own["user"]["objects"])
        to.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, to)
        return to

    return edit


def resumed(run: Path, source: Path) -> SimpleNamespace:
    """Return what a run has at the start of the second epoch, which it resumes."""
    model = Writes()
    held: dict[str, Any] = {}

    def keep(*_: Any) -> None:
        names = ("folder", "chosen", "note", "files")
        held.update({name: copy.deepcopy(getattr(model, name)) for name in names}, environment=dict(os.environ))

    start = LambdaCallback(on_train_batch_end=keep)
    few: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 1, "limit_val_batches": 1}
    fit_hardened(model, OrdinaryData(), run, [start, LastCheckpoint(run / "ck")], ckpt_path=source, **few)
    return SimpleNamespace(**held)


@pytest.mark.parametrize("place", PLACES)
def test_attributes_of_a_foreign_checkpoint_name_no_place_elsewhere(
    place: str, written: Callable[..., Path], tmp_path: Path
) -> None:
    def change(objects: dict[str, Any]) -> None:
        objects["model"] |= {"folder": place, "chosen": ["path", place]}
        objects["model"]["files"] = ["list", [["dict", [["file", place], [place, 1]]]]]

    model = resumed(tmp_path / "run", written(change, tmp_path / "given/x.ckpt"))
    assert (model.folder, model.chosen, model.note, model.files) == ("reports", Path("best"), "val/loss 0", [{}])
    named = [line for line in current_context().inexact if f"trust=[{tmp_path}/given]" in line]
    assert sorted(line.partition(":")[0] for line in named) == ["model.chosen", "model.files", "model.folder"]


def test_attributes_of_the_own_checkpoint_are_restored_as_they_were(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    def change(objects: dict[str, Any]) -> None:
        objects["model"]["folder"] = "/scratch/mine"

    assert resumed(tmp_path / "run", written(change, tmp_path / "run/ck/given.ckpt")).folder == "/scratch/mine"
    assert resumed(tmp_path / "other", written(change, tmp_path / "given.ckpt")).folder == "reports"


def test_attributes_of_a_checkpoint_in_a_trusted_folder_are_restored_as_they_were(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    def change(objects: dict[str, Any]) -> None:
        objects["model"] |= {"folder": "/scratch/mine", "chosen": ["path", "/scratch/best"]}

    source = written(change, tmp_path / "given/x.ckpt")
    begin_composition([f"trust=[{tmp_path}/given]"])
    model = resumed(tmp_path / "run", source)
    assert (model.folder, model.chosen, model.files) == ("/scratch/mine", Path("/scratch/best"), [{"file": "a0"}])
    assert not [line for line in current_context().inexact if "trust=" in line]
    begin_composition([f"trust=[{tmp_path}/elsewhere]"])
    assert resumed(tmp_path / "other", source).folder == "reports"


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "HTTPS_PROXY", "OWN", "TRITON_PTXAS_PATH"])
def test_a_checkpoint_sets_no_variable_that_no_code_names(
    name: str, written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)

    def change(objects: dict[str, Any]) -> None:
        [(key, _)] = [(key, plain) for key, plain in objects["process"].items() if "OWN_VARIABLE" in str(plain)]
        pairs = [["tuple", ["OWN_VARIABLE", "epoch 7"]], ["tuple", [name, "evil"]]]
        objects["process"][key] = ["tuple", pairs]

    seen = resumed(tmp_path / "run", written(change, tmp_path / "run/ck/given.ckpt")).environment
    assert seen["OWN_VARIABLE"] == "epoch 7"
    assert name not in seen
    assert any(name in line for line in current_context().inexact)
