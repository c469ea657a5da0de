"""Collect the info of each rank and check that all ranks agree."""

from __future__ import annotations

import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.distributed import network_interfaces
from fulgurite.distributed.network_interfaces import Interface
from fulgurite.doctor.cluster.placement import Placement

FINE, FINDING, NOTE, LEFT_OUT = "fine", "finding", "note", "left out"
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        state: `fine`, `finding` (exit code 1), `note` (exit code 0) or `left out`.
        detail: One line: the value, the rule, the remedy.
    """

    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class RankInfo:
    """One rank.

    Attributes:
        machine: ID of its machine, unique where host names are not.
        interfaces: Names of the interfaces that the group uses.
        addresses: Address of each interface.
        ports: Port of the probe listener on each interface.
        leads_to_rank_0: Interface of the route to rank 0's machine.
        versions: Of Python and packages.
        commit: Of the code; `+` when files have changed since.
        config: Its hash.
        free: Free bytes in the shared folder.
    """

    rank: int
    host: str
    machine: str
    pid: int
    launcher: str
    local_rank: int
    device: str
    interfaces: list[str]
    addresses: list[str]
    leads_to_rank_0: str | None
    versions: dict[str, str]
    commit: str | None
    config: str | None
    free: int | None
    ports: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Rank and host, for messages."""
        return f"rank {self.rank} ({self.host})"


def select_interfaces(backend: str, requested: str | None) -> list[Interface]:
    """Return the requested interfaces (comma-separated), or gloo's choice."""
    variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    names = requested or os.environ.get(variable, "")
    if names and (requested or backend == "gloo"):
        return network_interfaces.require_interfaces(names.split(","), "--interface" if requested else variable)
    name, address = network_interfaces.gloo_default_interface()
    return [Interface(name or "?", address, up=True, loopback=address.startswith("127."))]


def collect_rank_info(
    placement: Placement,
    device: str,
    interfaces: Sequence[Interface],
    ports: list[int],
    folder: Path,
    provenance: Mapping[str, Any],
) -> RankInfo:
    """Return the info of this rank, with `versions`, `commit` and `config`."""
    route = network_interfaces.interface_to(placement.address)
    return RankInfo(
        rank=placement.rank,
        host=socket.gethostname(),
        machine=network_interfaces.machine_id(),
        pid=os.getpid(),
        launcher=placement.launcher,
        local_rank=placement.local_rank,
        device=device,
        interfaces=[interface.name for interface in interfaces],
        addresses=[interface.address or "" for interface in interfaces],
        ports=ports,
        leads_to_rank_0=route.name if route else None,
        free=shutil.disk_usage(folder).free if folder.is_dir() else None,
        **provenance,
    )


def compare_ranks(ranks: Sequence[RankInfo], min_free: float) -> list[Check]:
    """Return the checks that compare all ranks; `min_free` is in GiB."""
    packages = sorted({package for one in ranks for package in one.versions})
    checks = [_check_equal(f"version of {name}", ranks, [one.versions.get(name) for one in ranks]) for name in packages]
    checks.append(_check_equal("commit of the code", ranks, [one.commit for one in ranks]))
    checks.append(_check_equal("config", ranks, [one.config[:12] if one.config else None for one in ranks]))
    checks.append(_check_addresses(ranks))
    fullest = min(ranks, key=lambda one: one.free or 0)
    if fullest.free is not None:
        detail = f"{fullest.free / GIB:.1f} GiB free on {fullest.name}"
        if fullest.free < min_free * GIB:
            checks.append(Check("disk", FINDING, f"{detail}, less than {min_free:g}. Free disk space."))
        else:
            checks.append(Check("disk", FINE, detail))
    return checks


def _check_equal(name: str, ranks: Sequence[RankInfo], values: Sequence[str | None]) -> Check:
    ranks_by_value: dict[str | None, list[int]] = defaultdict(list)
    for one, value in zip(ranks, values, strict=True):
        ranks_by_value[value].append(one.rank)
    if len(ranks_by_value) == 1:
        return Check(name, FINE, values[0] or "none")
    listed = ", ".join(f"{value} on rank {', '.join(map(str, same))}" for value, same in ranks_by_value.items())
    return Check(name, FINDING, f"{listed}. Use the same on all ranks.")


def is_multi_machine(ranks: Sequence[RankInfo]) -> bool:
    """Return whether the ranks run on several machines."""
    return len({one.machine for one in ranks}) > 1


def _check_addresses(ranks: Sequence[RankInfo]) -> Check:
    name = "interfaces"
    if len({len(one.interfaces) for one in ranks}) > 1:
        listed = ", ".join(f"{','.join(one.interfaces)} on {one.name}" for one in ranks)
        return Check(name, FINDING, f"different numbers: {listed}. Name the same number on every rank.")
    loopback = [one for one in ranks if any(address.startswith("127.") or not address for address in one.addresses)]
    if is_multi_machine(ranks) and loopback:
        first = loopback[0]
        routes = [one.leads_to_rank_0 for one in (first, *ranks) if one.leads_to_rank_0 not in {None, "lo"}]
        names = ", ".join(one.name for one in loopback)
        address = first.addresses[0] or "no address"
        return Check(
            name,
            FINDING,
            f"{','.join(first.interfaces)} ({address}) on {names}: other machines cannot reach a loopback interface. "
            f"Set GLOO_SOCKET_IFNAME={next(iter(routes), 'eth0')} (NCCL_SOCKET_IFNAME for NCCL), "
            "or correct the host name in /etc/hosts.",
        )
    return Check(name, FINE, " / ".join(sorted({",".join(one.interfaces) for one in ranks})))
