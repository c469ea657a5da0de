"""Loaders that define their own order resume where they were, on each rank, or are named."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from fulgurite.callbacks import LastCheckpoint
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from tests.support.cli import WARM
from tests.support.multirank import free_port
from tests.support.quiet_trainer import MadeData, fit_hardened

EXAMPLES, BATCH = 40, 4  # 10 batches an epoch
EPOCHS = 3


class Numbers(IterableDataset[torch.Tensor]):
    """Noisy numbers in a shuffled order; workers share them."""

    def __init__(self, size: int = EXAMPLES) -> None:
        self.size = size

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        order = torch.randperm(self.size).tolist() if worker is None else list(range(self.size))
        for number in order if worker is None else order[worker.id :: worker.num_workers]:
            yield torch.tensor([float(number), float(torch.rand(()))])


class CountedNumbers(Numbers):
    """Numbers whose position can be saved: the order is that of a generator which lives on from epoch to epoch."""

    def __init__(self, size: int = EXAMPLES) -> None:
        super().__init__(size)
        self.generator = torch.Generator().manual_seed(5 + int(os.environ.get("LOCAL_RANK", "0")))
        self.order: list[int] = []
        self.done = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.done == len(self.order):
            self.order, self.done = torch.randperm(self.size, generator=self.generator).tolist(), 0
        for number in self.order[self.done :]:
            self.done += 1
            yield torch.tensor([float(number), float(torch.rand(()))])

    def state_dict(self) -> dict[str, Any]:
        """Return the order, the position in it and what the next order depends on."""
        return {"order": self.order, "done": self.done, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.order, self.done = state["order"], state["done"]
        self.generator.set_state(state["generator"])


class UserLoader:
    """A loader that is no DataLoader, with the protocol of torchdata's and litdata's."""

    def __init__(self) -> None:
        self.numbers = CountedNumbers()

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from DataLoader(self.numbers, batch_size=BATCH)

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return self.numbers.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.numbers.load_state_dict(state)


class SizedUserLoader(UserLoader):
    """One that has a length: Lightning then fetches no batch ahead."""

    def __len__(self) -> int:
        return EXAMPLES // BATCH


class Listed(Dataset[torch.Tensor]):
    """Ten noisy examples with a length."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), float(torch.rand(()))])


class Model(LightningModule):
    """Keeps what it saw; draws from the global generator at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
        self.seen: list[tuple[int, int, Any]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return a loss, scalar, that depends on all batches."""
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        self.seen.append((self.current_epoch, batch_idx, [None if part is None else part.tolist() for part in parts]))
        values = torch.cat([part for part in parts if part is not None])
        loss: torch.Tensor = (self.net(values / 40) - torch.rand(())).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Kill(Callback):
    """Ends the process, as far as one test can, after a step was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Raise what Lightning does not catch."""
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def _fit(
    folder: Path, make: Callable[[], Any], kill_at: int = -1, save_every: int = 3, devices: int = 1, **settings: Any
) -> Model:
    """Train from the last checkpoint, if there is one, and return the model."""
    torch.manual_seed(3)
    model, callbacks = Model(), [LastCheckpoint(folder, every_n_train_steps=save_every), Kill(kill_at)]
    processes = {"max_epochs": EPOCHS, "devices": devices, "strategy": "auto" if devices == 1 else "ddp"}
    switches = {"supervise_ranks": False, "save_attributes": False, **settings}  # `seen` is of one start
    last = folder / "last.ckpt"
    source = last if last.exists() else None
    try:
        fit_hardened(model, MadeData(make), folder, callbacks, ckpt_path=source, switches=switches, **processes)
    except SystemExit:
        assert kill_at > 0
    return model


def _stateful_loader(dataset: Any, **arguments: Any) -> Any:
    loader = import_module("torchdata.stateful_dataloader").StatefulDataLoader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchdata 0.11 calls a function that torch deprecated
        return loader(dataset, **arguments)


def _subclass() -> DataLoader[Any]:
    class Geometric(DataLoader[Any]):
        pass

    return Geometric(Listed(), batch_size=1, shuffle=True, generator=torch.Generator().manual_seed(4))


