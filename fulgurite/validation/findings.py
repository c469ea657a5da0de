"""One mistake in a config, told in one line: place, key, value, rule, remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fulgurite.config.origins import COMMAND_LINE
from fulgurite.core.errors import did_you_mean
from fulgurite.core.redact import MASK, shown_word, sounds_secret

_LONGEST = 80  # characters of a value that are shown


@dataclass(frozen=True)
class Finding:
    """A mistake that the user can mend.

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
        """The finding as it is told."""
        subject = self.key + (
            "" if self.value is ... or isinstance(self.value, (dict, list)) else f"={shown(self.key, self.value)}"
        )
        if self.place is None:
            return f"{subject}: {self.rule}"
        override = self.place.removeprefix(COMMAND_LINE)
        if override == self.place:
            return f"{self.place}: {subject}: {self.rule}"
        given = override.partition("=")[0]
        override = shown_word(override)
        # the override says key and value itself, unless the key lies deeper inside it
        within = "" if given.lstrip("+~") == self.key else f"{subject}: "
        return f"{COMMAND_LINE}{override}: {within}{self.rule}"


def shown(key: str, value: Any) -> str:
    """Return a value as YAML writes it, shortened; `***` under a key that sounds like a secret."""
    if sounds_secret(key) and value is not None:
        return MASK
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def near_or_all(wrong: str, known: Iterable[str], intro: str = "it takes") -> str:
    """Return the near names as a question, or where there are none the names there are.

    Args:
        wrong: The name that was given.
        known: The names that would have been right.
        intro: Words before the list.
    """
    names = list(dict.fromkeys(known))
    near = did_you_mean(wrong, names)
    if near or not names:
        return near
    return f"; {intro} {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def nearest_path(wrong: str, paths: Iterable[str]) -> str:
    """Return a question that names the nearest of many dotted paths: same place first, then same last part anywhere.

    Args:
        wrong: Dotted path that does not exist.
        paths: Dotted paths that do.
    """
    known = list(dict.fromkeys(paths))
    holder, _, last = wrong.rpartition(".")
    siblings = [path for path in known if path.rpartition(".")[0] == holder]
    if near := get_close_matches(wrong, siblings, n=2, cutoff=0.6):
        if holder:  # a long common beginning makes everything look near: judge the last part
            near = [
                f"{holder}.{name}"
                for name in get_close_matches(last, [p.rpartition(".")[2] for p in siblings], n=2, cutoff=0.6)
            ]
        if near:
            return did_you_mean(near[0], near[:1]) if len(near) == 1 else f"; did you mean {near[0]!r} or {near[1]!r}?"
    by_last: dict[str, list[str]] = {}
    for path in known:
        by_last.setdefault(path.rpartition(".")[2], []).append(path)
    names = get_close_matches(last, list(by_last), n=1, cutoff=0.75)
    # the same name in several places: the one whose whole path looks most like what was written
    found = get_close_matches(wrong, [path for name in names for path in by_last[name]], n=2, cutoff=0.0)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""
