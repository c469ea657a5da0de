"""A loss that is NaN or infinite stops the run before the weights take it, and spoilt weights are never saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.callbacks.nan_guard import NaNGuard
from fulgurite.checkpoints.manifest import verify
from fulgurite.checkpoints.setup import install_checkpoint_io
from fulgurite.core.errors import Diverged
from src.models.classifier import Batch, Classifier
from src.train import train
from tests.conftest import ComposeSmall, callbacks_of
from tests.support.cli import only_run, read_json, run_cli

Spoil = Callable[[Classifier, Batch, int], None]


def spoiled(monkeypatch: pytest.MonkeyPatch, call: int, factor: float) -> None:
    """Multiply the training loss of the `call`-th batch of the run, counted from 0."""
    real, calls = Classifier.training_step, []

    def step(self: Classifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        calls.append(batch_idx)
        loss = real(self, batch, batch_idx)
        return loss * factor if len(calls) == call + 1 else loss

    monkeypatch.setattr(Classifier, "training_step", step)


class Witness(Callback):
    """Keeps the weights and the count of optimizer steps at the moment the run failed."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.steps = -1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep them."""
        self.weights = {name: value.detach().clone() for name, value in pl_module.named_parameters()}
        self.steps = trainer.global_step


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    """Stand among the callbacks of every run that is built."""
    seen = Witness()

    def add(trainer: Trainer, *rest: Any, **options: Any) -> None:
        callbacks_of(trainer).append(seen)
        install_checkpoint_io(trainer, *rest, **options)

    monkeypatch.setattr("fulgurite.engine.instrument.install_checkpoint_io", add)
    return seen


def finite_checkpoints(folder: Path) -> dict[str, int]:
    """Return the steps of the checkpoints of a folder, each of which must be whole and finite."""
    steps = {}
    for path in sorted(folder.glob("*.ckpt")):
        content = torch.load(path, weights_only=True)
        assert not verify(path)
        assert all(value.isfinite().all() for name, value in content["state_dict"].items() if name.startswith("net"))
        steps[path.name] = content["global_step"]
    return steps


