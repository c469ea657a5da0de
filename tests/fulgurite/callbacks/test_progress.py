"""One line an epoch, and a bar under it: what they show, where they fit, what they cost."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fulgurite.callbacks.progress import EpochBar, EpochLines, model_summary, progress_bar
from fulgurite.callbacks.progress_text import ProgressText, format_rate, progress_line
from fulgurite.callbacks.step_log import StepLog
from fulgurite.compat.idle_hooks import skip_idle_hooks
from fulgurite.loggers.metrics_csv import MetricsCSVLogger
from fulgurite.runs.run_directory import RunDirectory
from tests.support.cost import count_calls
from tests.support.pseudo_terminal import PseudoTerminal, plain, screen


class Line(LightningModule):
    """A regression whose loss is small, with a module that has no parameters and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = nn.Linear(4, 1), nn.MSELoss()
        self.frozen = nn.Linear(2, 3).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.net(batch[0]), batch[0][:, :1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/error", 1.7e-05)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([{"params": self.net.weight, "lr": 0.1}, {"params": self.net.bias, "lr": 0.01}])
        halve = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": halve, "interval": "step"}}


def fit(callbacks: list[Callback], folder: Path, ckpt_path: Path | None = None, **settings: Any) -> Trainer:
    """Train two epochs of five batches, from a checkpoint if one is given."""
    loader = DataLoader(TensorDataset(torch.rand(40, 4, generator=torch.Generator().manual_seed(0))), batch_size=8)
    arguments = {"max_epochs": 2, "logger": False, "num_sanity_val_steps": 0, **settings}
    trainer = Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **arguments,
    )
    trainer.fit(Line(), loader, loader, ckpt_path=ckpt_path)
    return trainer


