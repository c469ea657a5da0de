"""A checkpoint is compared with the model by the names on both sides, as its `strict_loading` says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import OmegaConf
from torch import nn

import fulgurite
from fulgurite.checkpoints.loading import resolve_checkpoint
from fulgurite.checkpoints.matching import matching_state
from src.eval import evaluate
from src.train import train
from tests.conftest import ComposeSmall
from tests.support.cli import WarmProcess, only_run, read_json

FILE = Path("x.ckpt")
ADAM = "{_target_: torch.optim.Adam, _partial_: true, lr: 0.01}"
ADAPTER = (
    "~model",
    f"+model={{_target_: tests.support.adapter.Adapter, optimizer: {ADAM}}}",
    "~callbacks.early_stopping",
    "callbacks.model_checkpoint.monitor=val/loss",
    "callbacks.model_checkpoint.mode=min",
    "extras.allowed_targets=[tests]",
)
QUICK = (
    "+trainer.limit_train_batches=3",
    "+trainer.limit_val_batches=1",
    "+trainer.limit_test_batches=1",
    "callbacks.progress_bar=null",
    "callbacks.model_summary=null",
    "trainer.enable_progress_bar=false",
)


class Two(LightningModule):
    """A body and a head."""

    def __init__(self, width: int = 2, strict: bool = True) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, width)
        self.strict_loading = strict


class Renaming(Two):
    """Loads checkpoints of an earlier version, whose body was a trunk."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rename it."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name.replace("trunk", "body"): value for name, value in state.items()}


def saved(*left_out: str, width: int = 2) -> dict[str, Any]:
    """Return a checkpoint of `Two` without some modules."""
    state = Two(width).state_dict()
    return {"state_dict": {name: value for name, value in state.items() if not name.startswith(left_out or "-")}}