@pytest.mark.parametrize(("factor", "told"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_bad_loss_stops_before_its_step_and_leaves_the_checkpoints_of_before(
    factor: float, told: str, small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    spoiled(monkeypatch, call=6, factor=factor)  # the third batch of the second epoch of four
    with pytest.raises(Diverged) as caught:
        train(small("trainer.max_epochs=3"))
    line = str(caught.value)
    assert f"the training loss is {told} (step 6, epoch 1, batch 2). The run stopped before the optimizer step" in line
    assert "find the module with extras.find_nan=true" in line
    assert "\n" not in line
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"], record["reason"]) == ("failed", 3, line)
    assert witness.steps == 6
    assert all(value.isfinite().all() for value in witness.weights.values())
    assert finite_checkpoints(tmp_path / "run/checkpoints") == {"best-000.ckpt": 4, "last.ckpt": 4}


@pytest.mark.parametrize("call", [2, 3], ids=["gathers only", "is stepped with"])
def test_a_bad_loss_among_gathered_gradients_stops_too(
    call: int, small: ComposeSmall, monkeypatch: pytest.MonkeyPatch, witness: Witness
) -> None:
    spoiled(monkeypatch, call=call, factor=float("nan"))
    with pytest.raises(Diverged, match=rf"\(step 1, epoch 0, batch {call}\)"):
        train(small("+trainer.accumulate_grad_batches=2"))
    assert witness.steps == 1
    assert all(value.isfinite().all() for value in witness.weights.values())


def test_without_the_guard_the_weights_are_lost(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, call=2, factor=float("nan"))
    train(small("callbacks.nan_guard=null", "test=false"))
    weights = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not weights["net.layers.1.weight"].isfinite().any()


def test_weights_spoilt_by_gradients_alone_are_not_saved(
    small: ComposeSmall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Classifier.training_step

    def step(self: Classifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = real(self, batch, batch_idx)
        # 0 forward, infinity times 0 backward; on the last batch before the first save
        return loss + (next(self.net.parameters()) * 0).square().sum().sqrt() if batch_idx == 3 else loss

    monkeypatch.setattr(Classifier, "training_step", step)
    with pytest.raises(
        Diverged, match=r"the weights contain NaN or infinity \(first in net\.layers.*They were not saved"
    ):
        train(small())
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    assert read_json(tmp_path / "run/run.json")["exit_code"] == 3


def poisoned(monkeypatch: pytest.MonkeyPatch, spoil: Spoil) -> None:
    """Do something to the model or the batch before each training step."""
    real = Classifier.training_step

    def step(self: Classifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        spoil(self, batch, batch_idx)
        return real(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)


def spoil_a_layer(model: Classifier, batch: Batch, batch_idx: int) -> None:
    """Put one NaN into the second dense layer."""
    if batch_idx == 2:
        model.get_parameter("net.layers.4.weight").data[0, 0] = float("nan")


def spoil_the_batch(model: Classifier, batch: Batch, batch_idx: int) -> None:
    """Put one NaN into an image."""
    if batch_idx == 2:
        batch[0][0, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_a_layer, "The first output that is not finite is of net.layers.4 (Linear); its input is finite"),
        (
            spoil_the_batch,
            "The first output that is not finite is of net.layers.0 (Flatten); its input is not finite",
        ),
    ],
)
def test_find_nan_names_the_first_module_with_a_bad_output(
    spoil: Spoil, told: str, small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, spoil)
    with pytest.raises(Diverged) as caught:
        train(small("extras.find_nan=true"))
    assert told in str(caught.value)
    assert "step 2, epoch 0, batch 2" in str(caught.value)


def test_a_bad_loss_of_finite_outputs_is_attributed_to_the_loss_function(
    small: ComposeSmall, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, call=1, factor=float("nan"))
    with pytest.raises(Diverged, match="The output of every module is finite, so the loss function produced it"):
        train(small("extras.find_nan=true"))


def test_hooks_are_registered_with_find_nan_during_training_only(small: ComposeSmall) -> None:
    from fulgurite.engine.build import build

    counts: dict[bool, list[int]] = {}

    class Count(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            counts.setdefault(wanted, []).append(sum(len(module._forward_hooks) for module in pl_module.modules()))

    for wanted in (False, True):
        run = build(small(f"extras.find_nan={str(wanted).lower()}"))
        callbacks_of(run.trainer).append(Count())
        run.trainer.fit(run.model, datamodule=run.datamodule)
        assert sum(len(module._forward_hooks) for module in run.model.modules()) == 0
    assert counts[False] == [0] * 4
    assert min(counts[True]) >= 6


def test_a_rank_with_a_finite_loss_stops_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose own loss is fine stops with the others: one that went on alone would wait for them for ever."""
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    asked = []

    def reduce(tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        asked.append((float(tensor), reduce_op))
        return tensor + 1  # the other rank's loss is bad

    monkeypatch.setattr(type(trainer), "world_size", 2)
    monkeypatch.setattr(trainer.strategy, "reduce", reduce)
    model = Classifier(torch.nn.Linear(2, 2), 2, torch.optim.SGD)
    with pytest.raises(Diverged, match="the training loss is not finite on another rank"):
        NaNGuard().on_before_backward(trainer, model, torch.tensor(1.0))
    with pytest.raises(Diverged, match="the training loss is nan"):
        NaNGuard().on_before_backward(trainer, model, torch.tensor(float("nan")))
    assert asked == [(0.0, "sum"), (1.0, "sum")]


def test_a_diverging_run_ends_with_one_line_and_3(tmp_path: Path) -> None:
    done = run_cli("train", "model.optimizer.lr=1e30", "extras.print_config=false", logs=tmp_path)
    assert done.returncode == 3, done.stderr
    said = done.stdout + done.stderr
    assert said.count("the training loss is") == 1
    assert "Traceback" not in said
    record = read_json(only_run(tmp_path) / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 3)
    assert not list(only_run(tmp_path).rglob("*.ckpt"))


@pytest.mark.slow
def test_a_diverging_run_of_two_processes_ends_with_3_and_hangs_nowhere(tmp_path: Path) -> None:
    words = ("trainer=ddp_sim", "model.optimizer.lr=1e30", "extras.print_config=false")
    done = run_cli("train", *words, logs=tmp_path, timeout=120)
    assert done.returncode == 3, done.stderr
    assert read_json(only_run(tmp_path) / "run.json")["exit_code"] == 3
