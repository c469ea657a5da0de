"""Check the config keys of the process group: init_method, interfaces, comm_env."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from fulgurite.config.view import UNKNOWN, ConfigView
from fulgurite.distributed.comm_env import COMM_PREFIXES, ENV_INIT_METHOD
from fulgurite.distributed.network_interfaces import find_interface_problem
from fulgurite.validation.findings import Finding


def check_processes(view: ConfigView) -> Iterator[Finding]:
    """Yield wrong values of `init_method`, `interfaces` and `comm_env`."""
    distributed = view.written.get("distributed")
    if not isinstance(distributed, dict):
        return
    url = view.resolve(distributed.get("init_method"), "distributed.init_method")
    if isinstance(url, str) and (rule := _wrong_url(url)):
        yield Finding("distributed.init_method", rule, distributed["init_method"])
    names = view.resolve(distributed.get("interfaces"), "distributed.interfaces")
    for name in names if isinstance(names, list) else ():
        if name is not UNKNOWN and (rule := find_interface_problem(str(name))):
            yield Finding("distributed.interfaces", rule, distributed["interfaces"])
    for name, value in (distributed.get("comm_env") or {}).items():
        key = f"distributed.comm_env.{name}"
        if not str(name).startswith(COMM_PREFIXES):
            rule = f"is not a variable of a communication library ({', '.join(COMM_PREFIXES)})"
            yield Finding(key, f"{rule}. Set it in the shell or in .env", value)
        elif isinstance(value, (dict, list)):
            yield Finding(key, "must be text or a number", value)


def _wrong_url(url: str) -> str:
    """Return what is wrong with an init_method; empty when it is valid."""
    forms = "env://, tcp://<host of rank 0>:<port> or file:///<path on a shared filesystem>"
    try:
        parsed = urlparse(url)
        port = parsed.port
    except ValueError:
        return f"has no port from 1 to 65535. Set {forms}"
    if parsed.scheme == "tcp" and not (parsed.hostname and port):
        return "lacks a host or a port from 1 to 65535. Set tcp://<host of rank 0>:<port>"
    if parsed.scheme == "file" and (parsed.netloc or not parsed.path.strip("/")):
        return "has no absolute path. Set file:///<path on a shared filesystem>"
    if parsed.scheme == "file" and Path(parsed.path).is_dir():
        return "is a folder. Name a file in it"
    if parsed.scheme not in {"env", "tcp", "file"} or (parsed.scheme == "env" and url != ENV_INIT_METHOD):
        return f"is not a valid rendezvous URL. Set {forms}"
    return ""
