"""Name what a run cannot resume exactly: once in the log, and in run.json."""

from __future__ import annotations

from fulgurite.core.context import current_context
from fulgurite.core.rank_logging import RankedLogger

log = RankedLogger(__name__)


def name_inexact(subject: str, reason: str) -> None:
    """Warn once that a part of the run does not resume exactly; run.json then has `exact: false` and the line.

    Call it as early as the fact is known: before the first batch where possible. Every rank may call it; rank 0 logs.

    Args:
        subject: The key, class or attribute, as the user wrote it.
        reason: What differs after a resume, and what to do about it: one or two sentences.

    Example:
        >>> name_inexact("data.train_dataloader", "the order of a BucketSampler is unknown. Give it state_dict().")
    """
    if line := note_inexact(subject, reason):
        log.warning("not exact after a resume: %s", line)


def note_inexact(subject: str, reason: str) -> str:
    """Do what `name_inexact` does without a warning, for what the user asked for.

    Returns:
        The line for run.json; an empty string where it is there already.
    """
    context, line = current_context(), f"{subject}: {reason}"
    if line in context.inexact:
        return ""
    context.inexact.append(line)
    if context.record is not None:
        context.record.write()
    return line