def test_each_epoch_is_one_line_with_the_number_of_the_file_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fulgurite"):
        fit([EpochLines()], tmp_path)
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert [re.sub(r"loss \S+|\d+\.\d s", "N", line) for line in lines] == [
        "epoch 0/1  train/N  val/error 1.7e-05  N",
        "epoch 1/1  train/N  val/error 1.7e-05  N",
    ], "each value under one name, four digits"


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize(
    ("step", "shown"), [(3, ["epoch 0/1", "epoch 1/1"]), (8, ["epoch 1/1"]), (5, ["epoch 1/1"]), (10, [])]
)
def test_an_epoch_that_a_run_resumes_within_has_its_line(
    step: int, shown: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == step:
                trainer.save_checkpoint(tmp_path / "amid.ckpt")

    fit([Save()], tmp_path)
    with caplog.at_level("INFO", "fulgurite"):
        fit([EpochLines()], tmp_path, ckpt_path=tmp_path / "amid.ckpt")
    assert [line.split("  ")[0] for line in caplog.messages if line.startswith("epoch ")] == shown
    assert all("val/error 1.7e-05" in line for line in caplog.messages if line.startswith("epoch "))


def test_a_terminal_keeps_the_lines_of_all_epochs_and_what_the_model_prints(tmp_path: Path) -> None:
    class Chatty(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            print(f"batch {args[-1]}")  # noqa: T201 - as users do

    with PseudoTerminal(80) as terminal:
        bar = progress_bar()
        assert isinstance(bar, EpochBar)
        # the logging of a run writes to standard error
        with terminal.logging("fulgurite"):
            fit([bar, Chatty()], tmp_path)
    shown = [plain(line) for line in screen(terminal.written, 80)]
    assert [line for line in shown if line.startswith("batch")] == [f"batch {n}" for n in range(5)] * 2
    assert [line.split("  ")[0] for line in shown if line.startswith("epoch")] == ["epoch 0/1", "epoch 1/1"]
    drawn = [plain(part) for part in terminal.written.split("\r\x1b[2K")]
    assert any(re.search(r"epoch 0/1 ━+ 1/5  loss \S+  lr 0.05", part) for part in drawn)
    assert all(len(part.split("\r")[0].split("\n")[0]) < 80 for part in drawn)


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_the_bar_fits_the_terminal(width: int) -> None:
    long = ProgressText(
        "epoch 123/999", 12345, 67890, 0.0012345, 0.00012345, {"train/acc": 0.98765}, 1234.5, 3600.0, 86400.0
    )
    text = progress_line(long, width).plain
    assert len(text) <= width
    if width >= 80:
        for part in ("epoch 123/999", "loss 0.001234", "lr 0.0001234", "1234 it/s", "1:00:00", "24:00:00"):
            assert part in text
    assert ("━" in text and "train/acc 0.9877" in text) == (width == 120)


@pytest.mark.parametrize(
    ("rate", "shown"), [(20.512, "20.5 it/s"), (999.7, "1000 it/s"), (0.25, "4 s/it"), (0.0004, "2500 s/it")]
)
def test_the_speed_has_no_exponent(rate: float, shown: str) -> None:
    assert format_rate(rate) == shown


def test_a_loop_without_a_known_end_has_a_count_and_no_bar() -> None:
    assert (
        progress_line(ProgressText("epoch 3", 7, float("inf"), loss=1e-7), 79).plain == "epoch 3  7 batches  loss 1e-07"
    )


@pytest.mark.parametrize(
    ("written", "is_traced"), [("-> loss = step()\n", True), ("name? ", False)], ids=["debugger", "input"]
)
def test_a_prompt_has_the_terminal_to_itself(written: str, is_traced: bool, tmp_path: Path) -> None:
    """The bar is erased before a prompt, and not drawn while the user answers or steps."""
    before_trace = sys.gettrace()

    class Stops(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if args[-1] == 1:
                sys.stdout.write(written)
                if is_traced:
                    sys.settrace(lambda *_: None)

    with PseudoTerminal(80) as terminal:
        bar = EpochBar()
        bar._is_due = lambda: bar._line is not None  # type: ignore[method-assign]  # draw at every batch
        try:
            fit([Stops(), bar], tmp_path, max_epochs=1, limit_val_batches=0)
        finally:
            sys.settrace(before_trace)
    before, after = terminal.written.replace("\r\n", "\n").split(written)
    assert before.endswith("\r\x1b[2K"), "the bar is erased"
    assert "━" in before
    assert "━" not in after


def test_streams_and_handlers_are_as_before_after_an_error(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ValueError("of the user")

    with PseudoTerminal(80) as terminal:
        before = sys.stdout, sys.stderr
        with pytest.raises(ValueError, match="of the user"):
            fit([EpochBar(), Fails()], tmp_path)
        assert (sys.stdout, sys.stderr) == before
    assert terminal.written


def test_the_bar_costs_no_more_calls_a_batch_than_lightnings(tmp_path: Path) -> None:
    def cost(make: type[Callback], steps: int) -> int:
        callback = make()
        return count_calls(lambda: fit([callback], tmp_path, max_epochs=steps, limit_val_batches=0))

    with PseudoTerminal(80):
        ours, theirs = (cost(make, 20) - cost(make, 2) for make in (EpochBar, RichProgressBar))
    assert ours < theirs


def test_the_step_log_costs_few_calls_a_batch(tmp_path: Path) -> None:
    def cost(callbacks: list[Callback], epochs: int) -> int:
        skip_idle_hooks(callbacks)  # as every run does
        return count_calls(lambda: fit(callbacks, tmp_path, max_epochs=epochs, limit_val_batches=0))

    batches = 5 * 18
    kinds: tuple[list[type[Callback]], ...] = ([EpochLines, Callback], [EpochLines, StepLog])
    without, given = (cost([kind() for kind in made], 20) - cost([kind() for kind in made], 2) for made in kinds)
    assert given - without < 8 * batches


def test_losses_and_learning_rates_are_logged_amid_an_epoch(tmp_path: Path) -> None:
    logger = MetricsCSVLogger(tmp_path)
    fit([StepLog()], tmp_path, logger=logger, log_every_n_steps=2, accumulate_grad_batches=2, max_epochs=1)
    rows = [row for row in RunDirectory(tmp_path).metric_rows() if "lr-SGD/pg1" in row]
    # three steps of two, two and one batch: the second is logged, with the rates before the scheduler's step
    assert [(row["step"], row["epoch"], row["lr-SGD/pg1"], row["lr-SGD/pg2"]) for row in rows] == [(1, 0, 0.05, 0.005)]
    assert rows[0]["train/loss_step"] > 0


class CountingLog(StepLog):
    """Counts the batches, as a subclass may."""

    num_batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.num_batches += 1
        super().on_train_batch_end(*args)


def test_a_subclass_of_the_step_log_sees_each_batch(tmp_path: Path) -> None:
    log = CountingLog()
    fit([log], tmp_path, logger=MetricsCSVLogger(tmp_path), log_every_n_steps=4)
    assert log.num_batches == 10
    rows = [row for row in RunDirectory(tmp_path).metric_rows() if "lr-SGD/pg1" in row]
    assert [row["step"] for row in rows] == [3, 7]


class Quiet(Line):
    """Logs nothing, as a model in its first hour."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.loss(self.net(batch[0]), batch[0][:, :1])
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


@pytest.mark.parametrize("accumulate", [1, 5])
def test_the_logged_loss_is_the_one_that_the_model_returned(accumulate: int, tmp_path: Path) -> None:
    logger, model = MetricsCSVLogger(tmp_path), Quiet()
    loader = DataLoader(TensorDataset(torch.rand(40, 4)), batch_size=8)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=logger,
        log_every_n_steps=1,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[StepLog()],
        default_root_dir=tmp_path,
    )
    trainer.fit(model, loader, loader)
    logged = [row["train/loss_step"] for row in RunDirectory(tmp_path).metric_rows() if "train/loss_step" in row]
    assert logged == pytest.approx(model.losses[accumulate - 1 :: accumulate])


def test_the_summary_has_the_modules_with_parameters_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "fulgurite"):
        fit([model_summary(), EpochLines()], tmp_path, max_epochs=1)
    [text] = [message for message in caplog.messages if message.startswith("model\n")]
    assert text.splitlines()[1:] == [
        "  name    type    parameters  mode",
        "  net     Linear  5           train",
        "  frozen  Linear  9           train",
        "  14 parameters, 9 of them frozen, 5.6e-05 MB",
    ]


def test_a_lazy_module_is_not_initialised_yet(caplog: pytest.LogCaptureFixture) -> None:
    class Lazy(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.LazyLinear(3)

    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with caplog.at_level("INFO", "fulgurite"):
        model_summary().on_fit_start(trainer, Lazy())
    assert "net   LazyLinear  not initialised yet" in caplog.text


def test_without_a_terminal_there_is_no_bar() -> None:
    assert type(progress_bar()) is EpochLines
    assert not os.isatty(sys.stderr.fileno())
