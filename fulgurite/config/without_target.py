"""Leave out the blocks of `callbacks` and `logger` that name no class, such as settings of a logger that is off."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from fulgurite.compat.hydra import raw_node
from fulgurite.core.context import current_context
from fulgurite.core.project import project_root

GROUPS = {"callbacks": "callback", "logger": "logger"}
TYPO = (
    0.85  # similarity from which on a name is a mistyped one: csvv and csv, but not progress_bar and rich_progress_bar
)


def leave_out_without_target(cfg: DictConfig) -> None:
    """Remove each dictionary of `callbacks` and `logger` without `_target_`; the checks report a mistyped name."""
    for group in GROUPS:
        node = raw_node(cfg, group)
        entries: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else None
        if not isinstance(entries, dict):
            continue
        for name, entry in entries.items():
            if not isinstance(entry, dict) or "_target_" in entry or mistyped(group, name, entries):
                continue
            with open_dict(node):
                del node[name]
            has_file = (project_root() / "configs" / group / f"{name}.yaml").is_file()
            remedy = f". To use it, choose it with {group}={name}" if has_file else ""
            line = f"{group}.{name}: has no _target_ and is left out{remedy}"
            current_context().left_out.append(line)


def mistyped(group: str, name: str, entries: Collection[str]) -> list[str]:
    """Return the names that an entry of a group is probably a mistyped form of."""
    known = dict.fromkeys([*(other for other in entries if other != name), *group_keys(group)])
    return [] if name in known else get_close_matches(str(name), list(known), n=2, cutoff=TYPO)


@cache
def group_keys(group: str) -> tuple[str, ...]:
    """Return the keys that the files of `configs/<group>` set, e.g. `early_stopping` of `callbacks`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    names: dict[str, None] = {}
    for file in sorted((project_root() / "configs" / group).glob("*.yaml")) if group else ():
        try:
            content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
        except yaml.YAMLError:
            continue
        names.update(dict.fromkeys(name for name in content or {} if name != "defaults"))
    return tuple(names)
