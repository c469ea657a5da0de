"""A temporary PostgreSQL server on a Unix socket; root starts it as Debian's user `postgres`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
USER = "postgres"


def why_not() -> str:
    """Return why no server can be started here; empty if one can."""
    if not PROGRAMS:
        return "PostgreSQL is not installed (Debian: postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return 'psycopg2 is not installed: pip install -e ".[postgresql]"'
    if os.geteuid() == 0 and USER not in {user.pw_name for user in pwd.getpwall()}:
        return f"PostgreSQL does not run as root, and there is no user {USER}"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """Run a server and yield the URL of an empty database."""
    user = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    data, log = folder / "data", folder / "log"
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    try:
        _run(user, "initdb", "--auth=trust", "--no-sync", f"--username={user}", "-D", str(data))
        _run(user, "pg_ctl", "start", "-w", "-D", str(data), "-l", str(log), "-o", options)
        try:
            yield f"postgresql://{user}@/postgres?host={folder}"
        finally:
            _run(user, "pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(data))
    finally:
        shutil.rmtree(folder)


def _run(user: str, program: str, *arguments: str) -> None:
    who = pwd.getpwnam(user)
    own = (who.pw_uid, who.pw_gid) if os.geteuid() == 0 else (None, None)
    command, nothing = [str(PROGRAMS[-1] / program), *arguments], subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=nothing, stdin=nothing, cwd="/", user=own[0], group=own[1])
