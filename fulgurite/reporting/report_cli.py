"""Sum up a sweep: groups and their intervals, the best two compared, the best config, one page to look at.

    python -m fulgurite report logs/train/multiruns/<date>_<time>
    python -m fulgurite report <sweep> metric=test/acc mode=max

Jobs that differ in `seed` or `data.fold` only are folded into one group. Writes two files into the sweep's folder:

    report.html   table, learning curves, parallel coordinates, slices, importance, failures; loads nothing
    best.yaml     the best group's words as an experiment; copy it to configs/experiment/

`metric` is what the sweep optimised when not given, else the best of the validation; `mode` is max or min.
Ends with 0, or with 2 on bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import format_duration_short
from fulgurite.reporting.sweep_analysis import MODES, Group, Summary, analyse_sweep, has_folds

PAGE, BEST = "report.html", "best.yaml"


def read_words(words: Sequence[str]) -> tuple[Path, str | None, str | None]:
    """Return the sweep's folder, the metric and the mode that a command line asks for.

    Raises:
        UserError: A word cannot be used.
    """
    own = dict(word.split("=", 1) for word in words if word.startswith(("metric=", "mode=")))
    others = [word for word in words if not word.startswith(("metric=", "mode="))]
    if len(others) != 1 or others[0].startswith("-"):
        raise UserError(f"{' '.join(others) or '(nothing)'}: name one sweep's folder; --help tells the words")
    if (mode := own.get("mode")) is not None and mode not in MODES:
        raise UserError(f"mode={mode}: choose from {', '.join(MODES)}")
    return Path(others[0]).expanduser().absolute(), own.get("metric"), mode


def headline(summary: Summary) -> list[str]:
    """Return what the sweep came to, a sentence each."""
    runs = summary.runs
    failed = sum(run.status not in {"done", "running", "pruned"} for run in runs)
    pruned = sum(run.status == "pruned" for run in runs)
    ended = f", {pruned} pruned" if pruned else ""
    lines = [f"{len(runs)} jobs in {len(summary.groups)} groups, {failed} of them failed or killed{ended}"]
    if (best := summary.best) is None:
        return [*lines, "no job has a number to be judged by"]
    lines.append(f"best: {best.name}, {summary.metric} {shown_spread(best, summary.metric)} ({summary.mode})")
    if summary.paired is not None:
        lines.append(_compared(summary))
    if has_folds(summary):
        lines.append(
            "folds share most of their training data, so every interval over them is too narrow (Bengio and "
            "Grandvalet 2004, JMLR 5)"
        )
    return lines


def _compared(summary: Summary) -> str:
    paired, others = summary.paired, [group for group in summary.groups if group.by_seed]
    assert paired is not None
    pair = f"best against second ({others[1].name})"
    if paired.difference is None or paired.half_width is None:
        shared = f"{paired.n} seed{'s' * (paired.n != 1)} in common, at least two are needed"
        return f"{pair}: not to be judged, {shared}; sweep over them too, e.g. seed=1,2,3"
    shown = f"{pair}: {paired.difference:+.4g} ± {paired.half_width:.2g} over {paired.n} shared seeds (95 %)"
    if paired.more_seeds == 0:
        return f"{shown}: apart"
    if paired.more_seeds is None:
        return f"{shown}: not to be told apart by any sensible number of seeds"
    return f"{shown}: not yet apart, needs {paired.more_seeds} more seeds for a chance of 80 %"


def shown_spread(group: Group, metric: str) -> str:
    """Return a metric of a group as `mean ± half the 95 % interval (n)`, or `-`."""
    if (of := group.metrics.get(metric)) is None:
        return "-"
    return f"{of.mean:.4g}" if of.half_width is None else f"{of.mean:.4g} ± {of.half_width:.2g} (n={of.n})"


def best_text(summary: Summary, group: Group) -> str:
    """Return the best group's config as an experiment file."""
    from fulgurite.reporting.best_config import experiment_text

    seconds = [run.seconds for run in group.runs if run.status == "done" and run.seconds is not None]
    host = group.runs[0].record.get("host")
    header = [
        f"Best of {len(summary.groups)} configs that {summary.folder.name} has tried: {group.name}.",
        "  command   python src/train.py experiment=best",
        f"  expect    {summary.metric} {shown_spread(group, summary.metric)}",
        f"  time      {format_duration_short(mean(seconds)) if seconds else 'unknown'} on {host}",
    ]
    return experiment_text(group.runs[0].words, header)


def write_report(summary: Summary) -> list[Path]:
    """Write page and best config into the sweep's folder and return their paths.

    Raises:
        UserError: They cannot be written, or matplotlib is not installed.
    """
    from fulgurite.reporting.html import page
    from fulgurite.reporting.plots import draw_all

    texts = {PAGE: page(summary, headline(summary), draw_all(summary))}
    if summary.best is not None:
        texts[BEST] = best_text(summary, summary.best)
    try:
        for name, text in texts.items():
            write_atomic(summary.folder / name, text)
    except OSError as error:
        raise UserError(
            f"{summary.folder}: cannot be written to ({error.strerror}); copy the sweep elsewhere"
        ) from error
    return [summary.folder / name for name in texts]


def main(words: Sequence[str]) -> int:
    """Sum up the sweep that the words name and return the exit code."""
    if any(word in {"-h", "--help", "help"} for word in words):
        print(__doc__)
        return 0
    try:
        summary = analyse_sweep(*read_words(words))
        paths = write_report(summary)
    except FulguriteError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for line in (*headline(summary), *map(str, paths)):
        print(line)
    return 0
