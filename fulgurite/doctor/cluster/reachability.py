"""Check that every rank can open a TCP connection to every other rank."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fulgurite.distributed.network_interfaces import Interface, all_interfaces
from fulgurite.doctor.cluster.rank_info import RankInfo

BACKLOG = 4096  # connections that the system accepts before `accept` is called
UnreachablePair = tuple[int, int, int]  # source rank, target rank, index of the interface


class ProbeListener:
    """Sockets on the interfaces of a rank; the kernel accepts the connections."""

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        self.sockets = []
        for interface in interfaces:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with suppress(OSError):
                listener.bind((interface.address or "127.0.0.1", 0))
                listener.listen(BACKLOG)
            self.sockets.append(listener)

    def ports(self) -> list[int]:
        """Return the port on each interface; 0 where the bind failed."""
        return [listener.getsockname()[1] for listener in self.sockets]

    def close(self) -> None:
        """Close the sockets."""
        for listener in self.sockets:
            listener.close()


def find_unreachable(own: RankInfo, ranks: Sequence[RankInfo], timeout: float = 3.0) -> list[UnreachablePair]:
    """Return what this rank cannot reach; each connection has `timeout` seconds."""
    targets = [(other, index) for other in ranks if other.rank != own.rank for index in range(len(own.interfaces))]

    def can_connect(target: tuple[RankInfo, int]) -> bool:
        other, index = target
        address, source = (other.addresses[index], other.ports[index]), (own.addresses[index], 0)
        with suppress(OSError), socket.create_connection(address, timeout, source):
            return True
        return False

    with ThreadPoolExecutor(max_workers=16) as pool:
        reached = list(pool.map(can_connect, targets))
    return [(own.rank, other.rank, index) for (other, index), ok in zip(targets, reached, strict=True) if not ok]


def describe_unreachable(pairs: Sequence[UnreachablePair], ranks: Sequence[RankInfo]) -> list[str]:
    """Return one line for each unreachable pair."""
    remedy = "Check the link, the addresses and the firewall."
    lines = []
    for source, target, index in pairs:
        one, other = ranks[source], ranks[target]
        route = f"{other.name} at {other.addresses[index]} over {one.interfaces[index]}"
        lines.append(f"{one.name} cannot reach {route}. {remedy}")
    return lines


def interfaces_down(own: RankInfo) -> list[str]:
    """Return the interfaces of a rank that are now down or missing."""
    up = {interface.name for interface in all_interfaces() if interface.up}
    return [name for name in own.interfaces if name not in up and name != "?"]
