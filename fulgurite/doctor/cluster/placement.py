"""Which rank a process is, and where it finds the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """This process among those that were started together.

    Attributes:
        rank: 0 to `world_size` - 1.
        world_size: How many processes there are in all.
        local_rank: Among those of this machine.
        launcher: Who started them; `alone` when nobody says so.
        address: Where rank 0 is reached.
        port: At which port of it.
        agents: Whether torchrun's own process keeps the port, not rank 0.
        attempt: How often torchrun has started them before.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launcher: str = "alone"
    address: str = "127.0.0.1"
    port: int = 0
    agents: bool = False
    attempt: int = 0
