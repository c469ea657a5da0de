"""Read secrets: `${secret:env,NAME}`, `${secret:file,/path}`, `${secret:vault,path,key}`.

What they return is hidden in all output. A config holds the interpolation only, also when it is pickled or saved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from fulgurite.core.errors import UserError, did_you_mean
from fulgurite.core.redact import register_secret
from fulgurite.sources.reader import Reader, ReadOptions, SourceError, open_reader
from fulgurite.sources.yaml_bounds import text_of

MAX_BYTES = 65_536  # of a file with a secret
MAX_CHAIN = 20  # errors that one was raised from
_vault: dict[str, Any] = {}  # "" -> reader; path -> its keys: a config is resolved many times


def read_secret(kind: str, *names: str) -> str:
    """Return a secret, hidden from now on in everything that this process writes.

    Args:
        kind: `env`, `file` or `vault`; an only argument is the name of a variable of the environment.
        names: The variable; the path of the file; path and key in Vault.

    Raises:
        SourceError: There is no such secret, or its source failed.
    """
    arguments = [str(name) for name in names]
    if not arguments:
        kind, arguments = "env", [kind]
    wanted = 2 if kind == "vault" else 1
    if kind not in _KINDS or len(arguments) != wanted:
        shown = f"${{secret:{','.join([kind, *arguments])}}}"
        forms = "${secret:env,<name>}, ${secret:file,<path>} or ${secret:vault,<path>,<key>}"
        raise SourceError(shown, "is not a form of a secret", f"Write {forms}")
    value = _KINDS[kind](*arguments)
    register_secret(value)
    return value


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SourceError(f"${{secret:env,{name}}}", f"Environment variable '{name}' not found", f"Set {name}")
    return value


def _from_file(path: str) -> str:
    found = open_reader(path, ReadOptions(max_bytes=MAX_BYTES)).read("")
    if found is None:
        raise SourceError(f"${{secret:file,{path}}}", f"{path} does not exist", "Write the secret into it")
    value = text_of(found.data, path).rstrip("\r\n")
    if not value:
        raise SourceError(f"${{secret:file,{path}}}", f"{path} is empty", "Write the secret into it")
    return value


def _from_vault(path: str, key: str) -> str:
    shown = f"${{secret:vault,{path},{key}}}"
    if path not in _vault:
        reader: Reader = _vault.setdefault("", open_reader("vault:///"))
        found = reader.read(path)
        if found is None:
            raise SourceError(shown, f"Vault has no secret at {path}", "Correct the path: <mount>/<path>")
        _vault[path] = json.loads(found.data)
    content = _vault[path]
    if key not in content:
        near = did_you_mean(key, content) or f". It has {', '.join(sorted(content)) or 'none'}"
        raise SourceError(shown, f"the secret {path} has no key {key}", f"Correct the key{near}")
    value = content[key]
    return value if isinstance(value, str) else json.dumps(value)


_KINDS: dict[str, Callable[..., str]] = {"env": _from_environment, "file": _from_file, "vault": _from_vault}


def explain_resolution(error: BaseException | None) -> str | None:
    """Return the message of a `UserError` of a resolver, such as `secret`, with its key; None for any other error.

    OmegaConf raises an error of its own instead.
    """
    key = None
    for _ in range(MAX_CHAIN):
        if isinstance(error, UserError) and key is not None:
            return f"{key}: {error}" if key else str(error)
        if error is None:
            break
        if type(error).__name__ == "InterpolationResolutionError":
            key = str(getattr(error, "full_key", None) or key or "")
        error = error.__cause__ or error.__context__
    return None
