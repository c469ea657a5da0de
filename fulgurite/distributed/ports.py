"""The port at which processes meet: a number, and free, before any process waits there."""

from __future__ import annotations

import errno
import os
import socket

from fulgurite.core.errors import UserError

MASTER_PORT = "MASTER_PORT={port}"


def require_free_master_port() -> None:
    """Refuse a MASTER_PORT of this machine that another process listens at, before any process waits there.

    Raises:
        UserError: It is taken, or is no port.
    """
    asked, address = os.environ.get("MASTER_PORT"), os.environ.get("MASTER_ADDR", "127.0.0.1")
    if asked is None or address not in {"127.0.0.1", "localhost", socket.gethostname()}:
        return
    if not asked.isdigit() or not 0 < int(asked) < 2**16:
        raise UserError(f"MASTER_PORT={asked}: is no port; give a number from 1 to 65535, or unset it")
    require_free_port(int(asked))


def require_free_port(port: int, asked: str = MASTER_PORT) -> None:
    """Refuse a port of this machine that another process listens at.

    Args:
        port: The number.
        asked: What named it, for the message.

    Raises:
        UserError: It is taken.
    """
    # as torch's store asks for it: at all addresses, where an earlier run has just left it too
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(port, asked) from error
            name = asked.format(port=port)
            raise UserError(f"{name}: cannot be used ({error.strerror}); choose another one") from error


def port_in_use(port: int | str, asked: str = MASTER_PORT) -> UserError:
    """Return the error for a port that another process has."""
    other = ", or unset it to have one chosen" if asked == MASTER_PORT else ""
    return UserError(f"{asked.format(port=port)}: another process listens there; name another port{other}")
