"""Several processes train and evaluate to what one process with the same global batch comes to."""

from __future__ import annotations

import re
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from fulgurite.core.errors import ConfigError
from fulgurite.exact_resume import uneven_batches as equal
from fulgurite.exact_resume.order.epoch import EpochSampler, SeededBatchSampler
from fulgurite.exact_resume.order.sharding import BatchSharding
from fulgurite.validation.validate import validate
from tests.conftest import ComposeSmall
from tests.support.cli import only_run, read_json, run_cli
from tests.support.uneven_task import PlainData, numbers, run, seen

FORKED = "ignore:.*multi-threaded, use of fork.*:DeprecationWarning"
FLOAT64 = "64-true"  # rounding in float32 depends on the instruction set of the processor


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_parts_of_all_ranks_are_the_batches_of_one_process(ranks: int) -> None:
    for examples, drop_last in product((*range(1, 31), 96, 103), (False, True)):
        order = torch.randperm(examples).tolist()
        one = list(BatchSampler(order, 12, drop_last))
        parts = [BatchSharding(examples, 12 // ranks, rank, ranks, drop_last) for rank in range(ranks)]
        assert {part.num_batches for part in parts} == {len(one)}
        for batch, together in enumerate(one):
            own = [[] if part.is_padding(batch) else part.shard(order, batch) for part in parts]
            assert sorted(chain.from_iterable(own)) == sorted(together)
            assert sum(part.weight(batch) for part in parts) == pytest.approx(ranks)
            assert max(map(len, own)) <= 12 // ranks
            assert all(part.shard(order, batch) for part in parts)  # nobody is left without a batch
            # batch norm refuses a part of one example
            assert not any(len(part) == 1 for part in own) or len(together) == 1


def test_the_length_of_a_shard_is_that_of_its_batches() -> None:
    for rank in range(3):
        order = EpochSampler(RandomSampler(range(25)), 7, BatchSharding(25, 4, rank, 3))
        batches = [indices for _, indices in SeededBatchSampler(order)]
        assert len(order) == len(list(order)) == sum(map(len, batches))
        assert [index for indices in batches for index in indices] == list(order)
    assert list(EpochSampler(SequentialSampler(range(5)), 7, BatchSharding(5, 2, 1, 2))) == [
        1,
        3,
        0,
        1,
    ]  # 4 is rank 0's


@pytest.mark.filterwarnings(FORKED)
@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_see_the_samples_of_one_process_at_each_step_and_end_with_its_weights(ranks: int, tmp_path: Path) -> None:
    # 10 full batches of 12 and one of 7: not to be shared out evenly by 2 nor by 3; 22 steps, over the end of an epoch
    for count in (1, ranks):
        run(tmp_path / str(count), count, PlainData(127, 31, 12), max_epochs=2, precision=FLOAT64)
    one, several = tmp_path / "1", tmp_path / str(ranks)
    steps = seen(one, "fit", "train", 1)
    assert [len(step) for step in steps] == [*[12] * 10, 7] * 2
    assert seen(several, "fit", "train", ranks) == steps
    for name, weight in torch.load(one / "weights.pt").items():
        torch.testing.assert_close(torch.load(several / "weights.pt")[name], weight, rtol=0, atol=1e-6)
    assert numbers(several, "fit") == pytest.approx(numbers(one, "fit"), abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings(FORKED)
@pytest.mark.parametrize(("ranks", "examples"), [(2, 121), (2, 123), (3, 122), (3, 125)])
def test_a_last_batch_that_is_too_small_for_all_ranks_changes_nothing(
    ranks: int, examples: int, tmp_path: Path
) -> None:
    for count in (1, ranks):
        run(
            tmp_path / str(count),
            count,
            PlainData(examples, 12, 12),
            max_epochs=2,
            accumulate_grad_batches=2,
            precision=FLOAT64,
        )
    one, several = tmp_path / "1", tmp_path / str(ranks)
    for name, weight in torch.load(one / "weights.pt").items():
        torch.testing.assert_close(torch.load(several / "weights.pt")[name], weight, rtol=0, atol=1e-6)
    assert numbers(several, "fit") == pytest.approx(numbers(one, "fit"), abs=1e-6)


@pytest.mark.filterwarnings(FORKED)
@pytest.mark.parametrize(
    ("ranks", "examples"),
    [(2, 25), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(2, 31), (2, 1), (3, 26), (3, 2), (3, 35)])],
)
def test_metrics_count_every_example_once_and_equal_one_process_to_the_last_digit(
    ranks: int, examples: int, tmp_path: Path
) -> None:
    for count in (1, ranks):
        run(tmp_path / str(count), count, PlainData(12, examples, 12), method="test", batch_norm=True)
    one, several = (numbers(tmp_path / str(count), "test") for count in (1, ranks))
    exact = ("test/mean", "test/acc")
    assert [several[name] for name in exact] == [one[name] for name in exact]
    assert several == pytest.approx(one, abs=1e-6)  # self.log adds up rounded means of batches


@pytest.mark.slow
@pytest.mark.filterwarnings(FORKED)
@pytest.mark.parametrize(("ranks", "examples"), [(2, 25), (3, 2)])
def test_every_example_is_predicted_once(ranks: int, examples: int, tmp_path: Path) -> None:
    run(tmp_path, ranks, PlainData(12, examples, 12), method="predict")
    shares = [torch.load(tmp_path / f"predict-seen-{rank}.pt")["predict"] for rank in range(ranks)]
    assert sorted(number for share in shares for part in share for number in part) == list(range(examples))


TWO_BY_TWO = (
    "trainer=tensor_parallel",
    "trainer.strategy.data_parallel_size=2",
    "trainer.strategy.tensor_parallel_size=2",
    "trainer.devices=4",
)


@pytest.mark.parametrize(
    ("words", "over"),
    [
        (("trainer=ddp_sim", "data.batch_size=65"), "2 processes. Choose a multiple of 2, e.g. data.batch_size=64"),
        (
            ("trainer=ddp_sim", "trainer.devices=2", "trainer.num_nodes=3", "data.batch_size=64"),
            "6 processes (3 nodes of 2). Choose a multiple of 6, e.g. data.batch_size=60",
        ),
        (("trainer=ddp_sim", "trainer.devices=3", "data.batch_size=2"), "3 processes. Choose a multiple of 3, e.g. "),
        (("trainer=fsdp", "trainer.devices=3", "data.batch_size=64"), "3 processes. Choose a multiple of 3, e.g. "),
        (
            (*TWO_BY_TWO, "data.batch_size=65"),
            "2 groups of processes that share their batches. Choose a multiple of 2, e.g. data.batch_size=64",
        ),
    ],
)
def test_a_batch_that_does_not_divide_is_one_line_before_anything_is_imported(
    words: tuple[str, ...], over: str, small: ComposeSmall
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"does not divide over {over}")) as refused:
        validate(small(*words))
    assert len(refused.value.findings) == 1


