"""Check MASTER_ADDR and MASTER_PORT before any rank waits for them: torch reports failures late."""

from __future__ import annotations

import errno
import os
import socket
import time

from fulgurite.core.errors import UserError
from fulgurite.core.formatting import parse_count

MASTER_PORT = "MASTER_PORT={port}"
RETRY_SECONDS = 0.2


def require_free_master_port() -> None:
    """Raise if this machine's MASTER_PORT is invalid or in use."""
    port, address = os.environ.get("MASTER_PORT"), os.environ.get("MASTER_ADDR", "127.0.0.1")
    if port is None or address not in {"127.0.0.1", "localhost", socket.gethostname()}:
        return
    if not 0 < (parse_count(port) or 0) < 2**16:
        raise UserError(f"MASTER_PORT={port}: is not a valid port. Set a number from 1 to 65535, or unset it.")
    require_free_port(int(port))


def require_free_port(port: int, source: str = MASTER_PORT) -> None:
    """Raise if a port of this machine is in use; `source` names it, as a format string of `port`."""
    # bind like torch's TCPStore: all addresses, and SO_REUSEADDR right after an earlier run
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(port, source) from error
            name = source.format(port=port)
            raise UserError(f"{name}: cannot be bound ({error.strerror}). Choose another port.") from error


def port_in_use(port: int, source: str = MASTER_PORT) -> UserError:
    """Return the error for a port on which another process listens."""
    unset = ", or unset it to choose one automatically" if source == MASTER_PORT else ""
    return UserError(f"{source.format(port=port)}: another process listens on this port. Set another port{unset}.")


def require_local_master_address() -> None:
    """Raise if rank 0 starts all ranks but MASTER_ADDR is another machine's."""
    address = os.environ.get("MASTER_ADDR")
    if address is None:
        return
    try:
        family, kind, *_, endpoint = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(endpoint)
    except OSError as error:
        raise UserError(
            f"MASTER_ADDR={address}: is not an address of this machine ({error.strerror}), which starts all ranks. "
            "Unset it, or start the run with torchrun, srun or mpiexec."
        ) from error


def wait_for_master(address: str, port: int, timeout: float) -> None:
    """Wait until rank 0 or torchrun listens on an address; raise after `timeout` seconds."""
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
