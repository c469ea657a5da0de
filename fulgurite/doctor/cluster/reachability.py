"""Can every rank open a connection to every other? Asked before a group is made, and again when one has broken."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fulgurite.core.network_interfaces import Interface, all_interfaces
from fulgurite.doctor.cluster.facts import RankInfo

PATIENCE = 3.0  # seconds for one connection
BACKLOG = 4096  # connections that the system accepts for us
Broken = tuple[int, int, int]  # from rank, to rank, over which of the interfaces


class ProbeListener:
    """Sockets that listen on a rank's interfaces and answer nothing: that the system takes a connection is enough.

    Args:
        interfaces: Those that the group will use.
    """

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        self.sockets = []
        for interface in interfaces:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with suppress(OSError):
                listener.bind((interface.address or "127.0.0.1", 0))
                listener.listen(BACKLOG)
            self.sockets.append(listener)

    def ports(self) -> list[int]:
        """Return the port of each interface; 0 where none could be had."""
        return [listener.getsockname()[1] for listener in self.sockets]

    def close(self) -> None:
        """Listen no more."""
        for listener in self.sockets:
            listener.close()


def unreached(own: RankInfo, ranks: Sequence[RankInfo], patience: float = PATIENCE) -> list[Broken]:
    """Return whom this rank cannot reach.

    Args:
        own: This rank.
        ranks: All of them.
        patience: Seconds for one connection.
    """
    asked = [(other, place) for other in ranks if other.rank != own.rank for place in range(len(own.interfaces))]
    with ThreadPoolExecutor(max_workers=16) as pool:
        reached = list(pool.map(lambda pair: _rings(own, pair[0], pair[1], patience), asked))
    return [(own.rank, other.rank, place) for (other, place), fine in zip(asked, reached, strict=True) if not fine]


def _rings(own: RankInfo, other: RankInfo, place: int, patience: float) -> bool:
    try:
        with socket.create_connection(
            (other.addresses[place], other.ports[place]), patience, source_address=(own.addresses[place], 0)
        ):
            return True
    except OSError:
        return False


def describe_unreachable(broken: Sequence[Broken], ranks: Sequence[RankInfo]) -> list[str]:
    """Return a line for each pair that has no connection."""
    lines = []
    for source, target, place in broken:
        one, other = ranks[source], ranks[target]
        lines.append(
            f"{one.name} cannot reach {other.name} at {other.addresses[place]} over {one.interfaces[place]}: "
            "is the link up, do the addresses belong together, does a firewall stand between?"
        )
    return lines


def down(own: RankInfo) -> list[str]:
    """Return those of a rank's interfaces that are gone or down now."""
    up = {interface.name for interface in all_interfaces() if interface.up}
    return [name for name in own.interfaces if name not in up and name != "?"]