STREAMS: dict[str, Callable[[], Any]] = {
    "a stream without a state": lambda: DataLoader(Numbers(), batch_size=BATCH),
    "a stream with a state": lambda: DataLoader(CountedNumbers(), batch_size=BATCH),
    "a loader of one's own": UserLoader,
    "a loader of one's own with a length": SizedUserLoader,
    "a subclass of DataLoader": _subclass,
    "StatefulDataLoader of a stream": lambda: _stateful_loader(CountedNumbers(), batch_size=BATCH),
    "StatefulDataLoader of a data set": lambda: _stateful_loader(
        Listed(), batch_size=1, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "a short and a long stream": lambda: {
        "short": DataLoader(Numbers(12), batch_size=BATCH),
        "long": DataLoader(CountedNumbers(), batch_size=BATCH),
    },
    "a data set beside a stream": lambda: {
        "short": DataLoader(Listed(), batch_size=BATCH, shuffle=True),
        "long": DataLoader(Numbers(), batch_size=BATCH),
    },
    "max_size": lambda: CombinedLoader(
        {"long": DataLoader(CountedNumbers(), batch_size=BATCH), "short": UserLoader()}, "max_size"
    ),
}


def _seen(models: list[Model]) -> dict[tuple[int, int], Any]:
    """Return the batches by epoch and number; of a batch that was repeated, the last."""
    return {(epoch, batch): values for model in models for epoch, batch, values in model.seen}


def _require_torchdata(name: str) -> None:
    if "StatefulDataLoader" in name and find_spec("torchdata") is None:
        pytest.skip("torchdata is not installed")


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_killed_twice_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    _require_torchdata(name)
    straight = _fit(tmp_path / "straight", STREAMS[name])
    # saved after batch 3 and after batch 18, 8 of the second epoch; the second start dies before its second save
    runs = [_fit(tmp_path / "killed", STREAMS[name], kill_at) for kill_at in (5, 20, 21, -1)]
    assert [len(_seen([run])) for run in runs[:2]] == [5, 17]
    assert _seen(runs) == _seen([straight])
    assert runs[-1].net.weight.tolist() == straight.net.weight.tolist()


@pytest.mark.parametrize("kill_at", [11, 21])
@pytest.mark.parametrize("name", ["a stream with a state", "a loader of one's own with a length"])
def test_a_stream_that_is_killed_at_the_start_of_an_epoch_resumes_there(
    name: str, kill_at: int, tmp_path: Path
) -> None:
    straight = _fit(tmp_path / "straight", STREAMS[name], save_every=1)
    runs = [_fit(tmp_path / "killed", STREAMS[name], stop, save_every=1) for stop in (kill_at, -1)]
    assert min(_seen(runs[1:])) == (kill_at // 10, 0)
    assert _seen(runs) == _seen([straight])


def test_workers_read_a_stream_without_a_state_to_the_same_place(tmp_path: Path) -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(Numbers(), batch_size=BATCH, num_workers=2)

    straight = _fit(tmp_path / "straight", make)
    runs = [_fit(tmp_path / "killed", make, kill_at) for kill_at in (15, -1)]
    assert _seen(runs) == _seen([straight])


def _train_rank(rank: int, port: int, folder: str, name: str, kill_at: int) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    model = _fit(Path(folder), STREAMS[name], kill_at, devices=2)
    torch.save({"seen": model.seen, "weight": model.net.weight.tolist()}, Path(folder) / f"{rank}-{kill_at}.pt")


def _train_ranks(folder: Path, name: str, kill_at: int = -1) -> list[dict[str, Any]]:
    """Train on two ranks and return what each saw and its weights."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    ranks = [WARM.Process(target=_train_rank, args=(rank, port, str(folder), name, kill_at)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()
    return [torch.load(folder / f"{rank}-{kill_at}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a stream with a state", "StatefulDataLoader of a stream"])
def test_each_of_two_ranks_resumes_its_own_stream(name: str, tmp_path: Path) -> None:
    _require_torchdata(name)
    straight = _train_ranks(tmp_path / "straight", name)
    runs = [_train_ranks(tmp_path / "killed", name, kill_at) for kill_at in (5, 20, -1)]
    assert straight[0]["seen"] != straight[1]["seen"]
    for rank in (0, 1):
        seen = {(epoch, batch): values for run in runs for epoch, batch, values in run[rank]["seen"]}
        assert seen == {(epoch, batch): values for epoch, batch, values in straight[rank]["seen"]}
        assert runs[-1][rank]["weight"] == straight[rank]["weight"]


def _named(folder: Path, make: Callable[[], Any]) -> list[str]:
    """Return the lines that a run with these loaders names."""
    current_context().inexact.clear()
    _fit(folder, make, kill_at=1)
    lines = list(current_context().inexact)
    current_context().inexact.clear()
    return lines


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (STREAMS["a stream with a state"], []),
        (STREAMS["a loader of one's own"], []),
        (STREAMS["a stream without a state"], [r"Numbers: it has no state_dict\(\).*reads past.*StatefulDataLoader"]),
        (
            lambda: DataLoader(CountedNumbers(), batch_size=BATCH, num_workers=1),
            ["CountedNumbers: its state is in 1 workers.*StatefulDataLoader, or num_workers=0"],
        ),
        (
            lambda: DataLoader(Numbers(), batch_size=BATCH, num_workers=1, persistent_workers=True),
            ["Numbers: .*persistent workers.*persistent_workers=false"],
        ),
    ],
)
def test_a_stream_that_may_differ_after_a_resume_is_named_with_what_to_write(
    make: Callable[[], Any], lines: list[str], tmp_path: Path
) -> None:
    named = _named(tmp_path, make)
    assert len(named) == len(lines)
    assert all(re.search(pattern, line) for pattern, line in zip(lines, named, strict=True))


def test_random_draws_in_the_workers_of_a_stateful_loader_are_named(tmp_path: Path) -> None:
    _require_torchdata("StatefulDataLoader")
    (line,) = _named(tmp_path, lambda: _stateful_loader(CountedNumbers(), batch_size=BATCH, num_workers=1))
    assert "CountedNumbers: what its 1 workers draw from global random generators" in line


def test_the_resume_says_how_much_of_a_stream_without_a_state_it_reads_past(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = STREAMS["a stream without a state"]
    _fit(tmp_path, make, kill_at=8)
    resumed = _fit(tmp_path, make)
    assert "Numbers has no state_dict(): reading past 6 batches of this epoch" in caplog.text
    assert len(resumed.seen) == EPOCHS * 10 - 6


def test_a_stream_may_start_over_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = STREAMS["a stream without a state"]
    _fit(tmp_path, make, kill_at=8)
    resumed = _fit(tmp_path, make, stream_resume="restart")
    assert "Numbers starts over after 6 batches of an epoch (harden(stream_resume='restart'))" in caplog.text
    assert len(resumed.seen) == EPOCHS * 10


def test_a_state_is_read_once_a_save_and_not_at_each_batch(tmp_path: Path) -> None:
    asked: list[int] = []

    class Asked(CountedNumbers):
        def state_dict(self) -> dict[str, Any]:
            asked.append(self.done)
            return super().state_dict()

    _fit(tmp_path, lambda: DataLoader(Asked(), batch_size=BATCH), save_every=5)
    assert len(asked) <= EPOCHS * (1 + 2 + 1)  # the start of an epoch, its saves, its end


def test_another_number_of_processes_is_refused_in_one_line(tmp_path: Path) -> None:
    _fit(tmp_path, STREAMS["a stream with a state"], kill_at=5)
    path = tmp_path / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["ExactResume"]["streams"] *= 2
    torch.save(checkpoint, path)
    manifest = next(tmp_path.glob("last.ckpt*.json"))
    manifest.unlink()
    with pytest.raises(UserError, match="positions of a stream in 2 processes, and this run has 1"):
        _fit(tmp_path, STREAMS["a stream with a state"])


@pytest.mark.slow
def test_the_loader_of_a_step_is_the_users_own(tmp_path: Path) -> None:
    loader = UserLoader()
    model = _fit(tmp_path, lambda: loader, kill_at=1)
    assert model.trainer.train_dataloader is loader
    assert isinstance(loader, UserLoader)