def test_a_number_of_processes_that_is_not_known_yet_is_left_to_the_data_module(small: ComposeSmall) -> None:
    validate(small("trainer=ddp_sim", "trainer.devices=auto", "data.batch_size=65"))
    validate(small("trainer=ddp_sim", "trainer.devices=[0,1]", "data.batch_size=64"))
    validate(small("data.batch_size=65"))


def test_processes_that_share_their_batches_count_once(small: ComposeSmall) -> None:
    validate(small(*TWO_BY_TWO, "data.batch_size=66"))
    validate(small("trainer=tensor_parallel", "data.batch_size=65"))


def test_sizes_whose_product_is_not_the_number_of_processes_are_one_line(small: ComposeSmall) -> None:
    rule = (
        "trainer.strategy.data_parallel_size=2: times tensor_parallel_size=1 is 2, and the trainer has 4 processes "
        "(2 nodes of 2). Use trainer.strategy.data_parallel_size=4"
    )
    with pytest.raises(ConfigError, match=re.escape(rule)) as refused:
        validate(small("trainer=fsdp", "trainer.num_nodes=2"))
    assert len(refused.value.findings) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_evaluation_by_three_processes_equals_that_by_one_to_the_last_digit(tmp_path: Path) -> None:
    words = ("trainer.max_epochs=1", "data.batch_size=63", "data.test_size=485", "extras.print_config=false")
    done = run_cli("train", *words, logs=tmp_path / "train")
    assert done.returncode == 0, done.stderr
    trained = only_run(tmp_path / "train")
    weights = f"ckpt_path={trained / 'checkpoints' / 'last.ckpt'}"
    found: list[dict[str, float]] = []
    # 485 = 7 * 63 + 44: parts of 15, 15 and 14; 484 = 7 * 63 + 43
    for trainer in (
        ("trainer=cpu",),
        ("trainer=ddp_sim", "trainer.devices=3"),
        ("trainer=ddp_sim", "trainer.devices=1"),
    ):
        logs = tmp_path / str(len(found))
        done = run_cli("eval", *trainer, *words[1:], weights, logs=logs, timeout=200)
        assert done.returncode == 0, done.stderr
        assert "terminate called" not in done.stderr
        assert "DistributedSampler" not in done.stderr
        found.append(read_json(only_run(logs, "eval") / "results.json")["metrics"])
    assert found[1] == found[0]
    assert found[2] == found[0]
    assert set(found[0]) == {"test/loss", "test/acc"}


def test_a_loader_that_shares_out_by_itself_is_left_as_it_is() -> None:
    examples = TensorDataset(torch.arange(4))
    own: DistributedSampler[Any] = DistributedSampler(examples, 2, 0)
    loader = DataLoader(examples, sampler=own)
    assert equal._shard_loader(loader, Trainer(accelerator="cpu", logger=False), pad=True) == ""
    assert loader.sampler is own
