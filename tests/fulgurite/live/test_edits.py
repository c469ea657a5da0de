"""An edit changes a run as a whole or not at all, at its step, and is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler

from fulgurite.core.errors import UserError
from fulgurite.live.callback import LiveControl
from fulgurite.live.document.history import read_entries, read_status
from fulgurite.live.document.keys import check, diff, flatten
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from fulgurite.runs.run_directory import RunDirectory
from tests.support.live import BATCHES, Data, Task, is_equal, run, weights_of, write_edits


def refused(folder: Path) -> list[str]:
    return [reason for entry in read_entries(folder / "live.jsonl") for reason in entry.get("refused", ())]


class Settings(Callback):
    """Notes the settings of the trainer before each batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        stopping = next(each for each in vars(trainer)["callbacks"] if isinstance(each, EarlyStopping))
        self.seen.append(
            {
                "max_epochs": trainer.max_epochs,
                "max_steps": trainer.max_steps,
                "patience": stopping.patience,
                "log_every_n_steps": vars(trainer)["log_every_n_steps"],
                "check_val_every_n_epoch": trainer.check_val_every_n_epoch,
                "accumulate_grad_batches": trainer.accumulate_grad_batches,
                "gradient_clip_val": trainer.gradient_clip_val,
            }
        )


def test_every_setting_changes_before_its_batch_and_returns_to_the_config(tmp_path: Path) -> None:
    new: dict[str, Any] = {
        "max_epochs": 3,
        "max_steps": 22,
        "patience": 7,
        "log_every_n_steps": 4,
        "check_val_every_n_epoch": 3,
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 0.5,
    }
    watch = Settings()
    edits = {5: {**new, "weight_decay": 0.3, "lr_scale": 2.0}, 10: {"max_epochs": 3}}
    _, live, trace = run(tmp_path, edits=edits, callbacks=[watch])
    assert refused(tmp_path) == []
    assert watch.seen[5] == new
    start = {**watch.seen[4], "max_epochs": 3}
    assert watch.seen[10] == start
    assert start["max_steps"] == -1
    assert len(watch.seen) == 3 * BATCHES  # max_epochs ended the run
    assert trace.decays[4] == [0.1, 0.0]
    assert trace.decays[5] == [0.3, 0.0]  # biases keep none
    assert trace.decays[-1] == [0.1, 0.0]
    assert trace.rates[5] == [0.02, 0.04]
    assert [(edit.batch, edit.step) for edit in live.history] == [(5, 5), (10, 8)]  # two batches a step from 6 on


def test_a_limit_on_steps_ends_the_run(tmp_path: Path) -> None:
    trainer, _, trace = run(tmp_path, edits={5: {"max_steps": 7}})
    assert trainer.global_step == len(trace.rates) == 7


def test_patience_ends_the_run(tmp_path: Path) -> None:
    trainer, _, _ = run(tmp_path, edits={5: {"patience": 1}}, max_epochs=9)
    assert trainer.global_step == 2 * BATCHES


def test_an_edit_waits_for_the_end_of_an_accumulation(tmp_path: Path) -> None:
    _, _, trace = run(tmp_path, edits={5: {"lr_scale": 2.0}}, accumulate_grad_batches=4, max_epochs=2)
    assert [rates[0] for rates in trace.rates] == [0.01, 0.01, 0.02, 0.02]
    assert refused(tmp_path) == []


