"""Command line of the child ranks of a sweep job."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import is_sweep_job
from fulgurite.config.override_text import NOT_INHERITED_HYDRA

# hydra.sweeper overrides stay: from them each rank of a trial knows that ranks agree on pruning
NOT_INHERITED_BY_RANKS = (*(start for start in NOT_INHERITED_HYDRA if start != "hydra.sweeper"), "hydra.job.")


@contextmanager
def job_command_line() -> Iterator[None]:
    """Make Lightning start child ranks with the job's overrides, not the sweep's."""
    if not is_sweep_job():
        yield
        return
    hydra = HydraConfig.get()
    task, own = (
        [str(override) for override in OmegaConf.to_container(given, resolve=False) or ()]
        for given in (hydra.overrides.task, hydra.overrides.hydra)
    )
    own = [
        override for override in own if not override.lstrip("+~").replace("/", ".").startswith(NOT_INHERITED_BY_RANKS)
    ]
    argv, run_dir = sys.argv, str(hydra.run.dir)
    sys.argv = [argv[0], *own, *task, "hydra.mode=RUN", f"hydra.job.num={hydra.job.num}"]
    _set_run_dir(str(hydra.runtime.output_dir))
    try:
        yield
    finally:
        sys.argv = argv
        _set_run_dir(run_dir)


def _set_run_dir(folder: str) -> None:
    """Set the directory that Lightning passes to child ranks."""
    cfg: Any = HydraConfig.instance().cfg
    with read_write(cfg.hydra.run), open_dict(cfg.hydra.run):
        cfg.hydra.run.dir = folder
