"""What a foreign config file may contain, judged on its text before anything of it is merged or resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fulgurite.trust import hydra_part, targets
from fulgurite.trust.walk import FOREIGN, last_part, leaves, resolvers

# Top-level keys, and keys below them, that steer what is trusted, the environment, or where the run reads and writes.
NOT_FOREIGN = (
    "trust", "trust_env", "extras.allowed_targets", "paths", "resume", "run", "sweep.resume", "distributed.comm_env",
    "distributed.init_method", "distributed.interfaces",
)  # fmt: skip
Problem = tuple[str, Any, str]  # key, value, problem


def file_problems(content: Any, config_path: str, env: tuple[str, ...]) -> list[Problem]:
    """Return what is wrong with a file as it was read, which may read the variables `env` of the environment."""
    found = list(_resolver_problems(content, env))
    if isinstance(content, dict):
        found += _defaults_problems(content.get("defaults"), config_path)
        hydra = content.get("hydra")
        if isinstance(hydra, dict) and hydra.get("searchpath"):  # Hydra imports packages of it
            found.append(("hydra.searchpath", hydra["searchpath"], "may not be set"))
    return found


def _resolver_problems(content: Any, env: tuple[str, ...]) -> Iterator[Problem]:
    for key, value in leaves(content):
        if isinstance(value, str) and "\\${" in value:
            yield key, value, "escapes an interpolation, which may be resolved later"
        for name, argument in resolvers(value) if isinstance(value, str) else ():
            variable = re.split(r"[,}]", argument, maxsplit=1)[0].strip()
            if name == "oc.env":
                if variable not in env:
                    yield key, value, f"reads the environment variable {variable!r}, which trust_env does not list"
            elif name not in FOREIGN:
                what = f"calls the resolver {name!r}" if name else "computes the name of a key or of a resolver"
                yield key, value, f"{what}, which may run code"


def _defaults_problems(defaults: Any, config_path: str) -> Iterator[Problem]:
    """Yield the entries of a defaults list that choose a part of Hydra, such as a launcher."""
    is_hydra = config_path.startswith("hydra/")
    for entry in defaults if isinstance(defaults, list) else ():
        names = [str(name) for name in entry] if isinstance(entry, dict) else [str(entry)]
        for name in names:
            group, _, package = name.partition("@")
            parts = group.split()[-1].strip("/").split("/") if group.split() else [""]
            if parts[0] == "hydra" or package.startswith("hydra") or (is_hydra and parts[0] != "_self_"):
                yield "defaults", entry, "chooses a part of Hydra, such as a launcher or a log handler"


def problems(content: Any) -> list[Problem]:
    """Return what is wrong with the content of a file where it is merged, with its package around it."""
    if not isinstance(content, dict):
        return []
    plain = {key: value for key, value in content.items() if key != "hydra"}
    found = [(key, value, problem) for key, value in leaves(plain) if (problem := place_problem(key, value))]
    return [*found, *targets.problems(plain), *hydra_part.problems(content.get("hydra"))]


def place_problem(key: str, value: Any) -> str:
    """Return why a foreign file may not set a value at a key outside of Hydra's part, or an empty string."""
    if any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in NOT_FOREIGN):
        return "decides what is trusted, or where a run reads and writes"
    is_unsafe = last_part(key) == "weights_only" and value is not True
    return "would unpickle objects from a checkpoint" if is_unsafe else ""
