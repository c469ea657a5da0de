"""Pictures of the bench: time and bus bandwidth over the size of the message, and the rate of each link."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite.core.errors import UserError
from fulgurite.core.formatting import format_bytes
from fulgurite.doctor.report import Report, machines
from fulgurite.reporting.plots import BAR, BEST, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AMBER = "#b7791f"
MOST_LINKS = 24  # bars; of more, the slowest are drawn


def draw(report: Report, path: Path) -> None:
    """Draw what was measured.

    Args:
        report: With collectives, and links or none.
        path: Ends with .png or .svg.

    Raises:
        UserError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('matplotlib is not installed; --plot needs it: pip install -e ".[dev]"') from error
    with mpl.rc_context(STYLE):
        links = sorted(report.links, key=lambda link: link.rate)[:MOST_LINKS]
        heights = [4.6, 0.8 + 0.26 * len(links)] if links else [4.6]
        figure = Figure(figsize=(10, sum(heights)), layout="constrained")
        upper, *lower = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        times, rates = upper.subplots(1, 2, squeeze=False).flat
        _lines(report, times, rates)
        handles, names = times.get_legend_handles_labels()
        upper.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)), frameon=False)
        upper.suptitle(f"{machines(report)}, {report.backend}", fontsize=10)
        for part in lower:
            _bars(report, part.subplots(1, 1))
        try:
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise UserError(f"--plot {path}: cannot be written ({error.strerror}); name another file") from error


def _lines(report: Report, times: Axes, rates: Axes) -> None:
    """Draw a line a collective: median times with a band up to the 95th percentile, and bus bandwidths."""
    from matplotlib import colormaps

    names = list(dict.fromkeys(one.collective for one in report.measured))
    for place, name in enumerate(names):
        of_name = [one for one in report.measured if one.collective == name]
        sizes = [one.num_bytes for one in of_name]
        colour = colormaps["tab10"](place % 10)
        times.plot(sizes, [one.median for one in of_name], label=name, color=colour, marker=".", linewidth=1.3)
        times.fill_between(
            sizes, [one.median for one in of_name], [one.p95 for one in of_name], color=colour, alpha=0.12
        )
        rates.plot(sizes, [one.bus for one in of_name], color=colour, marker=".", linewidth=1.3)
    all_sizes = sorted({one.num_bytes for one in report.measured if one.collective == names[0]}, reverse=True)
    shown = [largest := all_sizes[0], *(size for size in all_sizes[:: 1 + len(all_sizes) // 9] if size * 3 < largest)]
    for axes in (times, rates):
        axes.set_xscale("log", base=2)
        axes.set_xticks(shown, [format_bytes(tick) for tick in shown], rotation=30)
        axes.minorticks_off()
        axes.set_xlabel("size of the message")
    times.set_yscale("log")
    times.set_title("Time of the slowest rank: median, band up to p95", fontsize=9)
    times.set_ylabel("seconds")
    rates.set_title("Bus bandwidth", fontsize=9)
    rates.set_ylabel("GB/s")
    rates.set_yscale("log")


def _bars(report: Report, axes: Axes) -> None:
    """Draw a bar a link, slow ones in another colour."""
    slow = {one.what: one.serious for one in report.slow}
    links = sorted(report.links, key=lambda link: link.rate)[:MOST_LINKS][::-1]
    names = []
    for link in links:
        source, target = report.facts[link.source], report.facts[link.target]
        names.append(f"{source.name} -> {target.name} over {source.interfaces[link.interface]}")
    places = range(len(links))
    colours = [(BEST if slow[name] else AMBER) if name in slow else BAR for name in names]
    bars = axes.barh(places, [link.rate for link in links], color=colours, height=0.62)
    labels = axes.bar_label(bars, [f"{link.rate:.3g}" for link in links], padding=3)
    axes.set_yticks(places, names)
    for name, label, tick, colour in zip(names, labels, axes.get_yticklabels(), colours, strict=True):
        if name in slow:  # its bar may be too short to be seen
            label.set(text=f"{label.get_text()}  {'slow' if slow[name] else 'slower'}", color=colour)
            tick.set_color(colour)
    axes.set(xlabel="GB/s", xlim=(0, 1.12 * max(link.rate for link in links)))
    axes.set_title("Links, one pair of ranks at a time", fontsize=9)
    axes.grid(visible=False, axis="y")
