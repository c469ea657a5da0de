"""What can be known about a group of processes before they train: step by step, each named before it is done.

What could hang is asked over the store first, so that a group is only made when every rank can be reached by every
other.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from fulgurite.core.errors import UserError
from fulgurite.distributed.backend import default_backend, require_backend
from fulgurite.doctor.cluster.clocks import clock_skew
from fulgurite.doctor.cluster.facts import (
    FINDING,
    LEFT_OUT,
    Check,
    RankInfo,
    as_plain,
    chosen_interfaces,
    compare,
    own_facts,
)
from fulgurite.doctor.cluster.groups import INTERFACES, device_for
from fulgurite.doctor.cluster.rank_group import Ranks
from fulgurite.doctor.cluster.reachability import ProbeListener, describe_unreachable, unreached
from fulgurite.doctor.cluster.rendezvous import Meeting
from fulgurite.doctor.cluster.watchdog import Watchdog
from fulgurite.doctor.conformance.fault_drills import DRILLS
from fulgurite.doctor.conformance.runner import ABSENT, EXAMPLES, WRONG, prove
from fulgurite.doctor.report import Report

SHARED = 5.0  # seconds that a network file system may take to show a new file


@dataclass(frozen=True)
class Wanted:
    """What the user asks for.

    Attributes:
        backend: Of the group; None takes NCCL where there are GPUs, else gloo.
        interface: Network interfaces by comma; None leaves them to environment and backend.
        timeout: Seconds that ranks wait for one another.
        folder: That all ranks must see.
        min_free: GiB that it must have free.
        max_skew: Seconds that clocks may be apart.
        drills: Whether faults are made on purpose.
    """

    folder: Path
    backend: str | None = None
    interface: str | None = None
    timeout: float = 60.0
    min_free: float = 1.0
    max_skew: float = 1.0
    drills: bool = True


class Preflight:
    """The steps, on one rank.

    Args:
        meeting: With the other ranks.
        wanted: What the user asks for.
        told: `versions`, `commit` and `config` of this rank.
        watch: Ends the process when a step hangs.

    Raises:
        UserError: What this rank was given cannot be used.
    """

    def __init__(self, meeting: Meeting, wanted: Wanted, told: dict[str, Any], watch: Watchdog) -> None:
        self.meeting, self.wanted, self.watch, self.place = meeting, wanted, watch, meeting.place
        self.backend = wanted.backend or default_backend()
        require_backend(self.backend, "--backend")
        self.interfaces = chosen_interfaces(self.backend, wanted.interface)
        self.device = device_for(self.backend, self.place.local_rank)
        self.bell = ProbeListener(self.interfaces)
        device = (
            torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else f"cpu, {os.cpu_count()} cores"
        )
        own = own_facts(self.place, device, self.interfaces, wanted.folder, told)
        self.own = RankInfo(**{**as_plain(own), "ports": self.bell.ports()})

    def look(self) -> Report:
        """Compare what the ranks say of themselves.

        Raises:
            Absent: A rank does not come.
            Refused: A rank was given something that cannot be used.
        """
        self.watch.begin("meeting the other ranks")
        self.meeting.same_size()
        facts = [RankInfo(**plain) for plain in self.meeting.gather("facts", as_plain(self.own))]
        self._share_folder(facts)
        return Report(self.backend, facts, compare(facts, self.wanted.min_free))

    def _share_folder(self, facts: list[RankInfo]) -> None:
        """Refuse a folder that rank 0 writes to and another rank does not see."""
        folder, rank = self.wanted.folder, self.place.rank
        self.watch.begin(f"looking for {folder}")
        mark = ""
        if rank == 0:
            mark = f".doctor-{uuid4().hex}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / mark).touch()
            except OSError as error:
                self.meeting.refuse(
                    f"--folder {folder}: rank 0 cannot write there ({error.strerror}); name another folder"
                )
        [mark, *_] = self.meeting.gather("mark", mark)
        until = time.monotonic() + SHARED
        while not (seen := (folder / mark).exists()) and time.monotonic() < until:
            time.sleep(0.1)
        try:
            blind = [one.name for one, sees in zip(facts, self.meeting.gather("seen", seen), strict=True) if not sees]
        finally:
            if rank == 0:
                with suppress(OSError):
                    (folder / mark).unlink()
        if blind:
            raise UserError(
                f"--folder {folder}: {', '.join(blind)} does not see what {facts[0].name} writes there; "
                "mount one folder on all machines, or name one that is"
            )

    def connect(self, report: Report) -> Ranks | None:
        """Make the group, if every rank can reach every other; None when not, with findings in the report."""
        self.watch.begin("reaching every other rank")
        if any(check.name == "interfaces" and check.state == FINDING for check in report.checks):
            report.checks.append(Check("connections", LEFT_OUT, "the interfaces must be mended first"))
            return None
        of_all = self.meeting.gather("unreached", unreached(self.own, report.facts))
        broken = [(source, target, place) for one in of_all for source, target, place in one]
        size = self.place.world_size
        if not report.add("connections", describe_unreachable(broken, report.facts), f"{size * (size - 1)}, all open"):
            return None
        self.watch.begin("making the group")
        if self.wanted.interface:
            for variable in INTERFACES:
                os.environ[variable] = self.wanted.interface
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            self.backend,
            store=PrefixStore("group", self.meeting.store),
            rank=self.place.rank,
            world_size=size,
            timeout=timedelta(seconds=self.wanted.timeout),
        )
        return Ranks(self.place.rank, size, self.device, PrefixStore("examples", self.meeting.store))

    def examine(self, report: Report, ranks: Ranks) -> None:
        """Prove every collective, read the clocks, and make faults on purpose."""
        outcomes = {}
        for name in EXAMPLES:
            self.watch.begin(name)
            outcomes[name] = prove(name, ranks)
        self.watch.begin("comparing what came out")
        of_all = self.meeting.gather("outcomes", [(name, one.state, one.detail) for name, one in outcomes.items()])
        wrong = [
            f"{name} on {report.facts[rank].name}: {detail}"
            for rank, each in enumerate(of_all)
            for name, state, detail in each
            if state == WRONG
        ]
        absent = [name for name, one in outcomes.items() if one.state == ABSENT]
        right = f"{len(EXAMPLES) - len(absent)} right" + (
            f"; {self.backend} has no {', '.join(absent)}" if absent and ranks.size > 1 else ""
        )
        report.add("collectives", wrong, right)
        self._clocks(report, ranks)
        if self.wanted.drills and ranks.size > 1:
            self._drill(report, ranks)

    def _clocks(self, report: Report, ranks: Ranks) -> None:
        self.watch.begin("comparing clocks")
        ahead = clock_skew(ranks)
        far = [
            f"{one.name} is {seconds:+.3f} s ahead of rank 0, more than {self.wanted.max_skew:g}; start an NTP service"
            for one, seconds in zip(report.facts, ahead, strict=True)
            if abs(seconds) > self.wanted.max_skew
        ]
        report.add("clocks", far, f"within {max(map(abs, ahead)) * 1e3:.1f} ms of rank 0's")

    def _drill(self, report: Report, ranks: Ranks) -> None:
        for name, drill in DRILLS.items():
            self.watch.begin(f"drill: {name}")
            failed = self.meeting.gather(f"drill {name}", drill(ranks, self.wanted.timeout))
            report.add(f"drill: {name}", [words for words in failed if words][:1], "as it should")

    def close(self) -> None:
        """Leave the group and the meeting."""
        self.watch.begin("leaving")
        self.bell.close()
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
        self.meeting.leave()
