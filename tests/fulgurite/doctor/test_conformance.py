"""Conformance examples on gloo with 2 and 3 ranks: every result is exact."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from fulgurite.doctor.conformance.collectives import REDUCTIONS, numbers
from fulgurite.doctor.conformance.runner import EXAMPLES, RIGHT, UNSUPPORTED, WRONG
from tests.support.multirank import in_ranks


def _run_all(rank: int, size: int, folder: str) -> None:
    import torch
    import torch.distributed as dist

    from fulgurite.doctor.cluster.rank_group import RankGroup
    from fulgurite.doctor.conformance import runner

    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", size)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=30))
    ranks = RankGroup(rank, size, torch.device("cpu"), dist.PrefixStore("examples", store))  # type: ignore[attr-defined]
    results = {name: (one.state, one.detail) for name in EXAMPLES for one in [runner.run_example(name, ranks)]}
    # a wrong expectation must be reported
    runner.EXAMPLES["wrong"] = partial(_wrong_example, rank)
    results["wrong"] = (wrong := runner.run_example("wrong", ranks)).state, wrong.detail
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


def _wrong_example(rank, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    yield ranks.tensor(1.0), ranks.tensor(1.0 if rank == 0 else 1.0000001)


@pytest.mark.parametrize("size", [2, 3])
def test_every_collective_and_reduction_gives_exact_values(size: int, tmp_path: Path) -> None:
    assert in_ranks(size, _run_all, size, str(tmp_path)) == [0] * size
    for rank in range(size):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        wrong = results.pop("wrong")
        assert wrong[0] == (RIGHT if rank == 0 else WRONG)
        assert results.pop("all_reduce PREMUL_SUM") == [UNSUPPORTED, "Cannot use ReduceOp.PREMUL_SUM with Gloo"]
        assert results == {name: [RIGHT, ""] for name in EXAMPLES if name != "all_reduce PREMUL_SUM"}


def test_no_two_reductions_of_the_examples_have_equal_results() -> None:
    results = [fold(numbers(2)) for fold in REDUCTIONS.values()]
    assert results == [8, 4, 15, 3, 5, 1, 7, 6]
    assert len(set(results)) == len(REDUCTIONS)


def test_every_reduction_of_torch_has_an_example() -> None:
    import torch.distributed as dist

    known = {name for name in dir(dist.ReduceOp) if re.fullmatch("[A-Z_]+", name)} - {"UNUSED"}
    shown = {name.removeprefix("all_reduce ") for name in EXAMPLES}
    assert known <= shown
