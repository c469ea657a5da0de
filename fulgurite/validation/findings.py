"""One config error as a line: place, key, value, rule, remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fulgurite.config.origins import COMMAND_LINE
from fulgurite.core.redact import MASK, is_secret_key, mask_override

_LONGEST = 80  # characters of a value that are shown


@dataclass(frozen=True)
class Finding:
    """A config error that the user can fix.

    Args:
        key: Dotted path of the key.
        rule: What holds instead, and the remedy.
        value: As written, when showing it helps; a secret is never shown.
        place: File and line, or the override of the command line; None when it is not known.
    """

    key: str
    rule: str
    value: Any = ...
    place: str | None = None

    @property
    def line(self) -> str:
        """The finding as one line of output."""
        subject = self.key + (
            "" if self.value is ... or isinstance(self.value, (dict, list)) else f"={shown(self.key, self.value)}"
        )
        if self.place is None:
            return f"{subject}: {self.rule}"
        override = self.place.removeprefix(COMMAND_LINE)
        if override == self.place:
            return f"{self.place}: {subject}: {self.rule}"
        given = override.partition("=")[0]
        override = mask_override(override)
        # the override shows key and value, unless the key is below that of the override
        within = "" if given.lstrip("+~") == self.key else f"{subject}: "
        return f"{COMMAND_LINE}{override}: {within}{self.rule}"


def shown(key: str, value: Any) -> str:
    """Return a value as YAML writes it, shortened; `***` under a key that sounds like a secret."""
    if is_secret_key(key) and value is not None:
        return MASK
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
