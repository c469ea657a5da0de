"""What a run tells the terminal: its config at the start, its results at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fulgurite.core.redact import masked

HIDDEN = ("hydra", "extras", "paths", "resume", "sweep")  # the same in nearly every run


def show_config(cfg: DictConfig) -> None:
    """Print the config as resolved YAML, secrets as `***`, unless `extras.print_config` is false."""
    if not cfg.extras.get("print_config"):
        return
    from rich.console import Console
    from rich.syntax import Syntax

    shown = {key: value for key, value in masked(cfg).items() if key not in HIDDEN and value is not None}
    Console().print(Syntax(OmegaConf.to_yaml(OmegaConf.create(shown)).rstrip(), "yaml", background_color="default"))


def show_results(metrics: Mapping[str, float], weights: str | None, folder: Path) -> None:
    """Print the final metrics as a table, the weights they were measured on, and where the run is kept.

    Args:
        metrics: Name to number.
        weights: The checkpoint, relative to the run directory; None for the weights in memory.
        folder: The run directory.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", title="Results")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    console = Console()
    console.print(table)
    # no markup and no wrapping: paths are there to be copied
    console.print(
        f"weights  {weights or 'in memory'}\nrun      {folder}", markup=False, highlight=False, soft_wrap=True
    )


def show_sweep(rows: Sequence[Sequence[str]], names: Sequence[str], folder: Path, ends: Sequence[str] = ()) -> None:
    """Print one row for each set of values a sweep tried.

    Args:
        rows: Values, number of jobs, then a cell for each metric.
        names: The metrics.
        folder: The sweep's directory.
        ends: A line on each job that is not done.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Sweep: mean ± standard deviation over jobs")
    table.add_column("values", overflow="fold")
    for name in ("jobs", *names):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for line in ends:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"sweep    {folder}", markup=False, highlight=False, soft_wrap=True)


def show_plan(
    rows: Sequence[Sequence[str]],
    shared: Sequence[str],
    columns: Sequence[str] = ("job", "values", "state"),
    title: str | None = None,
) -> None:
    """Print the jobs that a sweep would have.

    Args:
        rows: A cell for each column.
        shared: The words that all of them have.
        columns: Their heads.
        title: Of the table; None counts the jobs.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or f"Sweep: {len(rows)} jobs")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"all      {' '.join(shared) or '(nothing else)'}", markup=False, highlight=False, soft_wrap=True)
