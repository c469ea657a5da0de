"""A run that is killed and goes on from its last checkpoint ends as the run that never stopped, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from src.base.errors import UserError
from src.run.exact.loader import ExactLoader, Share, make_exact
from src.run.exact.randomness import LOOKS, Lending, generator_states, restore_generators
from tests.ordinary import Noisy
from tests.resuming import history, killed_and_resumed, run

QUIET = (
    "test=false",
    "extras.exact_resume=true",
    "extras.print_config=false",
    "callbacks.progress_bar=null",
    "callbacks.model_summary=null",
    "trainer.enable_progress_bar=false",
)
EPOCH = 6  # optimizer steps of the small run's epochs
SMALL = (
    *QUIET,
    "trainer.max_epochs=3",
    f"+trainer.limit_train_batches={EPOCH}",
    "+trainer.limit_val_batches=2",
    "callbacks.last_checkpoint.every_n_train_steps=1",
)
HARD = (
    *QUIET,
    "~data",
    "~model",
    "+model={_target_: tests.ordinary.OrdinaryModel}",
    "~callbacks.model_checkpoint",
    "~callbacks.early_stopping",
    "trainer.max_epochs=4",
    "+trainer.accumulate_grad_batches=4",  # 13 batches an epoch: 4 steps
    "callbacks.last_checkpoint.every_n_train_steps=1",
)
WORKERS = "+data={{_target_: tests.ordinary.OrdinaryData, num_workers: {}, persistent: {}}}"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the history of the small run that was never killed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run(folder, SMALL) == 0
    return history(folder)


@pytest.mark.parametrize("step", [EPOCH + 1, EPOCH + 3, 2 * EPOCH, 2 * EPOCH + 1], ids=["first", "mid", "last", "next"])
def test_the_default_run_killed_at_a_step_ends_as_if_it_had_not_been(
    step: int, straight: dict[str, Any], tmp_path: Path
) -> None:
    assert history(killed_and_resumed(tmp_path, SMALL, kill_at=step)) == straight


def test_saves_far_apart_repeat_the_steps_in_between_bit_by_bit(straight: dict[str, Any], tmp_path: Path) -> None:
    words = [*SMALL, "callbacks.last_checkpoint.every_n_train_steps=4"]
    assert history(killed_and_resumed(tmp_path, words, kill_at=EPOCH + 3)) == straight


def test_without_exact_resume_the_comparison_finds_another_order_and_other_weights(tmp_path: Path) -> None:
    words = [*SMALL, "extras.exact_resume=false"]
    assert run(tmp_path / "straight", words) == 0
    plain, resumed = (
        history(folder) for folder in (tmp_path / "straight", killed_and_resumed(tmp_path, words, kill_at=EPOCH + 3))
    )
    differing = {name for name in plain if plain[name] != resumed[name]}
    assert {"batches", "weights", "optimizer", "generator", "rows"} <= differing


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["+trainer.max_steps=14", "+model.interval=step"]], ids=["epochs", "steps"])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_users_code_with_workers_augmentation_dropout_plateau_and_accumulation_resumes_exactly(
    workers: int, persistent: bool, more: list[str], tmp_path: Path
) -> None:
    words = [*HARD, WORKERS.format(workers, str(persistent).lower()), *more]
    assert run(tmp_path / "straight", words) == 0
    straight = history(tmp_path / "straight")
    for step in (2, 6, 8, 9):  # within the first epoch, amid the second, its last, the first of the third
        assert history(killed_and_resumed(tmp_path / f"at {step}", words, kill_at=step)) == straight, step


def _loader(**settings: Any) -> ExactLoader:
    exact, _ = make_exact(DataLoader(Noisy(1.0), batch_size=8, **settings), Share(7, lambda: None))
    assert isinstance(exact, ExactLoader)
    return exact


def _epoch(loader: ExactLoader, epoch: int) -> list[torch.Tensor]:
    loader.order.set_epoch(epoch)
    return [examples for examples, _ in loader]


def test_order_and_augmentation_are_functions_of_seed_and_epoch_whatever_the_workers() -> None:
    alone, helped = _loader(shuffle=True), _loader(shuffle=True, num_workers=2)
    first = _epoch(alone, 3)
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, _epoch(helped, 3), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, _epoch(alone, 3), strict=True))
    assert not torch.equal(first[0], _epoch(alone, 4)[0])


def test_an_epoch_has_every_example_once_and_the_rest_follows_a_restored_place() -> None:
    loader = _loader(shuffle=True)
    indices = [index for _, batch in loader.batches for index in batch]
    assert sorted(indices) == list(range(104))
    assert indices != sorted(indices)
    whole = _epoch(loader, 0)
    again, rest = _loader(shuffle=True), iter(loader)
    for _ in range(5):
        next(rest)
    again.load_state_dict(loader.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], _epoch(again, 0), strict=True))


def test_another_batch_size_amid_an_epoch_is_refused_in_one_line() -> None:
    state = {**_loader().state_dict(), "batch_size": 16}
    with pytest.raises(UserError, match=r"batch size 16, here is 8.*exact_resume=false"):
        _loader().load_state_dict(state)


class Stream(IterableDataset[int]):
    """Has an order of its own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


class OwnBatches(BatchSampler):
    """Could do anything."""


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (DataLoader(Stream()), "iterable data set"),
        (DataLoader(Noisy(0), batch_sampler=OwnBatches(SequentialSampler(range(4)), 2, False)), "batch sampler"),
        ([1, 2], "int is not a plain DataLoader"),
    ],
)
def test_a_loader_whose_order_is_not_known_is_left_as_it_is_and_the_reason_told(loader: Any, reason: str) -> None:
    same, reasons = make_exact(loader, Share(7, lambda: None))
    assert same == loader
    assert reason in reasons[0]


def _draw(_: object = None) -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("batches", [1, LOOKS + 1])
def test_a_batch_made_in_the_process_leaves_all_three_generators_as_they_were(batches: int) -> None:
    before, lending = generator_states(), Lending()
    inside = [lending.run(5, _draw, None) for _ in range(batches)]
    assert set(inside) == {inside[0]}
    after = _draw()
    restore_generators(before)
    assert _draw() == after
    assert inside[0] != after


def test_a_generator_that_no_batch_draws_from_is_left_alone_and_a_resumed_run_knows() -> None:
    def torch_only(_: None) -> float:
        return float(torch.rand(()))

    lending, again = Lending(), Lending()
    for _ in range(LOOKS):
        lending.run(5, torch_only, None)
    assert lending.state_dict() == {"looks": 0, "drawn": ["torch"]}
    again.load_state_dict(lending.state_dict())
    before = generator_states()
    drawn = again.run(5, _draw, None)
    restore_generators(before)
    assert drawn[:2] == _draw()[:2]  # the run's own streams, which a checkpoint holds
    assert drawn[2] == lending.run(5, torch_only, None)
