"""Tags of a run: a list, or a dictionary of booleans that the command line can extend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from fulgurite.compat.hydra import is_sweep_job, raw_node
from fulgurite.config.override_text import as_grammar
from fulgurite.config.schema import Extras, read_settings
from fulgurite.core.errors import UserError

REMEDY = 'Set tags=["mnist","baseline"] or +tags.baseline=true, or extras.enforce_tags=false'


def tag_names(cfg: DictConfig) -> list[str]:
    """Return the run's tags, in the order they were given.

    `tags` is a list of strings or a dictionary of name to true or false.
    """
    tags = cfg.get("tags")
    if isinstance(tags, ListConfig):
        return [str(tag) for tag in tags]
    if isinstance(tags, DictConfig):
        return [str(name) for name, wanted in tags.items() if wanted]
    return []


def replace_tags(overrides: Sequence[str]) -> list[str]:
    """Return the overrides in Hydra's syntax, with each `tags=...` rewritten so that Hydra can apply it.

    `tags=[...]` replaces the dictionary of the configs, into which OmegaConf cannot merge a list. `tags={...}` adds to
    it, as in a file.
    """
    return list(chain.from_iterable(map(_rewritten, map(as_grammar, overrides))))


def _rewritten(override: str) -> list[str]:
    if override.startswith("tags=[") and override.endswith("]"):
        return ["tags=null", f"++{override}"]
    return [f"+{override}" if override.startswith("tags={") else override]


def merge_tags(cfg: DictConfig, new: DictConfig) -> None:
    """Prepare the tags of `cfg` for those of a later file: a list replaces them, a dictionary adds to them."""
    tags = raw_node(new, "tags")
    if isinstance(tags, ListConfig) and isinstance(raw_node(cfg, "tags"), DictConfig):
        with open_dict(cfg):
            del cfg["tags"]
    elif isinstance(tags, DictConfig):
        switch_tags(cfg)


def switch_tags(cfg: DictConfig) -> None:
    """Turn a list of tags into a dictionary of tag to true, to which single tags can be added."""
    if isinstance(raw_node(cfg, "tags"), ListConfig):
        with open_dict(cfg):
            cfg["tags"] = {str(tag): True for tag in cfg["tags"]}


def require_tags(cfg: DictConfig) -> None:
    """Prompt for tags if the config has none and `extras.enforce_tags` is true, and set them.

    Raises:
        UserError: Standard input is not a terminal, or the run is a job of a sweep.
    """
    if not read_settings(cfg, Extras).enforce_tags or tag_names(cfg):
        return
    if is_sweep_job() or not sys.stdin.isatty():
        reason = "in a sweep" if is_sweep_job() else "without a terminal"
        raise UserError(f"tags: empty, but extras.enforce_tags is true, and there is no prompt {reason}. {REMEDY}")
    from rich.prompt import Prompt

    answer = Prompt.ask("This run has no tags. Tags, separated by commas", default="dev")
    names = [name.strip() for name in answer.split(",") if name.strip()]
    if not names:
        raise UserError(f"tags: empty, but extras.enforce_tags is true. {REMEDY}")
    OmegaConf.update(cfg, "tags", names, merge=False)