REFUSED: dict[str, dict[str, Any]] = {
    "lr_scal=0.1: is not a live key. Did you mean 'lr_scale'?": {"lr_scal": 0.1},
    "lr_scale='fast': is not a number. Set a number above 0.": {"lr_scale": "fast"},
    "lr_scale=0.0: is out of range. Set a number above 0.": {"lr_scale": 0.0},
    "lr_scale=nan: is not finite. Set a number above 0.": {"lr_scale": float("nan")},
    "lr_scale=True: is not a number. Set a number above 0.": {"lr_scale": True},
    "max_epochs=2.5: is not a whole number. Set 1 or more, or -1.": {"max_epochs": 2.5},
    "max_epochs=-2: is out of range. Set 1 or more, or -1.": {"max_epochs": -2},
    "gradient_clip_val=0: is out of range. Set a number above 0, or null.": {"gradient_clip_val": 0},
    "stop_after_step=True: is not a count. Raise the number by 1 to run it once.": {"stop_after_step": True},
    "lr=0.1: excludes lr_scale=2. Remove one of them.": {"lr": 0.1, "lr_scale": 2},
    "max_epochs: is a number of more than 64 bits. Set 1 or more, or -1.": {"max_epochs": 10**400},
    "lr_scale: is a number of more than 64 bits. Set a number above 0.": {"lr_scale": 10**400},
    f"validate={2**63}: is not a count. Raise the number by 1 to run it once.": {"validate": 2**63},
    "model.a: is a number of more than 64 bits. Set a smaller one, or text in quotes.": {"model.a": 10**400},
    "model.a[1].b=inf: is not finite. Set a number, or text in quotes.": {"model.a": [1, {"b": float("inf")}]},
    "data.a: is of the type bytes. Set numbers, texts, booleans, null or lists of them.": {"data.a": b"a"},
    "'model.\\x1b[2J': is not a name. Write e.g. model.dropout.": {"model.\x1b[2J": 1},
    "'model.': is not a name. Write e.g. model.dropout.": {"model.": 1},
}


@pytest.mark.parametrize("line", REFUSED)
def test_wrong_values_are_named(line: str) -> None:
    assert check(REFUSED[line])[1] == [line]


def test_all_that_is_wrong_is_named_at_once_and_types_are_those_of_the_keys() -> None:
    typed, problems = check({"lr_scale": 1, "max_epochs": "3", "patience": -1, "gradient_clip_val": None})
    assert typed["lr_scale"] == 1.0
    assert type(typed["lr_scale"]) is float
    assert len(problems) == 2


def test_documents_are_flat() -> None:
    assert flatten({"model": {"drop.out": 1, "a": {"b": [1]}}, "lr": 1}) == {
        "model.drop.out": 1,
        "model.a.b": [1],
        "lr": 1,
    }
    for wrong in ([1], {1: 2}, {"model": {"a": 1}, "model.a": 2}, {f"model.a{n}": n for n in range(10_001)}):
        with pytest.raises(UserError):
            flatten(wrong)
    assert diff({"lr": 1.0, "patience": 2}, {"lr": 1, "max_epochs": 3}) == {"lr": 1, "patience": None, "max_epochs": 3}


LATE = {
    "max_epochs=1: the run is in epoch 1, counted from 0. Set 2 or more.": {"max_epochs": 1},
    "max_steps=9: the run has taken 10 steps. Set 11 or more.": {"max_steps": 9},
    "model.width: Task has no on_live_change(changed). Remove the key.": {"model.width": 3},
}


@pytest.mark.parametrize("line", LATE)
def test_what_a_run_cannot_take_is_refused_with_all_else(line: str, tmp_path: Path) -> None:
    _, live, trace = run(tmp_path, edits={10: {**LATE[line], "lr_scale": 0.1}}, max_epochs=2)
    assert refused(tmp_path) == [line]
    assert read_status(tmp_path)["refused"]["reasons"] == [line]
    assert trace.rates[-1] == [0.01, 0.02]
    assert live.document == {}
    assert live.history == []


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    class Manual(Task):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters()) if self.make else torch.optim.SGD(self.parameters(), lr=0.1)

    edits = {1: {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0, "check_val_every_n_epoch": 2}}
    run(tmp_path / "manual", Manual(), edits, max_epochs=1, limit_val_batches=0)
    reasons = " ".join(refused(tmp_path / "manual"))
    assert reasons.count("the model optimizes manually") == 2
    assert "check_val_every_n_epoch=2: the run has no validation" in reasons
    schedule = GradientAccumulationScheduler({0: 1})
    run(tmp_path / "schedule", edits={1: {"accumulate_grad_batches": 2}}, callbacks=[schedule], max_epochs=1)
    assert "GradientAccumulationScheduler sets it" in refused(tmp_path / "schedule")[0]


