"""Can processes reach one another? Asked before torch does, which says it late, at length, and not in all of them."""

from __future__ import annotations

import os
import socket
import time

from fulgurite.core.errors import UserError
from fulgurite.core.network_interfaces import find_interface_problem

GLOO_INTERFACES = "GLOO_SOCKET_IFNAME"  # NCCL's and UCC's take patterns
RETRY_SECONDS = 0.2  # seconds between two tries


def require_gloo_interfaces() -> None:
    """Refuse an interface in the environment that this machine does not have.

    Raises:
        UserError: One line with those there are.
    """
    names = os.environ.get(GLOO_INTERFACES, "")
    for name in filter(None, names.split(",")):
        if problem := find_interface_problem(name):
            raise UserError(f"{GLOO_INTERFACES}={names}: {problem} Name an existing interface, or unset the variable.")


def require_local_master_address() -> None:
    """Refuse a MASTER_ADDR of another machine where this process starts all others itself.

    Raises:
        UserError: It is no address of this machine.
    """
    address = os.environ.get("MASTER_ADDR")
    if address is None:
        return
    try:
        family, kind, *_, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError as error:
        raise UserError(
            f"MASTER_ADDR={address}: is no address of this machine ({error.strerror}), on which all processes of the "
            "run are started; unset it, or start the run with torchrun, srun or mpiexec"
        ) from error


def wait_for_master(address: str, port: int, timeout: float) -> None:
    """Return as soon as somebody listens where the processes meet.

    Args:
        address: Host name or address.
        port: Port.
        timeout: Seconds to wait for that.

    Raises:
        UserError: Nobody does in that time.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), timeout=max(1.0, end - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{address}:{port}, where the processes meet: nobody answers within {timeout:g} s "
                    f"({error.strerror or error}); correct MASTER_ADDR and MASTER_PORT or distributed.init_method, "
                    "see that rank 0 runs, or raise distributed.rank_timeout_seconds"
                ) from error
        time.sleep(RETRY_SECONDS)
