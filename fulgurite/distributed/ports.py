"""Check that MASTER_PORT is valid and free, before any rank waits for it."""

from __future__ import annotations

import errno
import os
import socket

from fulgurite.core.errors import UserError

MASTER_PORT = "MASTER_PORT={port}"


def require_free_master_port() -> None:
    """Raise if this machine's MASTER_PORT is invalid or in use.

    Raises:
        UserError: It is.
    """
    port, address = os.environ.get("MASTER_PORT"), os.environ.get("MASTER_ADDR", "127.0.0.1")
    if port is None or address not in {"127.0.0.1", "localhost", socket.gethostname()}:
        return
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT={port}: is not a valid port. Set a number from 1 to 65535, or unset it.")
    require_free_port(int(port))


def require_free_port(port: int, source: str = MASTER_PORT) -> None:
    """Raise if another process listens on a port of this machine.

    Args:
        port: The number.
        source: Names it in the message; a format string of `port`.

    Raises:
        UserError: It is in use, or cannot be bound.
    """
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


def port_in_use(port: int | str, source: str = MASTER_PORT) -> UserError:
    """Return the error for a port on which another process listens."""
    unset = ", or unset it to choose one automatically" if source == MASTER_PORT else ""
    return UserError(f"{source.format(port=port)}: another process listens on this port. Set another port{unset}.")
