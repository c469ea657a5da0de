"""The config of a run directory of another user, which is foreign like a config from another folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.project import project_root
from fulgurite.trust import contents
from fulgurite.trust.sources import Sources, refuse
from fulgurite.trust.targets import is_target
from fulgurite.trust.values import Rules
from fulgurite.trust.walk import canonical, leaves

SAVED = ".hydra"
BUILT = ("model", "data")  # what `fulgurite.load_run` builds of a saved config


def is_foreign(folder: Path, sources: Sources) -> bool:
    """Return whether another user owns a run directory or the saved config in it, and the project does not trust it."""
    if not hasattr(os, "getuid") or sources.trusts(folder):
        return False
    owned = [folder, folder / SAVED, *(folder / SAVED).rglob("*")]
    return any(path.stat().st_uid != os.getuid() for path in owned if path.exists())


def check_weights(folder: Path, path: Path, sources: Sources) -> Path:
    """Return the checkpoint that a run directory names.

    Raises:
        UserError: The run is foreign, and the checkpoint is outside of it.
    """
    if path.resolve().is_relative_to(folder.resolve()) or not is_foreign(folder, sources):
        return path
    wrong = f"is outside of {folder}, a run of another user that names it as its checkpoint"
    raise UserError(f"{path}: {wrong}. Name a checkpoint with ckpt_path=, or add trust=[{folder}].")


def check_inherited(folder: Path, overrides: Sequence[str], given: Sequence[str]) -> None:
    """Refuse overrides that the command line `given` inherits of a foreign run directory and that may do harm."""
    sources = Sources(given)
    if not is_foreign(folder, sources):
        return
    file = str(folder / SAVED / "overrides.yaml")
    found: list[contents.Problem] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = None if override.is_delete() else override.value()
        if override.key_or_group.startswith("hydra/") or (override.package or "").startswith("hydra"):
            found.append((override.key_or_group, value, "chooses a part of Hydra"))
            continue
        nested = OmegaConf.create({})
        OmegaConf.update(nested, override.key_or_group, value, force_add=True)
        content = OmegaConf.to_container(nested, resolve=False)
        found += contents.file_problems(content, "", sources.readable_env)
        found += contents.problems(content)
        current_context().inherited[str(override.input_line)] = file
    refuse(((problem, file) for problem in found), {file: str(folder)})


def check_saved(cfg: DictConfig, folder: Path) -> dict[str, str]:
    """Refuse the saved config of a foreign run directory; return the path of each target in it, and its file."""
    sources = Sources()
    if not is_foreign(folder, sources):
        return {}
    file = str(folder / SAVED / "config.yaml")
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    built = {key: plain.get(key) for key in BUILT}
    found = [*contents.file_problems(plain, "", sources.readable_env), *contents.problems(built)]
    keys = {canonical(key): file for key, _ in leaves(built)}
    own = {"log_dir": str(folder), "data_dir": str(project_root() / "data"), "output_dir": str(folder)}
    rules = Rules({**plain, "paths": {**(plain.get("paths") or {}), **own}}, keys, {file: str(folder)}, sources.allowed)
    refuse([*((problem, file) for problem in found), *rules.problems()], {file: str(folder)})
    return {key: file for key, _ in leaves(built) if is_target(built, key)}
