"""What each rank says of itself, and what must be true of all of them together."""

from __future__ import annotations

import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fulgurite.core.network_interfaces import Interface, chosen_by_gloo, leading_to, machine, require_interfaces
from fulgurite.doctor.cluster.placement import Place

FINE, FINDING, NOTE, LEFT_OUT = "fine", "finding", "note", "left out"
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        state: `fine`, `finding` (the doctor ends with 1), `note` (it does not) or `left out`.
        detail: One line: the value, the rule, the remedy.
    """

    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class RankInfo:
    """One rank.

    Attributes:
        rank: Its number.
        host: Name of its machine.
        machine: Tells machines of one name apart.
        pid: Process id.
        launcher: Who started it, with its local rank.
        local_rank: Among those of its machine.
        device: What it computes on.
        interfaces: Names of the interfaces that it talks over.
        addresses: Of each of these.
        ports: At which it listens there, to see whether others reach it.
        leads_to_rank_0: The interface that its routes choose for rank 0's machine.
        versions: Of Python and packages.
        commit: Of the code; `+` when files were changed since.
        config: The config's hash.
        free: Bytes free in the shared folder.
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
        """Rank and host, as a person is told."""
        return f"rank {self.rank} ({self.host})"


def chosen_interfaces(backend: str, named: str | None) -> list[Interface]:
    """Return the interfaces that the group will use: those named, by option or environment, else gloo's choice.

    Args:
        backend: `gloo`, `nccl`, ...
        named: Names by comma from the command line, or None.

    Raises:
        UserError: One that is named does not exist, or is down.
    """
    variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    names = named or os.environ.get(variable, "")
    if names and (named or backend == "gloo"):
        return require_interfaces(names.split(","), "--interface" if named else variable)
    name, address = chosen_by_gloo()
    return [Interface(name or "?", address, up=True, loopback=address.startswith("127."))]


def own_facts(
    place: Place, device: str, interfaces: Sequence[Interface], folder: Path, told: Mapping[str, Any]
) -> RankInfo:
    """Return this rank's facts.

    Args:
        place: Of this process.
        device: What it computes on.
        interfaces: Those it will talk over.
        folder: That all ranks must see.
        told: `versions`, `commit` and `config`.
    """
    route = leading_to(place.address)
    return RankInfo(
        rank=place.rank,
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        launcher=place.launcher,
        local_rank=place.local_rank,
        device=device,
        interfaces=[interface.name for interface in interfaces],
        addresses=[interface.address or "" for interface in interfaces],
        leads_to_rank_0=route.name if route else None,
        free=shutil.disk_usage(folder).free if folder.is_dir() else None,
        **told,
    )


def compare(ranks: Sequence[RankInfo], min_free: float) -> list[Check]:
    """Return what is found when the ranks' facts are laid beside one another.

    Args:
        ranks: All of them.
        min_free: GiB that the shared folder must have free.
    """
    packages = sorted({package for facts in ranks for package in facts.versions})
    checks = [_same(f"version of {name}", ranks, [facts.versions.get(name) for facts in ranks]) for name in packages]
    checks.append(_same("commit of the code", ranks, [facts.commit for facts in ranks]))
    checks.append(_same("config", ranks, [facts.config[:12] if facts.config else None for facts in ranks]))
    checks.append(_addresses(ranks))
    least = min(ranks, key=lambda facts: facts.free if facts.free is not None else 0)
    if least.free is not None:
        low = least.free < min_free * GIB
        told = f"{least.free / GIB:.1f} GiB free on {least.name}"
        checks.append(
            Check("disk", FINDING, f"{told}, less than {min_free:g}; make room") if low else Check("disk", FINE, told)
        )
    return checks


def _same(name: str, ranks: Sequence[RankInfo], values: Sequence[str | None]) -> Check:
    holders: dict[str | None, list[int]] = defaultdict(list)
    for facts, value in zip(ranks, values, strict=True):
        holders[value].append(facts.rank)
    if len(holders) == 1:
        return Check(name, FINE, str(values[0]))
    told = "; ".join(f"{value} on rank {', '.join(map(str, which))}" for value, which in holders.items())
    return Check(name, FINDING, f"differs: {told}; must be the same on all ranks")


def spans_machines(ranks: Sequence[RankInfo]) -> bool:
    """Tell whether the ranks are on several machines."""
    return len({facts.machine for facts in ranks}) > 1


def _addresses(ranks: Sequence[RankInfo]) -> Check:
    name = "interfaces"
    if len({len(facts.interfaces) for facts in ranks}) > 1:
        told = "; ".join(f"{','.join(facts.interfaces)} on {facts.name}" for facts in ranks)
        return Check(name, FINDING, f"differ in number: {told}; name as many on every rank")
    lonely = [facts for facts in ranks if any(address.startswith("127.") or not address for address in facts.addresses)]
    if spans_machines(ranks) and lonely:
        first = lonely[0]
        other = next((facts.leads_to_rank_0 for facts in ranks if facts.leads_to_rank_0 not in {None, "lo"}), "eth0")
        better = first.leads_to_rank_0 if first.leads_to_rank_0 not in {None, "lo"} else other
        names = ", ".join(facts.name for facts in lonely)
        address = first.addresses[0] or "no address"
        return Check(
            name,
            FINDING,
            f"{','.join(first.interfaces)} ({address}) on {names}: other machines cannot reach a loopback; "
            f"set GLOO_SOCKET_IFNAME={better} (NCCL_SOCKET_IFNAME for NCCL), or mend the host's name in /etc/hosts",
        )
    over = sorted({f"{','.join(facts.interfaces)}" for facts in ranks})
    return Check(name, FINE, " / ".join(over))


def as_plain(facts: RankInfo) -> dict[str, Any]:
    """Return facts as JSON can hold them."""
    return asdict(facts)
