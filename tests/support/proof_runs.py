"""Starts the runs of a proof in processes that found torch imported: a second instead of five."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.cli import Started


def start_warm(words: Sequence[str], said: Path) -> int:
    """Run a door's command as `fulgurite.exact_resume.proof.cli.start_process` does."""
    ended = Started("train", words, said.with_suffix("")).end(timeout=240)
    said.write_text(ended.stdout + ended.stderr)
    return ended.returncode
