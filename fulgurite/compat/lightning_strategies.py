"""Private names of Lightning's strategies and launchers, each behind one function."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

    from fulgurite.compat.lightning import SubprocessScriptLauncher


def has_process_group(strategy: Strategy) -> bool:
    """Return whether a strategy makes a process group of torch.distributed."""
    return hasattr(strategy, "_get_process_group_backend")


def process_group_backend(strategy: Strategy) -> str:
    """Return the backend of a strategy's process group: the requested one or the device's default."""
    return str(strategy._get_process_group_backend())  # type: ignore[attr-defined]


def requested_backend(strategy: Strategy) -> str | None:
    """Return the strategy's argument `process_group_backend`."""
    backend: str | None = strategy._process_group_backend  # type: ignore[attr-defined]
    return backend


def start_method(strategy: Strategy) -> str:
    """Return how a strategy starts processes: popen, spawn, fork or forkserver."""
    return str(getattr(strategy, "_start_method", "popen"))


def process_group_timeout(strategy: Strategy) -> timedelta | None:
    """Return the strategy's argument `timeout`; None where it takes none."""
    return getattr(strategy, "_timeout", None)


def set_process_group_timeout(strategy: Strategy, timeout: timedelta) -> None:
    """Set what the argument `timeout` of a strategy sets."""
    strategy._timeout = timeout  # type: ignore[attr-defined]


def set_launcher(strategy: Strategy, launcher: SubprocessScriptLauncher) -> None:
    """Replace the launcher of a strategy."""
    strategy._launcher = launcher


def start_child_scripts(launcher: SubprocessScriptLauncher) -> None:
    """Start one process for each further rank of this node."""
    launcher._call_children_scripts()


def limit_threads(num_processes: int) -> None:
    """Share the cores among the processes of a node unless OMP_NUM_THREADS is set."""
    from lightning.fabric.utilities.distributed import _set_num_threads_if_needed

    _set_num_threads_if_needed(num_processes=num_processes)
