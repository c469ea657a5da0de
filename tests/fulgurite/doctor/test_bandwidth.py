"""Bandwidths, percentiles, slow links and thresholds of the doctor's bench."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.core.errors import UserError
from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.bandwidth import (
    BUS_FACTOR,
    algorithm_bandwidth,
    bus_bandwidth,
    percentile,
    slow_indices,
)
from fulgurite.doctor.bench.collectives import Measurement, message_sizes
from fulgurite.doctor.bench.links import Link, find_slow_links, rank_pairs, ranks_with_slow_links
from fulgurite.doctor.bench.thresholds import parse_bytes, read_thresholds
from fulgurite.doctor.cluster.rank_info import FINDING, FINE, RankInfo
from fulgurite.doctor.report import Report
from fulgurite.doctor.speed import below_thresholds

# 64 MB in 0.1 s on 4 ranks: 0.64 GB/s, times the factor of nccl-tests' PERFORMANCE.md, by hand
BY_HAND = {
    "all_reduce": 0.96,
    "reduce_scatter": 0.48,
    "all_gather": 0.48,
    "all_to_all": 0.48,
    "gather": 0.48,
    "scatter": 0.48,
    "broadcast": 0.64,
    "reduce": 0.64,
    "send_recv": 0.64,
}


@pytest.mark.parametrize("collective", BUS_FACTOR)
def test_bus_bandwidth_is_that_of_nccl_tests(collective: str) -> None:
    assert algorithm_bandwidth(64_000_000, 0.1) == pytest.approx(0.64)
    assert bus_bandwidth(collective, 64_000_000, 0.1, 4) == pytest.approx(BY_HAND[collective])


def test_two_ranks_all_reduce_what_their_link_carries_and_share_halves_of_a_gather() -> None:
    assert bus_bandwidth("all_reduce", 10**9, 1.0, 2) == pytest.approx(1.0)
    assert bus_bandwidth("all_gather", 10**9, 1.0, 2) == pytest.approx(0.5)


def test_the_95th_percentile_of_20_calls_is_the_19th() -> None:
    assert percentile(list(range(1, 21)), 0.95) == 19
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([5, 1, 3], 0.5) == 3


def test_sizes_go_from_8_bytes_to_the_largest() -> None:
    assert message_sizes(64 * 2**20, 2) == [8 * 2**power for power in range(24)]
    assert message_sizes(100, 4) == [8, 32, 100]
    assert message_sizes(8, 4) == [8]


@pytest.mark.parametrize(
    ("rates", "slow"),
    [
        ([1.0, 1.0, 1.0, 0.5], [3]),
        ([1.0, 0.95, 1.0, 0.91], []),  # within 10 % of the median
        ([1.0, 0.7, 1.3, 0.6], [3]),  # one is farther from the median than the others
        ([0.9, 0.9, 0.003, 0.004], [2, 3]),  # half of them
        ([0.9, 0.003], [1]),
        ([0.5], []),
        ([1.0, 1.0, 9.0], []),  # faster is not slow
    ],
)
def test_slow_is_below_the_median_by_more_than_the_deviation_and_a_tenth(rates: list[float], slow: list[int]) -> None:
    assert slow_indices(rates) == slow


def facts(rank: int, host: str) -> RankInfo:
    return RankInfo(
        rank, host, host, 100 + rank, "torchrun", 0, "cpu", ["eth0"], ["10.0.0.1"], None, {}, None, None, None
    )


def test_links_are_compared_within_their_kind_and_a_rank_is_named_when_all_its_links_are_slow() -> None:
    ranks = [facts(0, "a"), facts(1, "a"), facts(2, "b"), facts(3, "c")]
    links = []
    for one, other in rank_pairs(ranks):
        within = ranks[one].host == ranks[other].host
        rate = 5.0 if within else 0.1 if 3 in {one, other} else 1.0
        links += [Link(one, other, 0, 1e-5, rate), Link(other, one, 0, 1e-5, rate)]
    # rank 3 has six of the ten links between machines: the median is one of its own
    assert find_slow_links(links, ranks) == []
    links = [link if link.target != 3 else Link(link.source, 3, 0, 1e-5, 1.0) for link in links]
    found = find_slow_links(links, ranks)
    assert sorted((link.source, link.target) for link, _ in found) == [(3, 0), (3, 1), (3, 2)]
    assert found[0][1].message == "rank 3 (c) -> rank 0 (a) over eth0: 0.1 GB/s, 10 % of the median 1"
    assert found[0][1].is_finding
    assert ranks_with_slow_links(links, [link for link, _ in found], ranks) == []
    of_rank_3 = [link for link in links if 3 in {link.source, link.target}]
    assert ranks_with_slow_links(links, of_rank_3, ranks) == ["rank 3 (c)"]


def test_of_many_ranks_one_a_machine_is_measured() -> None:
    many = [facts(rank, f"node{rank // 8}") for rank in range(24)]
    assert rank_pairs(many) == [(0, 8), (0, 16), (8, 16)]
    assert len(rank_pairs(many[:16])) == 16 * 15 / 2


def test_a_threshold_holds_from_its_size_up_to_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "minimum.yaml").write_text("all_reduce: {1KiB: 0.5, 1MiB: 2}\nlinks: 1\n")
    minimum = read_thresholds(tmp_path / "minimum.yaml")
    assert minimum == {"all_reduce": {1024: 0.5, 2**20: 2.0}, "links": {0: 1.0}}
    rows = [(8, 0.1), (1024, 0.6), (4096, 0.4), (2**20, 1.9), (2**21, 2.1)]
    measured = [Measurement("all_reduce", size, 20, 1.0, 1.0, rate, rate, 0) for size, rate in rows]
    measured.append(Measurement("broadcast", 2**20, 20, 1.0, 1.0, 0.1, 0.1, 0))
    report = Report("gloo", [facts(0, "a"), facts(1, "b")], measured=measured, links=[Link(1, 0, 0, 1e-5, 0.9)])
    checks = below_thresholds(report, minimum)
    assert [(check.state, check.detail) for check in checks] == [
        (FINDING, "all_reduce of 4 KiB: 0.4 GB/s on the bus, below 0.5"),
        (FINDING, "all_reduce of 1 MiB: 1.9 GB/s on the bus, below 2"),
        (FINDING, "rank 1 (b) -> rank 0 (a) over eth0: 0.9 GB/s, below 1"),
    ]
    assert [check.state for check in below_thresholds(report, {"broadcast": {8: 0.05}})] == [FINE]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("all_reduc: {1MiB: 1}", "all_reduc: not a collective. Did you mean 'all_reduce'?"),
        ("all_reduce: 3", "all_reduce=3: not a mapping. Give GB/s by size, e.g. {1MiB: 0.5}."),
        ("all_reduce: {big: 3}", "all_reduce=big: not a size. Give a number of bytes, e.g. 65536, 64KiB or 16MiB."),
        ("all_reduce: {8: -1}", "all_reduce: 8=-1: not a rate. Give GB/s above 0."),
        ("links: fast", "links=fast: not a rate. Give GB/s above 0."),
        ("", "no thresholds. Write e.g. all_reduce: {1MiB: 0.5}."),
        ("a: [", "cannot be read: while parsing"),
    ],
)
def test_an_invalid_threshold_file_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "minimum.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_thresholds(tmp_path / "minimum.yaml")
    assert str(caught.value).startswith(f"--threshold={tmp_path}/minimum.yaml: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_are_read_and_shown_in_units() -> None:
    assert [parse_bytes(text, "") for text in ("8", "64KiB", "64 kib", "1MB")] == [8, 65536, 65536, 10**6]
    assert [format_bytes(number) for number in (8, 12, 65536, 64 * 2**20)] == ["8 B", "12 B", "64 KiB", "64 MiB"]
