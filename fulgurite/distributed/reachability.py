"""Check interfaces and addresses early: torch reports failures late."""

from __future__ import annotations

import os
import socket
import time

from fulgurite.core.errors import UserError
from fulgurite.distributed.network_interfaces import find_interface_problem

GLOO_INTERFACES = "GLOO_SOCKET_IFNAME"  # NCCL's and UCC's variables take patterns
RETRY_SECONDS = 0.2


def require_gloo_interfaces() -> None:
    """Raise if GLOO_SOCKET_IFNAME names an interface that does not exist.

    Raises:
        UserError: It does.
    """
    names = os.environ.get(GLOO_INTERFACES, "")
    for name in filter(None, names.split(",")):
        if problem := find_interface_problem(name):
            raise UserError(f"{GLOO_INTERFACES}={names}: {problem} Name an existing interface, or unset the variable.")


def require_local_master_address() -> None:
    """Raise if rank 0 starts all ranks but MASTER_ADDR is another machine's.

    Raises:
        UserError: It is not.
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
            f"MASTER_ADDR={address}: is not an address of this machine ({error.strerror}), which starts all ranks. "
            "Unset it, or start the run with torchrun, srun or mpiexec."
        ) from error


def wait_for_master(address: str, port: int, timeout: float) -> None:
    """Wait until rank 0 or torchrun listens on an address.

    Raises:
        UserError: Nothing listens within that time.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), timeout=max(1.0, end - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"{address}:{port}: rank 0 did not answer within {timeout:g} s ({error.strerror or error}). Set "
                    "MASTER_ADDR, MASTER_PORT or distributed.init_method, or raise distributed.rank_timeout_seconds."
                ) from error
        time.sleep(RETRY_SECONDS)
