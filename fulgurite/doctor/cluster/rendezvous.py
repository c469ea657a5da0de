"""Exchange values between ranks through a store before a process group exists.

`init_process_group` can hang for several timeouts without a reason. A store needs one connection, to rank 0. Ranks use
it to find out whether a group can be created, and why a group broke.
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
from fulgurite.doctor.cluster.placement import Placement

POLL_SECONDS = 0.05
CLOSE_SECONDS = 2.0  # time for other ranks to read the values of this rank


class MissingRanks(FulguriteError):
    """Ranks that did not join within the timeout."""


class PeerInputError(UserError):
    """Invalid input that another rank has published."""


class Rendezvous:
    """A store that all ranks share; they wait for each other for `timeout` seconds."""

    def __init__(self, placement: Placement, timeout: float) -> None:
        self.placement, self.timeout = placement, timeout
        self.store = PrefixStore(f"fulgurite/{placement.attempt}", self._open())

    def _open(self) -> Store:
        placement = self.placement
        if placement.world_size == 1 and placement.launcher == "alone":
            return HashStore()
        is_master = placement.rank == 0 and not placement.agent_store
        try:
            return TCPStore(
                placement.address,
                placement.port,
                is_master=is_master,
                timeout=timedelta(seconds=self.timeout),
                wait_for_workers=False,
                multi_tenant=is_master,
            )
        except RuntimeError as error:
            if "EADDRINUSE" in str(error):
                raise UserError(f"MASTER_PORT={placement.port}: the port is in use. Set another port.") from error
            raise MissingRanks(
                f"MASTER_ADDR={placement.address} MASTER_PORT={placement.port}: rank {placement.rank} "
                f"({socket.gethostname()}) did not connect within {self.timeout:g} s. "
                "Check that rank 0 runs there and that this machine can reach the port.",
            ) from error

    def publish(self, name: str, value: Any) -> None:
        """Publish a value of this rank to all ranks."""
        self.store.set(f"{name}/{self.placement.rank}", json.dumps(value))

    def reject(self, reason: str) -> NoReturn:
        """Raise an input error on this rank and on every rank that waits."""
        self.store.set("rejected", reason)
        raise PeerInputError(reason)

    def wait_for(self, name: str, rank: int, timeout: float | None = None) -> Any:
        """Return the value of a rank.

        Raises:
            MissingRanks: The rank did not publish it in time.
            PeerInputError: A rank rejected its input.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            if self.store.check(["rejected"]):
                raise PeerInputError(self.store.get("rejected").decode())
            if self.store.check([f"{name}/{rank}"]):
                return json.loads(self.store.get(f"{name}/{rank}"))
            if time.monotonic() > deadline:
                raise self._missing_ranks([rank])
            time.sleep(POLL_SECONDS)

    def gather(self, name: str, value: Any) -> list[Any]:
        """Publish a value and return the values of all ranks; raise if any is missing."""
        self.publish(name, value)
        values, missing = self.gather_available(name)
        if missing:
            raise self._missing_ranks(missing)
        return values

    def _missing_ranks(self, ranks: Sequence[int]) -> MissingRanks:
        text = f"rank {', '.join(map(str, ranks))} did not join within {self.timeout:g} s"
        return MissingRanks(f"{text}. Check that it was started and still runs.")

    def gather_available(self, name: str) -> tuple[list[Any], list[int]]:
        """Return the value of each rank, None for a missing one, and the missing ranks."""
        deadline = time.monotonic() + self.timeout
        values: list[Any] = []
        missing = []
        for rank in range(self.placement.world_size):
            try:
                values.append(self.wait_for(name, rank, deadline - time.monotonic()))
            except MissingRanks:  # noqa: PERF203 - the caller reports all missing ranks
                values.append(None)
                missing.append(rank)
        return values, missing

    def require_same_world_size(self) -> None:
        """Reject ranks with different world sizes, and two processes with one rank."""
        rank, size = self.placement.rank, self.placement.world_size
        if self.store.add(f"claim/{rank}", 1) > 1:
            self.reject(f"RANK={rank}: two processes have this rank. Give each process its own RANK.")
        self.publish("world_size", size)
        for other in range(size):
            other_size = self.wait_for("world_size", other)
            if other_size != size:
                low, high = sorted(((rank, size), (other, other_size)))
                self.reject(
                    f"WORLD_SIZE={low[1]} on rank {low[0]} but {high[1]} on rank {high[0]}: "
                    "the ranks disagree. Start every machine with the same --nnodes and --nproc-per-node."
                )

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Mark this rank as done and wait for the other ranks.

        Rank 0 may serve the store, and a launcher kills all ranks when one exits with an error.
        """
        with suppress(RuntimeError):  # the store is gone
            self.store.add("closed", 1)
            deadline = time.monotonic() + timeout
            while self.store.add("closed", 0) < self.placement.world_size and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
