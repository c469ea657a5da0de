"""Write one config error as a line: place, key, value, rule, remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from fulgurite.config.origins import Origins
from fulgurite.config.tags import replace_tags
from fulgurite.config.tracing.settings import COMMAND_LINE
from fulgurite.core.context import current_context
from fulgurite.core.redact import MASK, hide_secrets, is_secret_key, mask_override

SUBJECT = re.compile(r"([A-Za-z_][\w.\[\]-]*)(?:=(.*?))?: ")  # key and value before what is wrong
_LONGEST = 80  # characters of a value that are shown


@dataclass(frozen=True)
class Finding:
    """A config error that the user can fix."""

    key: str  # dotted path
    rule: str  # what is wrong, and the remedy
    value: Any = ...  # as written, if the line shows it; a secret is never shown
    place: str | None = None  # file and line, or the override of the command line; None if unknown
    is_warning: bool = False  # logged and not refused: the value may be right
    in_header: bool = False  # the line to correct is the first of the file, with its package

    @property
    def line(self) -> str:
        """The finding as one line of output."""
        is_shown = self.value is not ... and not isinstance(self.value, (dict, list))
        subject = f"{self.key}={shown(self.key, self.value)}" if is_shown else self.key
        if self.place is None:
            return f"{subject}: {self.rule}"
        override = self.place.removeprefix(COMMAND_LINE)
        if override == self.place:
            return f"{self.place}: {subject}: {self.rule}"
        override = _as_typed(override)
        # the override shows key and value, unless it sets a parent of the key
        below = "" if override.partition("=")[0].lstrip("+~").strip() == self.key else f"{subject}: "
        return f"{COMMAND_LINE}{mask_override(override)}: {below}{self.rule}"


def _as_typed(override: str) -> str:
    """Return an override as the user typed it, before it was rewritten for Hydra's grammar."""
    return next((text for text in current_context().argv if override in replace_tags([text])), override)


def shown(key: str, value: Any) -> str:
    """Return a value as YAML writes it, shortened; `***` under a key that sounds like a secret."""
    if is_secret_key(key) and value is not None:
        return MASK
    text = hide_secrets(" ".join((value if isinstance(value, str) else json.dumps(value, default=str)).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def with_places(findings: Sequence[str], cfg: DictConfig) -> list[str]:
    """Return findings with the file and line, or the override, that set their key."""
    origins = Origins.of(cfg)
    return [placed(finding, origins) for finding in findings]


def placed(finding: str, origins: Origins) -> str:
    """Return a finding with the place of its key, or as it is where that is unknown."""
    subject = SUBJECT.match(finding)
    place = origins.find(subject[1]) if subject else None
    if subject is None or place is None:
        return finding
    value = ... if subject[2] is None else subject[2]
    return Finding(subject[1], finding[subject.end() :], value, place).line
