"""A job of a sweep that has several processes: the others are started for this job alone, and the next begins clean."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from src.base.errors import find_stop
from src.run.processes.network import PREFIXES
from src.run.resume.words import OF_HYDRA

# What Lightning tells the processes that it starts, in the environment of the one that starts them.
TOLD = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# A sweeper's words stay: by them each process of a trial knows that its ranks decide together about an early end.
NOT_FOR_RANKS = (*(start for start in OF_HYDRA if start != "hydra.sweeper"), "hydra.job.")


@contextmanager
def words_of_job() -> Iterator[None]:
    """Have Lightning start processes with the words of the job: by those of the command line each would be a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        yield
        return
    hydra = HydraConfig.get()
    words, its_own = (
        [str(word) for word in OmegaConf.to_container(given, resolve=False) or ()]
        for given in (hydra.overrides.task, hydra.overrides.hydra)
    )
    its_own = [word for word in its_own if not word.lstrip("+~").replace("/", ".").startswith(NOT_FOR_RANKS)]
    typed, named = sys.argv, str(hydra.run.dir)
    sys.argv = [typed[0], *its_own, *words, "hydra.mode=RUN", f"hydra.job.num={hydra.job.num}"]
    _name(str(hydra.runtime.output_dir))
    try:
        yield
    finally:
        sys.argv = typed
        _name(named)


@contextmanager
def alone() -> Iterator[None]:
    """Leave no trace of a job's other processes: the next job would take this one for a process that was started."""
    before = dict(os.environ)
    stopped = False
    try:
        yield
    except BaseException as error:
        stopped = find_stop(error) is not None  # ends the sweep, and with it the others at once
        raise
    finally:
        if not stopped and "src.run.launcher" in sys.modules:
            from src.run.launcher import WatchedLauncher

            WatchedLauncher.end_all()
            for name in [name for name in os.environ if name in TOLD or name.startswith(PREFIXES)]:
                del os.environ[name]
            os.environ.update({name: value for name, value in before.items() if name not in os.environ})


def _name(folder: str) -> None:
    """Set the directory that Lightning tells the processes."""
    cfg: Any = HydraConfig.instance().cfg
    with read_write(cfg.hydra.run), open_dict(cfg.hydra.run):
        cfg.hydra.run.dir = folder
