"""Analyse a sweep: groups with intervals, the best two compared, the best config, an HTML page.

    python -m fulgurite report logs/train/multiruns/<date>_<time>
    python -m fulgurite report <sweep> --metric test/acc --mode max

Jobs that differ in `seed` or `data.fold` only form one group. Two files are written into the sweep's folder:

    report.html   table, learning curves, parallel coordinates, slices, importance, failures; loads nothing
    best.yaml     the best group's overrides as an experiment: copy it to configs/experiment/

The exit code is 0, or 2 on invalid input.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from fulgurite.core.cli_parser import CommandParser, one_of, print_error
from fulgurite.core.errors import FulguriteError, UserError
from fulgurite.core.files import write_atomic
from fulgurite.core.formatting import SPREAD, counted, format_duration_short, format_spread
from fulgurite.core.redact import mask_override
from fulgurite.reporting.sweep_analysis import MODES, Summary, analyse_sweep, has_folds
from fulgurite.reporting.sweep_summary import Group
from fulgurite.runs.run_files import warn

PAGE, BEST = "report.html", "best.yaml"


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options and the sweep's folder."""
    parser = CommandParser("report", __doc__)
    add = parser.add_argument
    add("sweep", nargs="*", help="the sweep's folder")
    add("--metric", help="metric that ranks the groups (the optimised one, else the best of the validation)")
    add("--mode", type=one_of("--mode", MODES), help="max or min (by the sweep's direction, else by the metric's name)")
    add("--json", action="store_true", help="print the summary as JSON")
    query = parser.parse(argv)
    for argument in query.sweep:
        if argument.startswith(("metric=", "mode=")):
            raise UserError(f"{argument}: not a folder. Pass --{argument.replace('=', ' ', 1)}.")
    if len(query.sweep) != 1:
        given = f"{' '.join(query.sweep)}: not one folder" if query.sweep else "report: no folder is given"
        raise UserError(f"{given}. Name one sweep's folder.")
    query.sweep = Path(query.sweep[0]).expanduser().absolute()
    return query


def headline(summary: Summary) -> list[str]:
    """Return the main results of the sweep, one sentence each."""
    runs = summary.runs
    states = Counter(run.status for run in runs if run.status != "done")
    others = "".join(f", {number} {status}" for status, number in sorted(states.items()))
    lines = [f"{counted(len(runs), 'job')} in {counted(len(summary.groups), 'group')}{others}"]
    if (best := summary.best) is None:
        return [*lines, "no job has a value of the metric"]
    shown = shown_spread(best, summary.metric)
    lines.append(f"best: {best.name}, {summary.metric} {shown} ({summary.mode}; {SPREAD})")
    if summary.paired is not None:
        lines.append(_compare_best_two(summary))
    if has_folds(summary):
        too_narrow = "folds share most of their training data, so every interval over folds is too narrow"
        lines.append(f"{too_narrow} (Bengio and Grandvalet 2004, JMLR 5)")
    return lines


def _compare_best_two(summary: Summary) -> str:
    paired, others = summary.paired, [group for group in summary.groups if group.spread(summary.metric)]
    assert paired is not None
    pair = f"best against second ({others[1].name})"
    if paired.difference is None or paired.half_width is None:
        shared = f"{counted(paired.n, 'seed')} in common, at least two are needed"
        return f"{pair}: not comparable, {shared}. Sweep over seeds too, e.g. seed=1,2,3"
    shown = f"{pair}: {paired.difference:+.4g} ± {paired.half_width:.2g} over {paired.n} shared seeds (95 %)"
    if paired.more_seeds == 0:
        return f"{shown}: significant"
    if paired.more_seeds is None:
        return f"{shown}: not significant, for any sensible number of seeds"
    return f"{shown}: not significant yet, needs {paired.more_seeds} more seeds for a power of 80 %"


def shown_spread(group: Group, metric: str) -> str:
    """Return a metric of a group as `mean ± half the 95 % interval (n)`, or `-`."""
    if (of := group.spread(metric)) is None:
        return "-"
    return format_spread(of.mean, of.half_width) + (f" (n={of.n})" if of.half_width is not None else "")


def best_text(summary: Summary, group: Group) -> str:
    """Return the best group's overrides as an experiment file."""
    from fulgurite.reporting.best_config import experiment_text

    seconds = [run.seconds for run in group.runs if run.status == "done" and run.seconds is not None]
    host = group.runs[0].record.get("host")
    header = [
        f"Best of {len(summary.groups)} configs of {summary.folder.name}: {group.name}.",
        "  command   python src/train.py experiment=best",
        f"  expect    {summary.metric} {shown_spread(group, summary.metric)}",
        f"  time      {format_duration_short(mean(seconds)) if seconds else 'unknown'} on {host}",
    ]
    return experiment_text([*map(mask_override, group.runs[0].overrides)], header)


def write_report(summary: Summary) -> list[Path]:
    """Write `report.html` and `best.yaml` into the sweep's folder, return their paths."""
    from hydra.errors import HydraException

    from fulgurite.reporting.html import render_page
    from fulgurite.reporting.plots import draw_all

    texts = {PAGE: render_page(summary, headline(summary), draw_all(summary))}
    if summary.best is not None:
        try:
            texts[BEST] = best_text(summary, summary.best)
        except HydraException:
            of = summary.best.runs[0].folder
            warn(f"{summary.folder / BEST}: not written, Hydra cannot read the overrides of {of}")
        except UserError as error:  # the groups of its overrides are those of the project
            warn(f"{summary.folder / BEST}: not written. {error}")
    try:
        for name, text in texts.items():
            write_atomic(summary.folder / name, text)
    except OSError as error:
        raise UserError(
            f"{summary.folder}: not writable ({error.strerror}). Copy the sweep to another folder."
        ) from error
    return [summary.folder / name for name in texts]


def as_json(summary: Summary) -> str:
    """Return the summary as JSON; numbers that are not finite are null."""
    groups = [
        {
            "values": list(group.values),
            "jobs": {run.folder.name: run.status for run in group.runs},
            "metrics": {name: asdict(found) for name in sorted(group.metrics) if (found := group.spread(name))},
            "by_seed": group.by_seed(summary.metric),
        }
        for group in summary.groups
    ]
    content = {
        "sweep": str(summary.folder),
        "metric": summary.metric,
        "mode": summary.mode,
        "groups": groups,
        "best_two": asdict(summary.paired) if summary.paired else None,
        "importance": summary.importance,
    }
    return json.dumps(content, indent=1, allow_nan=False)


def main(argv: Sequence[str]) -> int:
    """Write the report of a sweep, print its summary and return the exit code."""
    try:
        query = parse_args(argv)
        summary = analyse_sweep(query.sweep, query.metric, query.mode)
        paths = write_report(summary)
    except FulguriteError as error:
        return print_error(error)
    print(as_json(summary) if query.json else "\n".join([*headline(summary), *map(str, paths)]))
    return 0
