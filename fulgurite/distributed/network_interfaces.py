"""List the network interfaces of this machine, and find the one that gloo uses."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fulgurite.core.errors import UserError, did_you_mean

GLOO_INTERFACES = "GLOO_SOCKET_IFNAME"  # NCCL's and UCC's variables take patterns
_FLAGS, _ADDRESS = 0x8913, 0x8915  # SIOCGIFFLAGS, SIOCGIFADDR of Linux
_UP, _LOOPBACK, _RUNNING = 0x1, 0x8, 0x40


@dataclass(frozen=True)
class Interface:
    """One network interface, by the name that `ip link` shows."""

    name: str
    address: str | None  # IPv4; None without one, or on Windows
    up: bool  # and has a carrier
    loopback: bool


def all_interfaces() -> list[Interface]:
    """Return the interfaces of this machine (of this network namespace)."""
    return [_query_interface(name) for _, name in socket.if_nameindex()]


def _query_interface(name: str) -> Interface:
    try:
        import fcntl
    except ImportError:  # Windows
        return Interface(name, None, up=True, loopback=False)
    address, flags = None, _UP | _RUNNING
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):
            flags = struct.unpack("H", fcntl.ioctl(probe, _FLAGS, request)[16:18])[0]
        with suppress(OSError):
            address = socket.inet_ntoa(fcntl.ioctl(probe, _ADDRESS, request)[20:24])
    up = bool(flags & _UP and flags & _RUNNING)
    return Interface(name, address, up, loopback=bool(flags & _LOOPBACK))


def find_interface_problem(name: str) -> str:
    """Return why an interface cannot be used on this machine; empty if it exists."""
    names = [existing for _, existing in socket.if_nameindex()]
    if name in names:
        return ""
    shown = ", ".join(f"{one.name} ({one.address or 'no address'})" for one in all_interfaces())
    return f"{socket.gethostname()} has no interface {name!r}{did_you_mean(name, names) or '.'} It has {shown}."


def require_interfaces(names: Sequence[str], source: str) -> list[Interface]:
    """Return interfaces by name; raise if one is missing or down, naming the option or variable that gave it."""
    interfaces = {interface.name: interface for interface in all_interfaces()}
    for name in names:
        if problem := find_interface_problem(name):
            raise UserError(f"{source}={name}: {problem}")
        if not interfaces[name].up:
            raise UserError(f"{source}={name}: it is down on {socket.gethostname()}. Run `ip link set {name} up`.")
    return [interfaces[name] for name in names]


def require_gloo_interfaces() -> None:
    """Raise if GLOO_SOCKET_IFNAME names an interface that does not exist."""
    names = os.environ.get(GLOO_INTERFACES, "")
    for name in filter(None, names.split(",")):
        if problem := find_interface_problem(name):
            raise UserError(f"{GLOO_INTERFACES}={names}: {problem} Name an existing interface, or unset the variable.")


def gloo_default_interface() -> tuple[str | None, str]:
    """Return gloo's default interface and address, to which the host name resolves.

    The interface is None when none has the address; the address is 127.0.0.1 for the host name of another machine.
    """
    address = "127.0.0.1"
    with suppress(OSError):
        for *_, found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((str(found[0]), 0))
                address = str(found[0])
                break
    name = next((interface.name for interface in all_interfaces() if interface.address == address), None)
    return (name or ("lo" if address.startswith("127.") else None)), address


def interface_to(host: str) -> Interface | None:
    """Return the interface that routes to a host, without sending a packet."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        own = probe.getsockname()[0]
        return next((interface for interface in all_interfaces() if interface.address == own), None)
    return None


def machine_id() -> str:
    """Return an ID of this machine; containers may share a host name, or a kernel."""
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/net").readlink())
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {namespace}"