def refuse(checkpoint: dict[str, Any], model: LightningModule, *skip: str) -> str:
    """Return the line that refuses a checkpoint."""
    with pytest.raises(fulgurite.UserError) as caught:
        matching_state(checkpoint, model, FILE, skip)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_partial_checkpoint_needs_strict_loading_off(caplog: pytest.LogCaptureFixture) -> None:
    assert "body.weight is missing in the file and (2, 2) in the model" in refuse(saved("body"), Two())
    with caplog.at_level(logging.INFO):
        state = matching_state(saved("body"), Two(strict=False), FILE, report=True)
    assert list(state) == ["head.weight", "head.bias"]
    assert "x.ckpt: took 2 of 4 values; these stay as built: body.weight, body.bias" in caplog.text
    assert "head.weight is (3, 2) in the file" in refuse(saved(width=3), Two(strict=False))
    assert "4 in all" in refuse(saved("body", "head"), Two(strict=False))


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("resume", "resume={run}: last.ckpt was saved from another model (head.weight"),
        ("run", "run={run}: last.ckpt was saved from another model (head.weight"),
        ("none", "ckpt_path={run}/checkpoints/last.ckpt: was saved from another model (head.weight"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_the_argument_that_named_it(
    key: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints/last.ckpt"
    torch.save(saved(), path)
    named = {"resume": {"run": str(tmp_path)}} if key == "resume" else {key: str(tmp_path)}
    cfg = OmegaConf.create({"ckpt_path": str(path), "paths": {"log_dir": str(tmp_path)}, **named})
    with pytest.raises(fulgurite.UserError) as caught:
        resolve_checkpoint(cfg, Two(width=3))
    assert str(caught.value).startswith(line.format(run=tmp_path))


class Meshed(Two):
    """Shards its layers over the device mesh of its strategy."""

    def configure_model(self) -> None:
        """Fail without a mesh."""
        assert self.device_mesh is not None


def test_a_model_that_its_strategy_shards_is_compared_before_it_is_sharded(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint = saved()
    torch.save(checkpoint, path)
    cfg = OmegaConf.create({"ckpt_path": str(path), "paths": {"log_dir": str(tmp_path)}})
    trainer = Trainer(strategy=ModelParallelStrategy(), accelerator="cpu", devices=1, logger=False)
    assert resolve_checkpoint(cfg, Meshed(), trainer=trainer) == str(path)
    assert resolve_checkpoint(cfg, Meshed()) == str(path)
    checkpoint["state_dict"]["late.weight"] = torch.ones(1)
    torch.save(checkpoint, path)
    with pytest.raises(fulgurite.UserError, match=r"late.weight is \(1,\) in the file and missing in the model"):
        resolve_checkpoint(cfg, Meshed(), trainer=trainer)


def test_another_head_is_skipped_by_name(caplog: pytest.LogCaptureFixture) -> None:
    line = refuse(saved(), Two(5))
    assert line.endswith("or start from the other parameters with resume.mode=weights resume.skip=[head].")
    with caplog.at_level(logging.INFO):
        assert list(matching_state(saved(), Two(5), FILE, ["head"], report=True)) == ["body.weight", "body.bias"]
    assert "took 2 of 4 values; these stay as built: head.weight, head.bias" in caplog.text
    assert list(matching_state(saved(), Two(), FILE, ["head.bias"])) == ["body.weight", "body.bias", "head.weight"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert refuse(saved(), Two(), "haed").endswith("has such a module or parameter. Did you mean 'head'?")
    assert "They have body" in refuse(saved(), Two(), "zzz")


def test_a_model_that_renames_is_compared_after_it() -> None:
    old = {"state_dict": {name.replace("body", "trunk"): value for name, value in saved()["state_dict"].items()}}
    assert set(matching_state(old, Renaming(), FILE)) == set(Two().state_dict())
    assert "trunk.weight" in old["state_dict"]
    assert "trunk.weight is (2, 2) in the file and missing in the model" in refuse(old, Two())
    assert "head.weight is (2, 2) in the file and (5, 2) in the model" in refuse(old, Renaming(5))


def test_state_that_is_no_tensor_and_lazy_parameters_have_no_shape_to_compare() -> None:
    class Odd(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lazy = nn.LazyLinear(2)

        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 1}

        def set_extra_state(self, state: dict[str, int]) -> None:
            pass

    weights = {"lazy.weight": torch.ones(2, 3), "lazy.bias": torch.ones(2), "_extra_state": {"seen": 1}}
    assert matching_state({"state_dict": weights}, Odd(), FILE) == weights


def test_a_run_of_an_adapter_resumes_and_is_evaluated(small: ComposeSmall, tmp_path: Path) -> None:
    train(small(*ADAPTER))
    last = tmp_path / "run/checkpoints/last.ckpt"
    more = train(small(*ADAPTER, f"ckpt_path={last}", "trainer.max_epochs=2", folder=tmp_path / "more"))
    weights = torch.load(tmp_path / "more/checkpoints/last.ckpt", weights_only=True)
    assert (weights["global_step"], len(weights["state_dict"])) == (8, 4)
    best = tmp_path / "more" / read_json(tmp_path / "more/results.json")["weights"]
    scores = evaluate(small(*ADAPTER, f"ckpt_path={best}", config_name="eval", folder=tmp_path / "eval"))
    assert scores["test/loss"] == more["test/loss"]


@pytest.mark.slow
def test_a_run_directory_of_an_adapter_resumes_is_evaluated_and_loaded(tmp_path: Path) -> None:
    logs = f"paths.log_dir={tmp_path}"

    def run_command(name: str, *words: str) -> None:
        done = WarmProcess(name, [*words, logs], tmp_path / "-".join((name, str(len(words))))).wait()
        assert done.returncode == 0, done.stderr

    run_command("train", *ADAPTER, *QUICK, "trainer.max_epochs=1")
    run = only_run(tmp_path)
    run_command("train", f"resume={run}", "trainer.max_epochs=2")
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert (weights["global_step"], len(weights["state_dict"])) == (6, 4)
    run_command("eval", f"run={run}")
    folders = (run, only_run(tmp_path, "eval"))
    straight, scored = (read_json(folder / "results.json")["metrics"]["test/loss"] for folder in folders)
    assert straight == scored
    model = fulgurite.load_run(run).model("checkpoints/last.ckpt")
    assert torch.equal(model.state_dict()["head.bias"], weights["state_dict"]["head.bias"])


@pytest.mark.parametrize("mode", ["weights", "hotstart"])
def test_a_new_run_starts_with_another_head(
    small: ComposeSmall, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(small(*ADAPTER, folder=tmp_path / "first"))
    last = tmp_path / "first/checkpoints/last.ckpt"
    started = (*ADAPTER, f"ckpt_path={last}", f"resume.mode={mode}", "+model.num_classes=4", "model.optimizer.lr=0.0")
    with pytest.raises(fulgurite.UserError, match=r"resume\.mode=weights resume\.skip=\[head\]\.$"):
        train(small(*started, folder=tmp_path / "refused"))
    with caplog.at_level(logging.INFO):
        train(small(*started, "resume.skip=[head]", folder=tmp_path / "second"))
    assert (
        "took 2 of 6 values; these stay as built: backbone.weight, backbone.bias, head.weight, head.bias" in caplog.text
    )
    old, new = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("first", "second")
    )
    assert torch.equal(old["state_dict"]["adapter.weight"], new["state_dict"]["adapter.weight"])
    steps = [int(each["step"]) for each in new["optimizer_states"][0]["state"].values()]
    assert steps == ([8, 8, 4, 4] if mode == "hotstart" else [4, 4, 4, 4])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["ckpt_path={file}"],
            "the interrupted run needs all of its weights. Start a new run with resume.mode=weights",
        ),
        (["resume.mode=weights"], "no weights are loaded. Add resume=<run directory> or ckpt_path=<file>"),
        (["resume.mode=weights", "ckpt_path={file}", "train=false"], "train=false tests the weights of the checkpoint"),
    ],
)
def test_skip_where_it_has_no_effect_is_refused(
    small: ComposeSmall, tmp_path: Path, words: list[str], line: str
) -> None:
    (tmp_path / "x.ckpt").touch()
    named = [word.format(file=tmp_path / "x.ckpt") for word in words]
    with pytest.raises(fulgurite.ConfigError, match=rf"^resume\.skip: {line}"):
        fulgurite.validate(small(*named, "resume.skip=[head]"))
