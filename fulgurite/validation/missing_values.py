"""Check for missing values: `???`, unresolvable interpolations, unset environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from omegaconf.errors import InterpolationToMissingValueError

from fulgurite.compat.hydra import resolver_names
from fulgurite.config.schema import moved_key
from fulgurite.config.view import MISSING, RUNTIME_RESOLVERS, ConfigView, is_interpolation, leaves, paths_of
from fulgurite.core.errors import did_you_mean, suggest_path
from fulgurite.validation.findings import Finding

_VARIABLE = re.compile(r"Environment variable '([^']*)' not found")
_NO_KEY = re.compile(r"Interpolation key '([^']*)' not found")
_NO_RESOLVER = re.compile(r"Unsupported interpolation type (\S+)")


def check_missing_values(view: ConfigView) -> Iterator[Finding]:
    """Yield each missing value once; values are never shown."""
    for key, written in leaves(view.written):
        if written == MISSING:
            yield Finding(key, f"missing. Add {key}=<value>")
        elif is_interpolation(written):
            error = view.resolve_interpolation(written, key)
            # the missing value itself is reported
            if isinstance(error, Exception) and not isinstance(error, InterpolationToMissingValueError):
                rule = _explain(str(error).splitlines()[0], written, view)
                if rule:
                    yield Finding(key, rule)


def _explain(message: str, written: str, view: ConfigView) -> str | None:
    """Return the broken rule; None if another key of the chain reports it."""
    if found := _VARIABLE.search(message):
        rule = f"environment variable {found[1]} is not set. Set it, or add it to .env"
    elif found := _NO_KEY.search(message):
        moved = moved_key(found[1])
        near = f". Use ${{{moved}}}" if moved else suggest_path(found[1], paths_of(view.written))
        rule = f"${{{found[1]}}} refers to a key that does not exist{near}"
    elif found := _NO_RESOLVER.search(message):
        near = did_you_mean(found[1], [*resolver_names(), *RUNTIME_RESOLVERS])
        rule = f"${{{found[1]}:...}} names no resolver{near}"
    else:
        return f"does not resolve: {message}"
    return rule if found[1] in written else None
