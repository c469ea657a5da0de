"""A data module that several trainers fit has the loaders of the one that fits it now."""

from __future__ import annotations

import pickle
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, RandomSampler

import fulgurite
from fulgurite.core.errors import UserError
from fulgurite.exact_resume.loader import ShardSpec
from fulgurite.exact_resume.make_exact import make_exact
from fulgurite.exact_resume.order.drawn import Drawn
from fulgurite.exact_resume.order.rng import ScopedRng
from fulgurite.exact_resume.order.seeded import SeededDataset, seed_passes


class Noisy(Dataset[torch.Tensor]):
    """Numbered examples with noise."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(index), float(torch.rand((), generator=self.generator))])


class Data(LightningDataModule):
    """Loaders that are made once, or anew for each trainer."""

    def __init__(self, *, cached: bool) -> None:
        super().__init__()
        self.cached = cached
        self.loaders = (DataLoader(Noisy(), 2, shuffle=True), DataLoader(Noisy(), 2))

    def train_dataloader(self) -> Any:
        """Return shuffled batches."""
        return self.loaders[0] if self.cached else DataLoader(Noisy(), 2, shuffle=True)

    def val_dataloader(self) -> Any:
        """Return noisy batches in order."""
        return self.loaders[1] if self.cached else DataLoader(Noisy(), 2)


class Seen(LightningModule):
    """Keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 1)
        self.seen: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return a loss, scalar."""
        self.seen.append(batch.tolist())
        loss: torch.Tensor = self.net(batch).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Note the batch."""
        self.seen.append(batch.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: Data, seed: int, folder: Path) -> list[Any]:
    """Train two epochs and return the batches."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=2, accelerator="cpu", num_sanity_val_steps=0, **quiet)  # type: ignore[arg-type]
    fulgurite.harden(trainer, data, run_dir=folder, seed=seed, handle_signals=False)
    model = Seen()
    trainer.fit(model, datamodule=data)
    return model.seen


@pytest.mark.parametrize("cached", [False, True])
def test_a_second_trainer_gets_loaders_of_its_own_seed(cached: bool, tmp_path: Path) -> None:
    data = Data(cached=cached)
    first, second = fit(data, 1, tmp_path), fit(data, 2, tmp_path)
    assert first != second
    assert second == fit(Data(cached=cached), 2, tmp_path)


def test_lightning_gets_a_distributed_sampler_also_of_a_single_shard() -> None:
    loader: DataLoader[int] = DataLoader(range(8), batch_size=2)  # type: ignore[arg-type]  # a data set, as torch takes it
    for shard, is_distributed in ((None, False), ((0, 1), True), ((1, 2), True)):
        exact, _ = make_exact(loader, ShardSpec(7, lambda: True, shard=shard))
        assert isinstance(exact.sampler, DistributedSampler) == is_distributed
    assert make_exact(loader, ShardSpec(7, lambda: True))[0].sampler is loader.sampler


def test_own_batches_are_refused_where_lightning_would_split_them_also_in_one_shard() -> None:
    class Own:
        def __iter__(self) -> Any:
            return iter(BatchSampler(RandomSampler(range(8)), 2, drop_last=False))

    loader: DataLoader[int] = DataLoader(range(8), batch_sampler=Own())  # type: ignore[arg-type]  # as above
    make_exact(loader, ShardSpec(7, lambda: True))
    with pytest.raises(UserError, match=r"trainer.use_distributed_sampler=true: Lightning cannot split the batches"):
        make_exact(loader, ShardSpec(7, lambda: True, shard=(0, 1)))


def test_a_stand_in_passes_for_the_data_set_or_sampler_that_it_wraps_also_copied_and_in_spawned_workers() -> None:
    stand_in = SeededDataset(Noisy(), torch.stack, ScopedRng())
    each: Any
    for each in (stand_in, copy(stand_in), pickle.loads(pickle.dumps(stand_in))):  # noqa: S301 - made above
        assert isinstance(each, Noisy)
        assert type(each).__name__ == "SeededDataset"
        assert len(each) == 8
        users: Any = vars(each)["_wrapped"]
        for name in ("level", "_private"):
            setattr(each, name, 3)
            assert vars(users)[name] == getattr(each, name) == 3
    plain: Any = SeededDataset([1, 2], torch.tensor, ScopedRng())
    assert not isinstance(plain, list)  # what is no data set of torch may have no attributes
    loader: Any = DataLoader(Noisy(), 2, num_workers=1)
    seed_passes(loader, lambda: 1)
    assert isinstance(loader.dataset, Noisy)
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert type(loader.batch_sampler).__name__ == "PassSeededBatches"


def test_a_loader_has_the_batch_size_of_the_users() -> None:
    for settings in ({"batch_size": 2, "drop_last": True}, {"batch_size": None}):
        exact, _ = make_exact(DataLoader(Noisy(), **settings), ShardSpec(7, lambda: True))
        assert {"drop_last": False, **settings} == {"batch_size": exact.batch_size, "drop_last": exact.drop_last}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_has_the_batch_sampler_of_the_user_and_follows_it(num_workers: int) -> None:
    loader: DataLoader[int] = DataLoader(range(9), 4, shuffle=True, num_workers=num_workers)  # type: ignore[arg-type]
    exact, _ = make_exact(loader, ShardSpec(7, lambda: True))
    batches: Any = exact.batch_sampler
    assert id(batches) == id(loader.batch_sampler)
    assert [len(batch) for batch in exact] == [4, 4, 1]
    batches.batch_size, batches.drop_last = 2, True
    assert [len(batch) for batch in exact] == [2, 2, 2, 2]
    assert len(exact) == 4


def test_a_look_at_a_loader_leaves_the_position_of_the_training_and_is_counted() -> None:
    trained: list[Any] = []
    spec = ShardSpec(7, lambda: True, is_trained=lambda _, iterator: any(each is iterator for each in trained))
    loader, _ = make_exact(DataLoader(range(8), 2, shuffle=True), spec)  # type: ignore[arg-type]  # as above
    trained.append(batches := iter(loader))
    next(batches)
    looks = [next(iter(loader)).tolist() for _ in range(2)]
    state = loader.state_dict()
    assert (state["pass"], state["batches"], state["passes"]) == (0, 1, 3)
    resumed, _ = make_exact(DataLoader(range(8), 2, shuffle=True), spec)  # type: ignore[arg-type]  # as above
    resumed.load_state_dict(state)
    trained.append(again := iter(resumed))
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]
    assert next(iter(resumed)).tolist() == next(iter(loader)).tolist()
    assert looks[0] != looks[1]


def test_the_checksum_of_batches_tells_numbers_texts_and_tensors_apart_and_passes_over_other_objects() -> None:
    def of(*batches: Any) -> list[int] | None:
        drawn = Drawn("Own")
        for batch in batches:
            drawn.add(batch)
        return drawn.state()

    assert of([1, 2]) == of((1, 2)) == of(torch.tensor([1, 2])) != of([2, 1])
    assert of("a", "b") != of("ab") != of(["a", ("b", 1.5)]) is not None
    assert of([1], [object()]) is of({1}) is None


def test_other_batches_are_named_where_the_sampler_remembers_what_it_yielded(caplog: pytest.LogCaptureFixture) -> None:
    def hard() -> Any:
        left = {1, 2, 3}
        while left:
            yield [left.pop()]

    def drawn_anew() -> Any:
        for _ in range(2):
            chosen = [1]
            yield chosen

    cases = ((hard(), False, True), (drawn_anew(), False, False), (drawn_anew(), True, True))
    for number, (batches, keeps, is_named) in enumerate(cases):  # each line is logged once
        drawn = Drawn(f"Own{number}", [1, 7], keeps_generator=keeps)
        caplog.clear()
        drawn.add(next(batches), batches)
        assert bool(caplog.text) == is_named
