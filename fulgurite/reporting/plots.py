"""Plot a sweep as SVG: learning curves, parallel coordinates, one slice for each key, importance."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fulgurite.core.errors import UserError
from fulgurite.reporting.sweep_analysis import Summary, numbers_of, points_of, spans_decades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BEST, BAR = "#1f2933", "#9aa5b1", "#d9480f", "#3b6ea8"
MAX_VECTOR_RUNS = 150  # the lines of more runs are rasterized
MAX_KEYS = 12
STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "fulgurite",
}


def draw_all(summary: Summary) -> dict[str, str]:
    """Return the SVG text of each plot that has data, by title."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError('matplotlib is not installed. Install it for the plots: pip install -e ".[dev]"') from error
    mpl.use("svg")
    found = {}
    with mpl.rc_context(STYLE):
        for title, draw in (
            ("Learning curves", _curves),
            ("Parallel coordinates", _parallel),
            ("Slices: the metric over each value", _slices),
            ("Importance: share of the variance that a key alone explains", _importance),
        ):
            if (figure := draw(summary)) is not None:
                text = io.StringIO()
                figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, dpi=120)
                found[title] = text.getvalue()
    return found


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _shades(values: Sequence[float], mode: str) -> list[Any]:
    """Return a colour for each value; darker is better."""
    from matplotlib import colormaps

    low, high = min(values), max(values)
    shares = [(value - low) / (high - low) if high > low else 0.5 for value in values]
    return [colormaps["viridis_r"](0.1 + 0.85 * (share if mode == "max" else 1 - share)) for share in shares]


def _curves(summary: Summary) -> Figure | None:
    base = summary.metric.removesuffix("_best")
    curves = [(run, run.curves(list({base, "val/loss", "train/loss"}))) for run in summary.runs]
    names = [n for n in dict.fromkeys((base, "val/loss", "train/loss")) if any(n in curve for _, curve in curves)]
    if not names:
        return None
    of_best = {run.folder for run in summary.best.runs} if summary.best else set()
    numbers = [run.metrics.get(summary.metric) for run, _ in curves]
    having = [number for number in numbers if number is not None and number == number]  # noqa: PLR0124 - NaN
    shades = dict(zip(having, _shades(having, summary.mode), strict=True)) if having else {}
    figure, panels = _figure(3.7 * len(names), 3.0, 1, len(names))
    for name, axes in zip(names, panels, strict=True):
        for (run, curve), number in zip(curves, numbers, strict=True):
            if name in curve:
                line: dict[str, Any] = {"color": BEST, "linewidth": 1.8, "zorder": 3}
                if run.folder not in of_best:
                    shade = FAINT if number is None else shades.get(number, FAINT)
                    line = {"color": shade, "linewidth": 0.8, "alpha": 0.7}
                axes.plot(
                    *zip(*curve[name], strict=True),
                    **line,
                    marker="." if len(curve[name]) == 1 else None,
                    rasterized=len(curves) > MAX_VECTOR_RUNS,
                )
        drawn = [value for _, curve in curves for _, value in curve.get(name, ())]
        if spans_decades([value for value in drawn if math.isfinite(value)]):
            axes.set_yscale("log")
        axes.set(xlabel="optimizer step", title=name)
    return figure


def _parallel(summary: Summary) -> Figure | None:
    points = points_of(summary)
    keys = summary.keys[:MAX_KEYS]
    if len(points) < 2 or not keys:
        return None
    figure, [axes] = _figure(max(5.0, 1.75 * (len(keys) + 1)), 3.6)
    values = [value for _, value in points]
    columns = [_scaled([of[key] for of, _ in points]) for key in keys]
    columns.append(_scaled([f"{value:.6g}" for value in values]))
    best = (max if summary.mode == "max" else min)(values)
    lines = zip(*(heights for heights, _ in columns), strict=True)
    for shade, value, heights in zip(_shades(values, summary.mode), values, lines, strict=True):
        line: dict[str, Any] = {"color": BEST, "linewidth": 2.2, "zorder": 3}
        if value != best:
            line = {"color": shade, "linewidth": 1, "alpha": 0.75}
        axes.plot(heights, **line, rasterized=len(points) > MAX_VECTOR_RUNS)
    for index, (_, ticks) in enumerate(columns):
        axes.axvline(index, color=FAINT, linewidth=1, zorder=1)
        for height, label in ticks:
            axes.annotate(
                _short(label),
                (index, height),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
            )
    axes.set_xticks(range(len(columns)), [_wrapped(key) for key in (*keys, summary.metric)])
    axes.set(yticks=[], xlim=(-0.15, len(columns) - 0.6), ylim=(-0.06, 1.06))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(False)
    return figure


def _scaled(values: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the position of each value on an axis from 0 to 1, and the ticks of the axis."""
    import numpy as np

    numbers, different = numbers_of(values), sorted(set(values))
    if numbers is None:
        positions = {value: index / max(1, len(different) - 1) for index, value in enumerate(different)}
        return [positions[value] for value in values], [(position, value) for value, position in positions.items()]
    many = len(different) > 6
    scale = np.log if spans_decades(numbers) else np.asarray
    low, high = float(scale(min(numbers))), float(scale(max(numbers)))
    span = high - low or 1.0
    chosen = np.linspace(low, high, 4) if many else scale(sorted(set(numbers)))
    labels = np.exp(chosen) if scale is np.log else chosen
    ticks = [((float(at) - low) / span, f"{float(label):.3g}") for at, label in zip(chosen, labels, strict=True)]
    return [(float(scale(number)) - low) / span for number in numbers], ticks


def _slices(summary: Summary) -> Figure | None:
    points = points_of(summary)
    keys = summary.keys[:MAX_KEYS]
    if len(points) < 2 or not keys:
        return None
    columns = min(4, len(keys))
    rows = -(-len(keys) // columns)
    figure, panels = _figure(max(3.6, 2.8 * columns), 2.7 * rows, rows, columns)
    target = [value for _, value in points]
    best = (max if summary.mode == "max" else min)(target)
    colours = [BEST if value == best else BAR for value in target]
    for key, axes in zip(keys, panels, strict=False):
        values = [of[key] for of, _ in points]
        numbers, different = numbers_of(values), sorted(set(values))
        if numbers is not None and len(different) > 4:
            axes.scatter(numbers, target, c=colours, s=18, alpha=0.85)
            if spans_decades(numbers):
                axes.set_xscale("log")
        else:
            different.sort(key=float if numbers is not None else str)
            axes.scatter([different.index(value) for value in values], target, c=colours, s=18, alpha=0.85)
            axes.set_xticks(range(len(different)), [_short(value) for value in different])
            axes.set_xlim(-0.5, len(different) - 0.5)
        axes.set(xlabel=key, ylabel=summary.metric)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    return figure


def _importance(summary: Summary) -> Figure | None:
    if not (shares := list(summary.importance.items())[:MAX_KEYS][::-1]):
        return None
    figure, [axes] = _figure(7.0, 0.6 + 0.34 * len(shares))
    bars = axes.barh([key for key, _ in shares], [share for _, share in shares], color=BAR, height=0.62)
    axes.bar_label(bars, [f"{share:.0%}" for _, share in shares], padding=3)
    axes.set(xlim=(0, 1.05))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(visible=False, axis="y")
    return figure


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _wrapped(key: str) -> str:
    """Return a long dotted key on two lines."""
    head, dot, tail = key.rpartition(".")
    return f"{head}{dot}\n{tail}" if len(key) > 12 and dot else key
