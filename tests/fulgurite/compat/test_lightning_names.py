"""Each private name behind fulgurite/compat/lightning*.py exists in the installed versions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from fulgurite.compat import lightning as compat
from fulgurite.compat import lightning_results as logged
from fulgurite.compat import lightning_strategies as strategies
from fulgurite.compat.lightning_loaders import at_progress, note_requests
from tests.support.project import ROOT
from tests.support.quiet_trainer import quiet_trainer
from tests.support.toy_task import OrdinaryData, OrdinaryModel


class Asker(Callback):
    """Calls each function about loops and results where the library does, and keeps what they return."""

    def __init__(self) -> None:
        self.found: dict[str, list[Any]] = {}

    def keep(self, **values: Any) -> None:
        """Add one value to each list."""
        for name, value in values.items():
            self.found.setdefault(name, []).append(value)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Ask for what is fixed by now."""
        compat.disable_sigterm_broadcast(trainer)
        is_asking = note_requests(trainer)
        assert is_asking("train_dataloader") is is_asking("val_dataloader") is False
        self.keep(train_loaders=len(compat.train_loaders(trainer)))
        assert trainer.fit_loop._combined_loader_states_to_load == []
        trainer.fit_loop._load_combined_loader_states()
        compat.call_after_batch(trainer, self, lambda: self.after_batch(trainer))
        compat.call_after_batch(trainer, Callback(), lambda: self.keep(called_for_another_trainer=True))
        self.keep(uses_distributed_sampler=compat.uses_distributed_sampler(trainer))

    def after_batch(self, trainer: Trainer) -> None:
        """Ask about the batch that is complete."""
        self.keep(steps_after_batch=compat.num_logged_steps(trainer), has_validated="evaluation_loaders" in self.found)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Ask about the batch that was just trained on."""
        self.keep(
            is_accumulating=compat.is_accumulating(trainer),
            is_last_batch=compat.is_last_batch(trainer),
            num_logged_steps=compat.num_logged_steps(trainer),
            train_iterators=len(compat.train_iterators(trainer)),
            epoch_results=sorted(compat.epoch_results(trainer)),
        )
        before = logged.logged_results(trainer)
        logged.restore_logged_results(trainer, before)
        assert before
        assert repr(logged.logged_results(trainer)) == repr(before)
        assert trainer._logger_connector._first_loop_iter is False
        assert compat.active_names(trainer) > {"train/loss", "train/each", "train/each_epoch"}
        assert compat.active_results(trainer).keys() == compat.epoch_results(trainer).keys()

    def on_validation_start(self, trainer: Trainer, *args: Any) -> None:
        """Ask for the loaders of an evaluation."""
        self.keep(evaluation_loaders=len(compat.evaluation_loaders(trainer)))

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        """Undo a restart."""
        trainer.fit_loop._restarting = True
        compat.end_restart(trainer)
        self.keep(restarting=trainer.fit_loop.restarting)


def test_loops(tmp_path: Any) -> None:
    asker = Asker()
    trainer = quiet_trainer(
        [asker],
        max_epochs=1,
        limit_train_batches=4,
        limit_val_batches=1,
        accumulate_grad_batches=2,
        num_sanity_val_steps=0,
        log_every_n_steps=2,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    handlers = trainer._signal_connector.register_signal_handlers
    compat.disable_signal_handlers(trainer)
    assert handlers != trainer._signal_connector.register_signal_handlers
    trainer.fit(OrdinaryModel(), datamodule=OrdinaryData())
    assert compat.active_results(trainer) == {}
    assert compat.active_names(trainer) == set()
    results = asker.found.pop("epoch_results")
    assert all(keys == results[0] for keys in results)
    assert any("loss" in key for key in results[0])
    assert asker.found == {
        "train_loaders": [1],
        "uses_distributed_sampler": [True],
        "is_accumulating": [True, False, True, False],
        "is_last_batch": [False, False, False, True],
        "num_logged_steps": [0, 1, 1, 2],
        "train_iterators": [1, 1, 1, 1],
        "steps_after_batch": [0, 1, 1, 2],
        "has_validated": [False, False, False, True],
        "evaluation_loaders": [1],
        "restarting": [False],
    }
    callback = ModelCheckpoint()
    compat.save_checkpoint(callback, trainer, str(tmp_path / "x.ckpt"))
    assert (tmp_path / "x.ckpt").is_file()
    assert compat.dump_checkpoint(trainer)["global_step"] == 2


def test_combined_loader() -> None:
    assert compat.combined_mode(CombinedLoader([], "sequential")) == "sequential"


def test_a_data_loader_fetches_the_batches_of_its_index_sampler() -> None:
    """`ExactLoader` overrides these two names, which torch 2.13 has no public counterpart for."""

    class Reversed(DataLoader[int]):
        _auto_collation = True
        _index_sampler = ((1, 0), (3, 2))

    for workers in (0, 1):
        loader = Reversed(range(4), 2, num_workers=workers)  # type: ignore[arg-type]  # a data set, as torch takes it
        assert [batch.tolist() for batch in loader] == [[1, 0], [3, 2]]


@pytest.mark.parametrize("by_hand", [False, True])
def test_progress_of_another_moment(by_hand: bool) -> None:
    trainer, model = quiet_trainer(), OrdinaryModel()
    model.automatic_optimization = not by_hand
    trainer.strategy.connect(model)
    now = trainer.current_epoch, trainer.global_step
    with at_progress(trainer, 3, 14):
        assert (trainer.current_epoch, trainer.global_step) == (3, 14)
    assert (trainer.current_epoch, trainer.global_step) == now


def test_metrics() -> None:
    metric = MeanMetric()
    metric.update(2.0)
    assert metric.compute() == 2
    vars(metric)["mean_value"] = metric.mean_value * 2
    assert metric.compute() == 2
    compat.set_state(metric, {})
    assert (float(metric.compute()), metric.update_count) == (4, 1)
    compat.set_state(metric, metric.metric_state, 7)
    assert (float(metric.compute()), metric.update_count) == (4, 7)
    assert compat.default_state(metric).keys() == metric.metric_state.keys()


@pytest.mark.parametrize("make", [DDPStrategy, FSDPStrategy])
def test_strategies(make: Any) -> None:
    strategy = make(timeout=timedelta(seconds=5), process_group_backend="gloo")
    assert strategies.process_group_timeout(strategy) == timedelta(seconds=5)
    strategies.set_process_group_timeout(strategy, timedelta(seconds=6))
    assert vars(strategy)["_timeout"] == timedelta(seconds=6)
    assert strategies.has_process_group(strategy)
    assert strategies.requested_backend(strategy) == strategies.process_group_backend(strategy) == "gloo"
    assert strategies.start_method(strategy) == "popen"
    launcher = compat.SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    strategies.set_launcher(strategy, launcher)
    assert strategy.launcher is launcher
    assert strategies.start_method(DDPStrategy(start_method="spawn")) == "spawn"


def test_launcher_and_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[bool] = []
    launcher = compat.SubprocessScriptLauncher(LightningEnvironment(), 1, 1)
    monkeypatch.setattr(launcher, "_call_children_scripts", lambda: started.append(True))
    strategies.start_child_scripts(launcher)
    assert started == [True]
    assert hasattr(compat.SubprocessScriptLauncher, "_call_children_scripts")
    strategies.limit_threads(1)
    assert compat.flatten_params({"a": {"b": 1}}) == {"a/b": 1}
    assert compat.DummyExperiment.__name__ in inspect.getsource(rank_zero_experiment)
    assert hasattr(dist, "_make_nccl_premul_sum") or not dist.is_nccl_available()


def test_hook_of_a_lazy_module() -> None:
    lazy = torch.nn.LazyLinear(2)
    lazy.register_forward_pre_hook(print)
    found = [compat.is_lazy_hook(hook) for hook in lazy._forward_pre_hooks.values()]
    assert found == [True, False]


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = compat.missing


def test_import_costs_nothing() -> None:
    names = ("buffers", "lightning", "lightning_loaders", "lightning_results", "lightning_strategies")
    modules = ", ".join(f"fulgurite.compat.{name}" for name in names)
    code = f"import sys, {modules}; print({{'torch', 'lightning'}} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


def test_no_other_module_reaches_private_names() -> None:
    pattern = (
        r"\._(accelerator_connector|broadcast_sigterm_tensor|call_children_scripts|checkpoint_connector|combined_loader|computed|data_fetcher"
        r"|evaluation_loop|get_process_group_backend|launcher|logger_connector|process_group_backend|results|should_\w+"
        r"|signal_connector|timeout|update_count)\b|import _(Subprocess|Dummy|set_num|flatten)|torch\._C"
    )
    command = ["git", "grep", "-nE", pattern, "--", "fulgurite/*.py", ":!fulgurite/compat"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout == ""
