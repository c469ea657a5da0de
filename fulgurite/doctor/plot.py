"""Plot time and bus bandwidth by message size, and the rate of each link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite.core.errors import UserError
from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.bench.links import link_name
from fulgurite.doctor.report import Report, describe_machines
from fulgurite.reporting.plots import BAR, BEST, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AMBER = "#b7791f"
MAX_LINKS = 24  # bars; with more links, the slowest are plotted


def draw_plot(report: Report, path: Path) -> None:
    """Plot the measurements to a .png or .svg file."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('--plot: matplotlib is not installed. Install it: pip install -e ".[dev]"') from error
    with mpl.rc_context(STYLE):
        num_links = min(len(report.links), MAX_LINKS)
        heights = [4.6, 0.8 + 0.26 * num_links] if num_links else [4.6]
        figure = Figure(figsize=(10, sum(heights)), layout="constrained")
        upper, *lower = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        times, rates = upper.subplots(1, 2, squeeze=False).flat
        _draw_collectives(report, times, rates)
        handles, names = times.get_legend_handles_labels()
        upper.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)), frameon=False)
        upper.suptitle(f"{describe_machines(report)}, {report.backend}", fontsize=10)
        for subfigure in lower:
            _draw_links(report, subfigure.subplots(1, 1))
        try:
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise UserError(f"--plot={path}: cannot be written ({error.strerror}). Name another file.") from error


def _draw_collectives(report: Report, times: Axes, rates: Axes) -> None:
    """Plot median times with a band up to the 95th percentile, and bus bandwidths."""
    from matplotlib import colormaps

    names = list(dict.fromkeys(one.collective for one in report.measured))
    for index, name in enumerate(names):
        of_name = [one for one in report.measured if one.collective == name]
        sizes, medians = [one.num_bytes for one in of_name], [one.median for one in of_name]
        colour = colormaps["tab10"](index % 10)
        times.plot(sizes, medians, label=name, color=colour, marker=".", linewidth=1.3)
        times.fill_between(sizes, medians, [one.p95 for one in of_name], color=colour, alpha=0.12)
        rates.plot(sizes, [one.bus for one in of_name], color=colour, marker=".", linewidth=1.3)
    all_sizes = sorted({one.num_bytes for one in report.measured if one.collective == names[0]}, reverse=True)
    ticks = [largest := all_sizes[0], *(size for size in all_sizes[:: 1 + len(all_sizes) // 9] if size * 3 < largest)]
    for axes in (times, rates):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [format_bytes(tick) for tick in ticks], rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("message size")
    times.set_title("Time of the slowest rank: median, band up to p95", fontsize=9)
    times.set_ylabel("seconds")
    rates.set_title("Bus bandwidth", fontsize=9)
    rates.set_ylabel("GB/s")


def _draw_links(report: Report, axes: Axes) -> None:
    """Plot a bar for each link, slow links in another colour."""
    slow = {one.name: one.is_finding for one in report.slow}
    links = sorted(report.links, key=lambda link: link.rate)[:MAX_LINKS][::-1]
    names = [link_name(link, report.facts) for link in links]
    rows = range(len(links))
    colours = [(BEST if slow[name] else AMBER) if name in slow else BAR for name in names]
    bars = axes.barh(rows, [link.rate for link in links], color=colours, height=0.62)
    labels = axes.bar_label(bars, [f"{link.rate:.3g}" for link in links], padding=3)
    axes.set_yticks(rows, names)
    for name, label, tick, colour in zip(names, labels, axes.get_yticklabels(), colours, strict=True):
        if name in slow:  # the bar may be too short to be visible
            label.set(text=f"{label.get_text()}  {'slow' if slow[name] else 'slower'}", color=colour)
            tick.set_color(colour)
    axes.set(xlabel="GB/s", xlim=(0, 1.12 * max(link.rate for link in links)))
    axes.set_title("Links, one pair of ranks at a time", fontsize=9)
    axes.grid(visible=False, axis="y")
