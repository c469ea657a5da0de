"""Where ranks meet before there is a group: values by name in torch's store, waited for a bounded time.

A group that cannot be made hangs, on some ranks for several times its timeout, and does not say why. A store needs one
connection to rank 0 only, so ranks can first find out over it whether a group can be made, and afterwards why it broke.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.doctor.cluster.placement import Place

POLL = 0.05  # seconds
LINGER = 2.0  # seconds that a rank waits for others to read what it has told


class MissingRanks(FulguriteError):
    """Ranks did not come within the timeout; an error that ends the doctor with a finding.

    Args:
        ranks: Who did not.
        message: One line.
    """

    def __init__(self, ranks: Sequence[int], message: str) -> None:
        self.ranks = list(ranks)
        super().__init__(message)


class Refused(UserError):
    """Another rank was given something that cannot be used; the message is that rank's."""


class Meeting:
    """The ranks' store.

    Args:
        place: Of this process.
        timeout: Seconds to wait for others.

    Raises:
        UserError: The port is taken.
        Absent: Rank 0's machine cannot be reached.
    """

    def __init__(self, place: Place, timeout: float) -> None:
        self.place, self.timeout = place, timeout
        self.plain = self._open()
        self.store = PrefixStore(f"fulgurite/{place.attempt}", self.plain)

    def _open(self) -> Store:
        place = self.place
        if place.world_size == 1 and place.launcher == "alone":
            return HashStore()
        asked = f"MASTER_ADDR={place.address} MASTER_PORT={place.port}"
        hosts = place.rank == 0 and not place.agents
        try:
            return TCPStore(
                place.address,
                place.port,
                is_master=hosts,
                timeout=timedelta(seconds=self.timeout),
                wait_for_workers=False,
                multi_tenant=hosts,
            )
        except RuntimeError as error:
            if "EADDRINUSE" in str(error):
                raise UserError(
                    f"MASTER_PORT={place.port}: another process listens there; name another port"
                ) from error
            raise MissingRanks(
                [0],
                f"{asked}: rank {place.rank} ({socket.gethostname()}) did not reach it within {self.timeout:g} s; "
                "is rank 0 started there, is the address one that this machine can reach, is the port open?",
            ) from error

    def tell(self, name: str, value: Any) -> None:
        """Let every rank read a value of this one."""
        self.store.set(f"{name}/{self.place.rank}", json.dumps(value))

    def refuse(self, reason: str) -> NoReturn:
        """End with this reason, and let every rank that waits do so.

        Raises:
            Refused: Always.
        """
        self.store.set("refused", reason)
        raise Refused(reason)

    def ask(self, name: str, rank: int, timeout: float | None = None) -> Any:
        """Return a rank's value.

        Raises:
            Absent: It does not come in time.
            Refused: A rank was given what it cannot use.
        """
        until = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            if self.store.check(["refused"]):
                raise Refused(self.store.get("refused").decode())
            if self.store.check([f"{name}/{rank}"]):
                break
            if time.monotonic() > until:
                raise self._absent([rank])
            time.sleep(POLL)
        return json.loads(self.store.get(f"{name}/{rank}"))

    def gather(self, name: str, value: Any) -> list[Any]:
        """Tell a value and return every rank's.

        Raises:
            Absent: Some ranks' did not come in time; all of them are named.
            Refused: A rank was given what it cannot use.
        """
        self.tell(name, value)
        values, late = self.collect(name)
        if late:
            raise self._absent(late)
        return values

    def _absent(self, ranks: Sequence[int]) -> MissingRanks:
        names = ", ".join(map(str, ranks))
        return MissingRanks(
            ranks, f"rank {names} did not come within {self.timeout:g} s; is it started, and has it not ended?"
        )

    def collect(self, name: str) -> tuple[list[Any], list[int]]:
        """Return the ranks' values, None for those that do not come in time, and who these are."""
        until = time.monotonic() + self.timeout
        values: list[Any] = []
        late = []
        for rank in range(self.place.world_size):
            try:
                values.append(self.ask(name, rank, until - time.monotonic()))
            except MissingRanks:  # noqa: PERF203 - all of those that are late are named
                values.append(None)
                late.append(rank)
        return values, late

    def same_size(self) -> None:
        """Refuse ranks that were told different world sizes, or the same rank.

        Raises:
            Refused: They were.
            Absent: Rank 0 does not answer.
        """
        rank, size = self.place.rank, self.place.world_size
        if self.store.add(f"claim/{rank}", 1) > 1:
            self.refuse(f"rank {rank}: two processes say they are it; give each its own RANK")
        self.tell("size", size)
        for other in range(size):
            theirs = self.ask("size", other)
            if theirs != size:
                low, high = sorted(((rank, size), (other, theirs)))
                self.refuse(
                    f"WORLD_SIZE={low[1]} on rank {low[0]} but {high[1]} on rank {high[0]}: "
                    "must be one number; start every machine with the same --nnodes and --nproc-per-node"
                )

    def leave(self, linger: float = LINGER) -> None:
        """Say that this rank is done, and wait for the others.

        Rank 0 may hold the store, and a launcher ends all ranks as soon as one has ended badly.

        Args:
            linger: Seconds to wait at most.
        """
        with suppress(RuntimeError):  # it is gone already
            self.store.add("left", 1)
            until = time.monotonic() + linger
            while self.store.add("left", 0) < self.place.world_size and time.monotonic() < until:
                time.sleep(POLL)
