"""Render a sweep as one HTML page whose content security policy forbids every request."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

from fulgurite.core.errors import printable
from fulgurite.core.formatting import SPREAD, format_duration_short, format_number, format_spread
from fulgurite.reporting.sweep_analysis import DEFAULT, Summary
from fulgurite.reporting.sweep_summary import Group, seed_of, shown_jobs, shown_value
from fulgurite.runs.run_directory import as_number, key_and_value

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff }
body { margin: 2rem auto; max-width: 86rem; padding: 0 1.5rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem }
.path { color: #616e7c; margin: 0 0 1rem }
ul { padding-left: 1.2rem; margin: .5rem 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: left; padding: .32rem .7rem; border-bottom: 1px solid #e4e7eb; vertical-align: top }
td.number, th.number { text-align: right; white-space: nowrap }
thead th { border-bottom: 2px solid #9aa5b1; white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid #3b6ea8 }
th[aria-sort=ascending] button::after { content: " \\25B2" }
th[aria-sort=descending] button::after { content: " \\25BC" }
tbody tr:hover { background: #f5f7fa } tr.best { background: #fff4ec } tr.best:hover { background: #ffe8d9 }
input { font: inherit; padding: .3rem .6rem; border: 1px solid #9aa5b1; border-radius: 4px }
input { width: 20rem; margin-bottom: .5rem }
img { display: block; max-width: 100% } .note { color: #616e7c; font-size: 13px }
"""
SCRIPT = """
for (const box of document.querySelectorAll(".table")) {
  const body = box.querySelector("tbody"), heads = [...box.querySelectorAll("th")];
  box.querySelector("input").addEventListener("input", event => {
    const terms = event.target.value.toLowerCase().split(/\\s+/);
    for (const row of body.rows) row.hidden = !terms.every(term => row.textContent.toLowerCase().includes(term));
  });
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // rows without a value stay last
      const by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? by : -by;
    };
    body.append(...[...body.rows].sort(order));
  }));
}
"""
NOTE = (
    f"{SPREAD} over the runs of a group; click a column head to sort. "
    "In the plots, the best is orange and a darker colour is better."
)
# The text of a cell and its sort key, empty for no value.
Cell = tuple[str, str]


def render_page(summary: Summary, headline: Sequence[str], plots: Mapping[str, str]) -> str:
    """Return the HTML page of a sweep with sentences at the top and SVG plots by title."""
    title = f"Sweep {summary.folder.name}"
    parts = [
        f"<h1>{escape(title)}</h1><p class=path>{escape(str(summary.folder))}</p>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in headline) + "</ul>",
        _section("Groups", _groups(summary)),
        f"<p class=note>{NOTE}</p>",
        *(_section(name, _image(name, svg)) for name, svg in plots.items()),
        _failures(summary),
        _section("Runs", _runs(summary)),
    ]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style>'
    )
    body = "\n".join(filter(None, parts))
    script = f"<script>{SCRIPT}</script>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n{script}</body></html>\n'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _image(title: str, svg: str) -> str:
    # an image, not inline SVG: element IDs of two plots must not clash
    encoded = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{encoded}">'


def _groups(summary: Summary) -> str:
    names = _metrics(summary)
    rows = [
        [*_values(summary, group), _count(group), *(_spread(group, name) for name in names)] for group in summary.groups
    ]
    return _table("groups", [*_keys(summary), "jobs", *names], rows, best=0 if summary.best else None)


def _keys(summary: Summary) -> list[str]:
    return summary.keys or ["values"]


def _values(summary: Summary, group: Group) -> list[Cell]:
    """Return a cell for each key that differs between groups; long numbers are rounded."""
    values = dict(key_and_value(override) for override in group.values)
    found = [values.get(key, DEFAULT) for key in summary.keys] or [group.name]
    return [(shown_value(value), value) for value in found]


def _metrics(summary: Summary) -> list[str]:
    """Return the ranking metric, then the test and validation metrics."""
    logged = sorted({name for group in summary.groups for name in group.metrics if group.spread(name)})
    others = [name for split in ("test/", "val/") for name in logged if name.startswith(split)]
    return [name for name in dict.fromkeys((summary.metric, *others)) if name in logged]


def _count(group: Group) -> Cell:
    return shown_jobs(group.states), str(len(group.runs))


def _spread(group: Group, name: str) -> Cell:
    if (of := group.spread(name)) is None:
        return "-", ""
    return format_spread(of.mean, of.half_width), repr(of.mean)


def _failures(summary: Summary) -> str:
    unfinished = [(group, run) for group in summary.groups for run in group.runs if run.status != "done"]
    if not unfinished:
        return ""
    seed = _seed(summary)
    rows = [
        [
            *_texts(run.folder.name, run.status, run.reason),
            *_values(summary, group),
            *_texts(*(seed_of(run) for _ in seed)),
        ]
        for group, run in unfinished
    ]
    return _section("Not done", _table("failures", ["job", "status", "reason", *_keys(summary), *seed], rows))


def _runs(summary: Summary) -> str:
    names, seed = _metrics(summary), _seed(summary)
    rows = []
    for group in summary.groups:
        for run in group.runs:
            row = [*_texts(run.folder.name, run.status), *_values(summary, group)]
            row += _texts(*(seed_of(run) for _ in seed))
            row.append(("-", "") if run.seconds is None else (format_duration_short(run.seconds), str(run.seconds)))
            for number in map(run.metrics.get, names):
                row.append(("-", "") if number is None or math.isnan(number) else (format_number(number), repr(number)))
            rows.append(row)
    return _table("runs", ["job", "status", *_keys(summary), *seed, "took", *names], rows)


def _seed(summary: Summary) -> list[str]:
    """Return the head of the column for seeds and folds; none when no run has one."""
    return ["seed"] if any(map(seed_of, summary.runs)) else []


def _texts(*texts: str) -> list[Cell]:
    return [(text, text) for text in map(printable, texts)]


def _table(name: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], best: int | None = None) -> str:
    """Return a table with a filter box and sortable columns."""
    columns = [{row[column][1] for row in rows} - {""} for column in range(len(heads))]
    are_numbers = [bool(keys) and all(as_number(key) is not None for key in keys) for keys in columns]
    kinds = [" class=number" if are else "" for are in are_numbers]
    head = "".join(
        f"<th{kind}><button type=button>{escape(text)}</button></th>" for text, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        f"<tr{' class=best' if index == best else ''}>"
        + "".join(
            f'<td{kind} data-value="{escape(value)}">{escape(shown)}</td>'
            for (shown, value), kind in zip(row, kinds, strict=True)
        )
        + "</tr>\n"
        for index, row in enumerate(rows)
    )
    box = f'<input type=search placeholder="filter rows" aria-label="filter {name}">'
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f"<div class=table id={name}>{box}<div class=wide>{table}</div></div>"
