"""State that this process keeps from one run to the next: command line, launcher, sweep, signals."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ProcessContext:
    """State of this process. `fulgurite.main` and each job's process make one at their start.

    Fields of type `Any` hold objects of higher packages, which have an accessor for each.

    Attributes:
        argv: The command line as the user typed it, before shorthands are expanded.
        config_name: The config file of the entry point, without `.yaml`; None in a script or a notebook.
        launch: Rank information from an external launcher, see `distributed.launch_env.current_launch`.
        rendezvous: The open `distributed.rendezvous.Rendezvous`; None before the first round.
        stores: TCP stores of this process by address; rank 0 serves each for all jobs of a sweep.
        init_file: The `file://` URL at which the process group forms; None without one.
        reserves_port: Rank 0 binds the master port before it starts the other ranks.
        launchers: Launchers of this process whose ranks may still be alive.
        managed_runs: Directories of the runs that can be restarted with a smaller batch.
        sweep_dir: Directory of the sweep that this process runs; None in a single run.
        sweep_config: Config of that sweep.
        is_sweep_resumable: `sweep.resume` can resume that sweep.
        signals: The handler of signals, see `shutdown.signals.signal_handler`.
        inexact: What the present run cannot resume exactly, see `core.exactness.name_inexact`.
        left_out: One line for each replaced target, see `config.left_out.take_messages`.
        sources: The `trust.sources.Sources` of the config that was composed last; None before.
        snapshot: Folder of the sources of an earlier run, of which this process composes; None: it asks the sources.
        asks_sources: Whether a composition may ask remote sources; without, they have nothing.
        saved_snapshot: Folder with the sources of the present run, for its child ranks; None without one.
        inherited: Overrides that a run directory of another user adds to the command line, and their file.
        trainer: The Trainer that runs, see `engine.components.steps`; None otherwise.
        record: The `RunRecord` of the present run; None outside a run.
    """

    argv: list[str] = field(default_factory=lambda: list(sys.argv))
    config_name: str | None = None
    launch: Any = None
    rendezvous: Any = None
    stores: dict[str, Any] = field(default_factory=dict)
    init_file: str | None = None
    reserves_port: bool = False
    launchers: list[Any] = field(default_factory=list)
    managed_runs: set[str] = field(default_factory=set)
    sweep_dir: Path | None = None
    sweep_config: Any = None
    is_sweep_resumable: bool = False
    signals: Any = None
    inexact: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    sources: Any = None
    snapshot: Path | None = None
    asks_sources: bool = True
    saved_snapshot: Path | None = None
    inherited: dict[str, str] = field(default_factory=dict)
    trainer: Any = None
    record: Any = None


_context: ProcessContext | None = None


def current_context() -> ProcessContext:
    """Return this process's context; make one on the first call in a script or a notebook."""
    return _context or set_context(ProcessContext())


def set_context(context: ProcessContext) -> ProcessContext:
    """Replace this process's context, and return the new one."""
    global _context
    _context = context
    return context
