"""Check a group of ranks before training.

Ranks check over the store what could hang. They create the group only when every rank can reach every other rank.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from fulgurite.core.errors import UserError
from fulgurite.distributed.backend import default_backend, require_backend
from fulgurite.doctor.cluster.clocks import clock_offsets
from fulgurite.doctor.cluster.options import Options
from fulgurite.doctor.cluster.rank_group import INTERFACE_VARIABLES, RankGroup, device_for_backend
from fulgurite.doctor.cluster.rank_info import (
    FINDING,
    LEFT_OUT,
    Check,
    RankInfo,
    collect_rank_info,
    compare_ranks,
    select_interfaces,
)
from fulgurite.doctor.cluster.reachability import (
    ProbeListener,
    describe_unreachable,
    find_unreachable,
    interfaces_down,
)
from fulgurite.doctor.cluster.rendezvous import MissingRanks, Rendezvous
from fulgurite.doctor.cluster.watchdog import Watchdog
from fulgurite.doctor.conformance.fault_drills import DRILLS
from fulgurite.doctor.conformance.runner import EXAMPLES, UNSUPPORTED, WRONG, run_example
from fulgurite.doctor.report import Report

SHARED_FOLDER_SECONDS = 5.0  # time for a network file system to show a new file
CONNECT_SECONDS = 2.0  # for one connection, after the group broke
_CPP_LOCATION = re.compile(r"\[[^\]]*\.cc:\d+\] ")  # source line in gloo's messages


class Preflight:
    """The checks on one rank; `provenance` holds its `versions`, `commit` and `config`."""

    def __init__(
        self, rendezvous: Rendezvous, options: Options, provenance: dict[str, Any], watchdog: Watchdog
    ) -> None:
        self.rendezvous, self.options, self.watchdog = rendezvous, options, watchdog
        self.placement = rendezvous.placement
        self.backend = options.backend or default_backend()
        require_backend(self.backend, "--backend")
        self.device = device_for_backend(self.backend, self.placement.local_rank)
        interfaces = select_interfaces(self.backend, options.interface)
        self.listener = ProbeListener(interfaces)
        is_cuda = self.device.type == "cuda"
        device = torch.cuda.get_device_name(self.device) if is_cuda else f"cpu, {os.cpu_count()} cores"
        self.own = collect_rank_info(
            self.placement, device, interfaces, self.listener.ports(), options.folder, provenance
        )

    def compare(self) -> Report:
        """Compare the info of all ranks."""
        self.watchdog.start_step("waiting for the other ranks")
        self.rendezvous.require_same_world_size()
        ranks = [RankInfo(**values) for values in self.rendezvous.gather("rank_info", asdict(self.own))]
        self._require_shared_folder(ranks)
        return Report(self.backend, ranks, compare_ranks(ranks, self.options.min_free))

    def _require_shared_folder(self, ranks: list[RankInfo]) -> None:
        """Raise unless every rank sees a file that rank 0 writes to the folder."""
        folder, rank = self.options.folder, self.placement.rank
        self.watchdog.start_step(f"looking for {folder}")
        mark = ""
        if rank == 0:
            mark = f".doctor-{uuid4().hex}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / mark).touch()
            except OSError as error:
                self.rendezvous.reject(
                    f"--folder={folder}: rank 0 cannot write there ({error.strerror}). Name another folder."
                )
        [mark, *_] = self.rendezvous.gather("mark", mark)
        deadline = time.monotonic() + SHARED_FOLDER_SECONDS
        while not (seen := (folder / mark).exists()) and time.monotonic() < deadline:
            time.sleep(0.1)
        try:
            seen_by = self.rendezvous.gather("seen", seen)
        finally:
            if rank == 0:
                with suppress(OSError):
                    (folder / mark).unlink()
        if blind := [one.name for one, sees in zip(ranks, seen_by, strict=True) if not sees]:
            raise UserError(
                f"--folder={folder}: {', '.join(blind)} does not see the files of {ranks[0].name}. "
                "Name a folder that all machines mount."
            )

    def connect(self, report: Report) -> RankGroup | None:
        """Return the new group; None, and findings, when a rank is unreachable."""
        self.watchdog.start_step("connecting to every other rank")
        if any(check.name == "interfaces" and check.state == FINDING for check in report.checks):
            report.checks.append(Check("connections", LEFT_OUT, "correct the interfaces first"))
            return None
        unreachable = self.rendezvous.gather("unreachable", find_unreachable(self.own, report.facts))
        pairs = [(source, target, index) for of_rank in unreachable for source, target, index in of_rank]
        size = self.placement.world_size
        if not report.add("connections", describe_unreachable(pairs, report.facts), f"{size * (size - 1)}, all open"):
            return None
        self.watchdog.start_step("creating the group")
        if self.options.interface:
            os.environ.update(dict.fromkeys(INTERFACE_VARIABLES, self.options.interface))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            self.backend,
            store=PrefixStore("group", self.rendezvous.store),
            rank=self.placement.rank,
            world_size=size,
            timeout=timedelta(seconds=self.options.timeout),
        )
        return RankGroup(self.placement.rank, size, self.device, PrefixStore("examples", self.rendezvous.store))

    def check_group(self, report: Report, ranks: RankGroup) -> None:
        """Run all conformance examples, compare the clocks and inject faults."""
        outcomes = {}
        for name in EXAMPLES:
            self.watchdog.start_step(name)
            outcomes[name] = run_example(name, ranks)
        self.watchdog.start_step("comparing the results")
        wrong = [
            f"{name} on {one.name}: {detail}"
            for one, of_rank in zip(report.facts, self.rendezvous.gather("outcomes", outcomes), strict=True)
            for name, (state, detail) in of_rank.items()
            if state == WRONG
        ]
        unsupported = [name for name, one in outcomes.items() if one.state == UNSUPPORTED]
        right = f"{len(EXAMPLES) - len(unsupported)} right"
        if unsupported and ranks.size > 1:
            right += f", {self.backend} does not support {', '.join(unsupported)}"
        report.add("collectives", wrong, right)
        self._check_clocks(report, ranks)
        if ranks.size == 1 or self.options.no_drills:
            return
        for name, drill in DRILLS.items():
            self.watchdog.start_step(f"drill: {name}")
            failures = self.rendezvous.gather(f"drill {name}", drill(ranks, self.options.timeout))
            report.add(f"drill: {name}", [failure for failure in failures if failure][:1], "reported")

    def _check_clocks(self, report: Report, ranks: RankGroup) -> None:
        self.watchdog.start_step("comparing clocks")
        offsets = clock_offsets(ranks)
        limit = self.options.max_skew
        skewed = [
            f"{one.name} is {seconds:+.3f} s ahead of rank 0, more than {limit:g}. Start an NTP service."
            for one, seconds in zip(report.facts, offsets, strict=True)
            if abs(seconds) > limit
        ]
        report.add("clocks", skewed, f"within {max(map(abs, offsets)) * 1e3:.1f} ms of rank 0's")

    def diagnose_broken_group(self, report: Report, error: BaseException) -> None:
        """Add the cause of a broken group over the store, or raise when the store is unreachable too."""
        step, down, timeout = self.watchdog.step, interfaces_down(self.own), self.options.timeout
        and_down = "".join(f", {name} is down" for name in down)
        reason = _CPP_LOCATION.sub("", str(error).splitlines()[0]).partition(". This is typically")[0]
        lost = f"{step}: {self.own.name} lost the other ranks ({reason}){and_down}"
        store = f"the store at {self.placement.address}:{self.placement.port}"
        # an unreachable store blocks the call
        self.watchdog.start_step(f"{lost}; waiting for {store}", timeout + 10)
        try:
            unreachable = find_unreachable(self.own, report.facts, CONNECT_SECONDS)
            self.rendezvous.publish("broken", {"down": down, "unreachable": unreachable})
            answers, missing = self.rendezvous.gather_available("broken")
        except RuntimeError as store_error:
            raise MissingRanks(f"{lost}, and {store} is unreachable") from store_error
        report.add("group", [f"{step}: the ranks lost their connections ({reason})"])
        lines = _describe_failures(report, answers, missing, timeout)
        report.add("at fault", lines, "every rank answers and reaches every other rank again")

    def close(self) -> None:
        """Destroy the group and close the rendezvous."""
        self.watchdog.start_step("closing")
        self.listener.close()
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
        self.rendezvous.close()


def _describe_failures(report: Report, answers: list[Any], missing: list[int], timeout: float) -> list[str]:
    lines = [
        f"{', '.join(answer['down'])} is down on {one.name}"
        for one, answer in zip(report.facts, answers, strict=True)
        if answer is not None and answer["down"]
    ]
    remedy = "Check whether it was killed, or its network."
    silent = [report.facts[rank] for rank in missing]
    lines += [f"{one.name} (pid {one.pid}) did not answer within {timeout:g} s. {remedy}" for one in silent]
    for answer in filter(None, answers):
        lines += describe_unreachable([tuple(pair) for pair in answer["unreachable"]], report.facts)
    return lines
