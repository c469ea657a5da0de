"""Test the message of an out-of-memory error, and that the log keeps its traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fulgurite.core.errors import EXIT_CRASH, is_out_of_memory
from fulgurite.engine.outcome import classify_error
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import only_run, read_json, run_cli


def test_a_device_that_is_full_is_told_with_the_batch_size_and_what_to_try(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total of ...")

    monkeypatch.setattr("src.models.classifier.Classifier.training_step", full)
    with pytest.raises(torch.OutOfMemoryError):
        train(small("data.batch_size=96", "+trainer.accumulate_grad_batches=2"))
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", EXIT_CRASH)
    assert record["reason"] == (
        "out of memory with data.batch_size=96: try data.batch_size=48 trainer.accumulate_grad_batches=4, "
        "or +trainer.precision=bf16-mixed, or a smaller net "
        "(OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.)"
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("data.batch_size=1",),
            "data.batch_size=1: try +trainer.precision=bf16-mixed, or a smaller net (MemoryError)",
        ),
        (
            ("+trainer.precision=bf16-mixed",),
            "try data.batch_size=32 +trainer.accumulate_grad_batches=2, or a smaller net (",
        ),
        (("data.batch_size=1", "+trainer.precision=32"), "try trainer.precision=bf16-mixed, or a smaller net ("),
    ],
)
def test_an_out_of_memory_message_omits_remedies_already_in_use(
    overrides: tuple[str, ...], told: str, small: ComposeSmall
) -> None:
    assert told in classify_error(MemoryError(), small(*overrides)).reason


def test_out_of_memory_errors_of_host_and_device_are_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as refused:
        np.empty(2**60, np.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_terminal_gets_one_line_and_the_log_the_traceback(tmp_path: Path) -> None:
    done = run_cli("train", "model.net.lin1_size=1000000000000", "extras.print_config=false", logs=tmp_path)
    assert done.returncode == EXIT_CRASH
    said = done.stdout + done.stderr
    assert "out of memory with data.batch_size=" in said
    assert "Traceback" not in said
    log = (only_run(tmp_path) / "train.log").read_text()
    assert "Traceback" in log
    assert "DefaultCPUAllocator" in log
    assert read_json(only_run(tmp_path) / "run.json")["reason"].startswith("out of memory with data.batch_size=")