class Listener(Task):
    """Takes live changes, but no rate above 1."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    def on_live_change(self, changed: dict[str, Any]) -> None:
        if (changed.get("rate") or 0) > 1:
            raise ValueError("rate is\nabove 1")
        self.heard.append(changed)


class ListeningData(Data):
    """Takes live changes, but no text."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    def on_live_change(self, changed: dict[str, Any]) -> None:
        if isinstance(changed.get("noise"), str):
            raise UserError("data.noise: is text")
        self.heard.append(changed)


def test_each_object_hears_once_of_the_keys_below_its_prefix(tmp_path: Path) -> None:
    model, data = Listener(), ListeningData()
    edits = {
        2: {"model.rate": 0.5, "model.width": 3, "lr_scale": 2.0},
        4: {"model.rate": 0.7, "model.width": 3, "lr_scale": 2.0, "data.noise": 1},
        6: {"model.width": 3},
    }
    run(tmp_path, model, edits, data=data, max_epochs=1)
    assert model.heard == [{"rate": 0.5, "width": 3}, {"rate": 0.7}, {"rate": None}]
    assert data.heard == [{"noise": 1}, {"noise": None}]


def test_a_hook_that_fails_undoes_the_whole_edit(tmp_path: Path) -> None:
    model, data = Listener(), ListeningData()
    edits = {
        2: {"model.rate": 0.5},
        4: {"model.rate": 2, "lr_scale": 0.1},
        5: {"model.rate": 0.6, "data.noise": "much", "lr_scale": 0.1},
    }
    _, live, trace = run(tmp_path, model, edits, data=data, max_epochs=1)
    assert model.heard == [{"rate": 0.5}, {"rate": 0.6}, {"rate": 0.5}]  # the last call takes the second back
    assert trace.rates[-1] == [0.01, 0.02]
    assert live.document == {"model.rate": 0.5}
    assert [line.partition(": ")[2] for line in refused(tmp_path)] == [
        "on_live_change refused it (ValueError: rate is above 1). Set another value.",
        "on_live_change refused it (data.noise: is text). Set another value.",
    ]


def test_commands_run_once_after_the_step(tmp_path: Path) -> None:
    edits = {3: {"checkpoint": 1}, 5: {"checkpoint": 1, "validate": 1}, 18: {"checkpoint": 1, "stop_after_step": 1}}
    trainer, _, trace = run(tmp_path, edits=edits)
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("live-*.ckpt"))] == ["live-4.ckpt"]
    assert (tmp_path / "checkpoints/live-4.ckpt.json").is_file()  # with a manifest
    assert trace.validated == [6, 8, 16, 19]
    assert trainer.global_step == 19
    assert trainer.max_steps == -1  # a resumed run does not stop again


def test_stop_after_an_epoch(tmp_path: Path) -> None:
    trainer, _, _ = run(tmp_path, edits={9: {"stop_after_epoch": 1}})
    assert trainer.global_step == 2 * BATCHES
    assert trainer.max_epochs == 4


def test_a_validation_that_cannot_be_is_refused(tmp_path: Path) -> None:
    run(tmp_path, edits={2: {"validate": 1}}, limit_val_batches=0, max_epochs=1)
    assert refused(tmp_path) == ["validate: the run has no validation. Remove the command."]


