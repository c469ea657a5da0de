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
    """

    # the command line as the user typed it, before shorthands are expanded
    argv: list[str] = field(default_factory=lambda: list(sys.argv))
    config_name: str | None = None  # the entry point's file, without `.yaml`; None in a script or a notebook
    launch: Any = None  # rank information from an external launcher, see `distributed.launch_env.current_launch`
    rendezvous: Any = None  # the open `distributed.rendezvous.Rendezvous`; None before the first round
    stores: dict[str, Any] = field(default_factory=dict)  # TCP stores by address; rank 0 serves each for all jobs
    init_file: str | None = None  # the `file://` URL at which the process group forms; None without one
    reserves_port: bool = False  # rank 0 binds the master port before it starts the other ranks
    launchers: list[Any] = field(default_factory=list)  # those of this process whose ranks may still be alive
    managed_runs: set[str] = field(default_factory=set)  # directories of runs that can restart with a smaller batch
    sweep_dir: Path | None = None  # of the sweep that this process runs; None in a single run
    sweep_config: Any = None  # config of that sweep
    is_sweep_resumable: bool = False  # `sweep.resume` can resume that sweep
    signals: Any = None  # the handler of signals, see `shutdown.signals.signal_handler`
    inexact: list[str] = field(default_factory=list)  # what the run cannot resume exactly, see `core.exactness`
    left_out: list[str] = field(default_factory=list)  # a line for each replaced target, see `config.left_out`
    sources: Any = None  # the `trust.sources.Sources` of the config that was composed last; None before
    snapshot: Path | None = None  # sources of an earlier run, of which this process composes; None: it asks the sources
    asks_sources: bool = True  # a composition may ask remote sources; without, they have nothing
    saved_snapshot: Path | None = None  # sources of the present run, for its child ranks; None without one
    # overrides that a run directory of another user adds to the command line, and their file
    inherited: dict[str, str] = field(default_factory=dict)
    trainer: Any = None  # the Trainer that runs, see `engine.components.steps`; None otherwise
    record: Any = None  # the `RunRecord` of the present run; None outside a run


_context: ProcessContext | None = None


def current_context() -> ProcessContext:
    """Return this process's context; make one on the first call in a script or a notebook."""
    return _context or set_context(ProcessContext())


def setting(key: str, in_script: str = "") -> str:
    """Return how the user writes a setting: its key in a run of a config, else the argument in a script."""
    context = current_context()
    if context.config_name is not None or context.sources is not None:  # an entry point, or a composed config
        return key
    return in_script or f"harden({key.rpartition('.')[2]}=...)"


def set_context(context: ProcessContext) -> ProcessContext:
    """Replace this process's context, and return the new one."""
    global _context
    _context = context
    return context
