"""Command line of the child ranks of a sweep job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from fulgurite.config.override_text import NOT_INHERITED_HYDRA

# A sweeper's words stay: by them each process of a trial knows that its ranks decide together about an early end.
NOT_INHERITED_BY_RANKS = (*(start for start in NOT_INHERITED_HYDRA if start != "hydra.sweeper"), "hydra.job.")


@contextmanager
def job_command_line() -> Iterator[None]:
    """Have Lightning start processes with the words of the job: by those of the command line each would be a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        yield
        return
    hydra = HydraConfig.get()
    words, its_own = (
        [str(word) for word in OmegaConf.to_container(given, resolve=False) or ()]
        for given in (hydra.overrides.task, hydra.overrides.hydra)
    )
    its_own = [word for word in its_own if not word.lstrip("+~").replace("/", ".").startswith(NOT_INHERITED_BY_RANKS)]
    typed, named = sys.argv, str(hydra.run.dir)
    sys.argv = [typed[0], *its_own, *words, "hydra.mode=RUN", f"hydra.job.num={hydra.job.num}"]
    _set_run_dir(str(hydra.runtime.output_dir))
    try:
        yield
    finally:
        sys.argv = typed
        _set_run_dir(named)


def _set_run_dir(folder: str) -> None:
    """Set the directory that Lightning tells the processes."""
    cfg: Any = HydraConfig.instance().cfg
    with read_write(cfg.hydra.run), open_dict(cfg.hydra.run):
        cfg.hydra.run.dir = folder