def test_edits_are_logged_and_in_the_checkpoint_the_history_and_the_status(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path)
    run(tmp_path, edits={3: {"lr_scale": 0.5}, 12: {"lr_scale": 0.5, "max_epochs": 2}}, logger=logger)
    rows = {row["step"]: row for row in RunDirectory(tmp_path).metric_rows() if "live/lr_scale" in row}
    assert rows[3]["live/lr_scale"] == 0.5
    assert rows[12]["live/max_epochs"] == 2
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["LiveControl"]
    assert [edit["batch"] for edit in saved["history"]] == [3, 12]
    assert [entry["batch"] for entry in read_entries(tmp_path / "live.jsonl")] == [3, 12]
    status = yaml.safe_load((tmp_path / "live.status.yaml").read_text())
    assert (status["state"], status["result"]) == ("ended", "applied")
    assert status["document"] == {"lr_scale": 0.5, "max_epochs": 2}


def test_a_replay_is_bit_identical_and_differs_from_a_plain_run(tmp_path: Path) -> None:
    edits = {3: {"lr_scale": 0.5}, 9: {"lr_scale": 0.5, "weight_decay": 1.0, "validate": 1}, 20: {"max_epochs": 3}}
    first = weights_of(run(tmp_path / "first", edits=edits)[0])
    live = LiveControl(tmp_path / "second", replay=tmp_path / "first/live.jsonl")
    again, plain = run(tmp_path / "second", live=live)[0], run(tmp_path / "plain", edits={})[0]
    assert is_equal(first, weights_of(again))
    assert not is_equal(first, weights_of(plain))
    entries = [read_entries(tmp_path / name / "live.jsonl") for name in ("first", "second")]
    assert entries[0] == entries[1]


@pytest.mark.parametrize(
    "content", [b"[]\n", b'{"batch": "x"}\n', b"\xff\n", b"{}\n", json.dumps({"a": 1}).encode() + b"\n"]
)
def test_a_file_that_is_no_history_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"callbacks.live.replay=.*other.jsonl"):
        run(tmp_path, live=LiveControl(tmp_path, replay=tmp_path / "other.jsonl"))
    with pytest.raises(UserError, match="there is no such file"):
        run(tmp_path, live=LiveControl(tmp_path, replay=tmp_path / "none.jsonl"))


def test_a_torn_last_line_of_a_history_is_left_out(tmp_path: Path) -> None:
    run(tmp_path, edits={3: {"lr_scale": 0.5}}, max_epochs=1)
    with (tmp_path / "live.jsonl").open("a") as file:
        file.write('{"batch": 5, "st')
    assert len(read_entries(tmp_path / "live.jsonl")) == 1


def test_edits_are_counted_by_source_and_result(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    live = LiveControl(tmp_path, replay=write_edits(tmp_path / "e.jsonl", {1: {"lr_scale": 0.5}, 2: {"lr_scal": 1}}))
    live.reload_observers.append(lambda source, result, seconds: seen.append((source, result)))
    run(tmp_path, live=live, max_epochs=1)
    assert seen == [("test", "success"), ("test", "failure")]
    address = "etcd://host:2379/run"
    with_credentials = f"{address.replace('//', '//user:secret-word@')}#timeout=1"
    assert LiveControl(tmp_path, with_credentials).sources == [address]


def test_secrets_are_hidden_in_all_that_an_edit_leaves(tmp_path: Path) -> None:
    class Forgetful(Task):
        def on_live_change(self, changed: dict[str, Any]) -> None:
            pass

    canary = "k9-canary-7f3a"
    run(tmp_path, Forgetful(), {2: {"model.api_key": canary, "model.rate": 0.5}}, max_epochs=1)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "edits.jsonl"]
    assert {"live.jsonl", "live.status.yaml", "last.ckpt"} <= {path.name for path in files}
    assert [path.name for path in files if canary.encode() in path.read_bytes()] == []


def test_seconds_between_polls_are_above_0(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks.live.poll_seconds=0: is not above 0. Set e.g. 1."):
        LiveControl(tmp_path, poll_seconds=0)
