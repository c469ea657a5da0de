"""A worker that hangs is noticed and one that is killed is named; what was saved stays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from fulgurite.checkpoints.manifest import verify
from fulgurite.dataloading.timeout import set_worker_timeout
from fulgurite.dataloading.worker_errors import explain_worker_failure
from fulgurite.engine.build import build
from fulgurite.engine.outcome import classify_error
from fulgurite.exact_resume.loader import ExactLoader
from tests.conftest import ComposeSmall
from tests.support.cli import only_run, read_json, run_cli
from tests.support.run_if import RunIf
from tests.support.toy_task import Noisy

WORDS = (
    "~data",
    "~model",
    "+model={_target_: tests.support.toy_task.OrdinaryModel}",
    "~callbacks.model_checkpoint",
    "~callbacks.early_stopping",
    "callbacks.last_checkpoint.every_n_train_steps=1",
    "extras.allowed_targets=[tests]",
    "extras.print_config=false",
    "test=false",
)


@RunIf(posix=True)
@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        pytest.param(
            "hung", r"the DataLoader's workers returned no batch for 2 s: one of them hangs\.", marks=pytest.mark.slow
        ),
        ("killed", r"DataLoader worker \d+ was killed by SIGKILL\."),
    ],
)
def test_a_lost_worker_is_reported_in_one_line_and_checkpoints_stay(trouble: str, told: str, tmp_path: Path) -> None:
    data = f"+data={{_target_: tests.support.faulty_dataset.TroubledData, trouble: {trouble}}}"
    # a hung worker is ended when the interpreter is, which a process that starts warm goes past
    cold = trouble == "hung"
    done = run_cli("train", *WORDS, data, "resilience.worker_timeout_seconds=2", logs=tmp_path, cold=cold, timeout=100)
    assert done.returncode == 1, done.stderr
    said = done.stdout + done.stderr
    assert len(re.findall(told, said)) == 1
    assert "Traceback" not in said
    folder = only_run(tmp_path)
    assert "Traceback" in (folder / "train.log").read_text()
    record = read_json(folder / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 1)
    assert re.match(told, record["reason"])
    last = folder / "checkpoints/last.ckpt"
    assert not verify(last)
    assert torch.load(last, weights_only=True)["global_step"] >= 8  # 11 batches came before the trouble


def test_every_loader_with_workers_gets_the_timeout_unless_it_has_one() -> None:
    class Data(LightningDataModule):
        def train_dataloader(self) -> Any:
            own = DataLoader(Noisy(0.0), num_workers=1, timeout=5)
            return {"a": [DataLoader(Noisy(0.0), num_workers=1)], "own": own, "none": DataLoader(Noisy(0.0))}

        def val_dataloader(self) -> Any:
            return CombinedLoader([DataLoader(Noisy(0.0), num_workers=1)])

    data, as_it_was = Data(), Data()
    set_worker_timeout(data, 7)
    set_worker_timeout(as_it_was, 0)
    made = data.train_dataloader()
    assert (made["a"][0].timeout, made["own"].timeout, made["none"].timeout) == (7, 5, 0)
    assert data.val_dataloader().flattened[0].timeout == 7
    assert as_it_was.val_dataloader().flattened[0].timeout == 0
    assert "test_dataloader" not in vars(data)  # Lightning would ask for one that is not there
    assert is_overridden("val_dataloader", data, LightningDataModule)


@pytest.mark.parametrize(("words", "limit"), [((), 600), (("resilience.worker_timeout_seconds=0",), 0)])
def test_a_run_waits_ten_minutes_for_a_batch_by_default_in_exact_order_too(
    words: tuple[str, ...], limit: int, small: ComposeSmall
) -> None:
    run = build(small("data.num_workers=1", "resilience.exact_resume=true", *words))
    run.trainer.fit(run.model, datamodule=run.datamodule)
    loader = run.trainer.train_dataloader
    assert type(loader) is ExactLoader
    assert loader.timeout == limit


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "DataLoader worker (pid 12) exited unexpectedly with exit code 3. Details are lost",
            "DataLoader worker 12 exited with code 3.",
        ),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "DataLoader worker 12, 13 exited."),
    ],
)
def test_the_messages_of_torch_about_lost_workers_are_recognised(error: str, told: str) -> None:
    assert told in classify_error(RuntimeError(error)).reason
    assert explain_worker_failure(ValueError(error)) == ""
