"""Test the files of a run, its bitwise repetition and the weights that it evaluates."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fulgurite.core.errors import UserError
from fulgurite.engine.build import build
from src.eval import evaluate
from src.train import train
from tests.conftest import ComposeSmall, callbacks_of
from tests.support.cli import read_json


def test_a_run_leaves_its_record_its_numbers_and_its_checkpoints(small: ComposeSmall, tmp_path: Path) -> None:
    metrics = train(small("trainer.max_epochs=2"))
    folder = tmp_path / "run"
    record, results = read_json(folder / "run.json"), read_json(folder / "results.json")
    assert (record["status"], record["exit_code"], record["reason"]) == ("done", 0, None)
    assert record["start"] <= record["end"]
    assert record["parameters"] == {"total": 67978, "trainable": 67978}
    assert results["metrics"] == metrics
    assert results["weights"] in {"checkpoints/best-000.ckpt", "checkpoints/best-001.ckpt"}
    assert (folder / results["weights"]).is_file()
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["val/acc"]] == ["3", "7"]
    assert float(rows[-1]["test/acc"]) == metrics["test/acc"]
    assert set(metrics) >= {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")}
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_the_last_checkpoint_is_the_last_epoch_even_when_the_metric_peaked_before(
    small: ComposeSmall, tmp_path: Path
) -> None:
    # the best so far never falls, so the lowest is the first
    lowest = ("callbacks.model_checkpoint.mode=min", "callbacks.model_checkpoint.monitor=val/acc_best")
    train(small("trainer.max_epochs=4", *lowest, "test=false"))
    folder = tmp_path / "run" / "checkpoints"
    names = ["best-000.ckpt", "last-previous.ckpt", "last.ckpt"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *(f"{name}.json" for name in names)])
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 3


def test_checkpoints_hold_tensors_and_plain_values_only(small: ComposeSmall, tmp_path: Path) -> None:
    train(small("test=false", "model=mnist_convnet"))  # its channels are a list in the config
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["num_classes"] == 10
    assert checkpoint["state_dict"]["net.layers.0.weight"].shape == (16, 1, 3, 3)


SWA = "+callbacks.swa={_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: 0.1}"


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides:UserWarning")
@pytest.mark.parametrize(
    "override", ["callbacks=default", "callbacks=[default,ema]", SWA], ids=["default", "ema", "swa"]
)
def test_train_false_and_eval_of_a_checkpoint_give_the_number_of_its_own_run(
    small: ComposeSmall, tmp_path: Path, override: str
) -> None:
    trained = train(small(override, "trainer.max_epochs=2"))
    weights = tmp_path / "run" / read_json(tmp_path / "run/results.json")["weights"]
    again = train(small(override, "train=false", f"ckpt_path={weights}", folder=tmp_path / "again"))
    scored = evaluate(small(f"ckpt_path={weights}", override, config_name="eval", folder=tmp_path / "eval"))
    assert again["test/acc"] == scored["test/acc"] == trained["test/acc"]
    assert again["test/loss"] == scored["test/loss"] == trained["test/loss"]


def test_untrained_weights_are_never_tested(small: ComposeSmall, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train=false tests a checkpoint and none is given"):
        train(small("train=false"))
    record = read_json(tmp_path / "run/run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 2)


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [(("test=false",), r"saved    checkpoints/best-00\d\.ckpt\n"), (("callbacks=none",), "weights  in memory\n")],
)
def test_the_last_lines_name_the_best_checkpoint_of_a_run_without_a_test(
    overrides: tuple[str, ...], shown: str, small: ComposeSmall, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small("test=false", *overrides, "+trainer.enable_checkpointing=" + str("callbacks=none" not in overrides)))
    assert re.search(f"^{shown}run ", capsys.readouterr().out, re.MULTILINE)


def test_without_checkpoints_the_weights_in_memory_are_tested(small: ComposeSmall, tmp_path: Path) -> None:
    metrics = train(small("callbacks=none", "+trainer.enable_checkpointing=false"))
    assert read_json(tmp_path / "run/results.json")["weights"] is None
    assert 0 <= metrics["test/acc"] <= 1


def test_the_same_seed_gives_the_same_numbers_to_the_last_bit_and_zero_is_a_seed(
    small: ComposeSmall, tmp_path: Path
) -> None:
    first, second, other = (
        train(small(f"seed={seed}", folder=tmp_path / name)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == second
    assert first["train/loss"] != other["train/loss"]
    states = [_weights(tmp_path / name) for name in "ab"]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return state


class Losses(Callback):
    """Callback that collects the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Keep the loss."""
        assert isinstance(outputs, dict)
        self.values.append(float(outputs["loss"]))


def test_going_on_from_a_checkpoint_continues_the_count_of_epochs_and_steps(
    small: ComposeSmall, tmp_path: Path
) -> None:
    train(small("trainer.max_epochs=2", "test=false"))
    train(
        small(
            "trainer.max_epochs=3",
            "test=false",
            f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt",
            folder=tmp_path / "more",
        )
    )
    checkpoint = torch.load(tmp_path / "more/checkpoints/last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (2, 12)


def test_the_first_twenty_losses_of_the_default_run_are_the_stored_ones(small: ComposeSmall) -> None:
    # plain SGD in float64: the first steps of Adam are signs of gradients, and float32 sums differ between processors
    sgd = ("model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.05", "model.optimizer.fused=false")
    cfg = small(
        "+trainer.max_steps=20", "+trainer.num_sanity_val_steps=0", "+trainer.precision=64-true", "seed=42", *sgd
    )
    cfg.trainer.limit_train_batches = 20
    run = build(cfg)
    losses = Losses()
    callbacks_of(run.trainer).append(losses)
    run.trainer.fit(run.model, datamodule=run.datamodule)
    stored = [float(line) for line in (Path(__file__).parent / "golden_losses.txt").read_text().split()]
    assert len(stored) == 20
    assert losses.values == pytest.approx(stored, rel=1e-6)
