"""Check for missing values: `???`, unresolvable interpolations, unset environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from omegaconf.errors import InterpolationToMissingValueError

from fulgurite.compat.hydra import resolver_names
from fulgurite.config.schema import moved_key
from fulgurite.config.view import MISSING, RUNTIME_RESOLVERS, STEP_COUNT, ConfigView, is_interpolation, leaves, paths_of
from fulgurite.core.errors import did_you_mean, suggest_path
from fulgurite.validation.findings import Finding
from fulgurite.validation.signatures.signature import Signature, read_signature

_VARIABLE = re.compile(r"Environment variable '([^']*)' not found")
_NO_KEY = re.compile(r"Interpolation key '([^']*)' not found")
_STEPS = re.compile(r"\$\{\s*steps\s*:")
_NO_RESOLVER = re.compile(r"Unsupported interpolation type (\S+)")


def check_missing_values(view: ConfigView) -> Iterator[Finding]:
    """Yield each missing value once; values are never shown."""
    for key, written in leaves(view.written):
        if written == MISSING:
            yield Finding(key, f"missing. Add {key}=<value>")
        elif is_interpolation(written) and (rule := _misplaced_steps(written, view.parent_of(key))):
            yield Finding(key, rule)
        elif is_interpolation(written):
            error = view.resolve_interpolation(written, key)
            # the missing value itself is reported
            if isinstance(error, Exception) and not isinstance(error, InterpolationToMissingValueError):
                rule = _explain(str(error).splitlines()[0], written, key, view)
                if rule:
                    yield Finding(key, rule)


def _misplaced_steps(written: str, parent: Any) -> str | None:
    """Return why `${steps:...}` cannot be replaced where it is written; None if it can, and for other values."""
    if not _STEPS.search(written):
        return None
    if not STEP_COUNT.fullmatch(written):
        return "names no number of steps. Write ${steps:total} or ${steps:per_epoch}"
    if isinstance(parent, dict) and "_target_" in parent and parent.get("_partial_"):
        return None
    return (
        "is known only when the model calls a block with _partial_: true, such as its scheduler. "
        "Elsewhere, read self.trainer.estimated_stepping_batches in the model"
    )


def _explain(message: str, written: str, key: str, view: ConfigView) -> str | None:
    """Return the broken rule; None if another key of the chain reports it."""
    if found := _VARIABLE.search(message):
        rule = f"environment variable {found[1]} is not set. Set it, or add it to .env"
    elif found := _NO_KEY.search(message):
        rule = f"${{{found[1]}}} refers to a key that does not exist{_remedy(found[1], key, view)}"
    elif found := _NO_RESOLVER.search(message):
        near = did_you_mean(found[1], [*resolver_names(), *RUNTIME_RESOLVERS])
        rule = f"${{{found[1]}:...}} names no resolver{near}"
    else:
        return f"does not resolve: {message}"
    return rule if found[1] in written else None


def _remedy(missing: str, key: str, view: ConfigView) -> str:
    """Return what to do about a reference to a missing key: use a near one, or set the value that refers to it."""
    if moved := moved_key(missing):
        return f". Use ${{{moved}}}"
    holder, _, name = missing.rpartition(".")
    block = view.written.get(holder)
    target = block.get("_target_") if isinstance(block, dict) else None
    signature = read_signature(target) if isinstance(target, str) and not is_interpolation(target) else None
    if isinstance(signature, Signature) and name not in signature.parameters and not did_you_mean(name, block or ()):
        return f": {signature.target.rpartition('.')[2]} does not take it. Set {key}=<value>"
    others = [path for path in paths_of(view.written) if path != key]  # the key that refers is no answer
    return suggest_path(missing, others) or f". Set {key}=<value>"
