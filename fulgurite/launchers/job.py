"""A job of a sweep that runs in another process than the sweep: all that it needs, as values that pickle.

The process may be a copy of the sweep's (`hydra/launcher=local`) or a new one on another machine (Slurm, Ray): what a
door does before its run is done there again, and the door's function is imported as `src.train`, never as `__main__`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import Callbacks, ConfigLoaderImpl
from fulgurite.config.schema import Resilience, read_settings
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.errors import Interrupted, UserError
from fulgurite.core.project import prepare_environment, project_root, use_writable_caches
from fulgurite.engine.app import EntryPoint
from fulgurite.engine.outcome import JobFailed, classify_error
from fulgurite.engine.record import RunRecord
from fulgurite.shutdown.signals import signals


@dataclass(frozen=True)
class RemoteJob:
    """One job, composed.

    Attributes:
        number: Of the job in its sweep.
        sweep: The sweep's directory.
        folder: Its run directory.
        plain: Its config as Hydra's own launcher would compose it, with Hydra's part, unresolved and of plain values:
            the classes behind Hydra's part are other ones in a process that finds Hydra's plugins anew.
        task: Module and name of the door's function, e.g. `("src.train", "main")`.
        argv: The sweep's `sys.argv`: processes of the job are started with the same program.
        typed: The command line as the user typed it, for the record.
        cwd: Folder that the sweep was started in.
        search_path: Where Hydra looks for configs.
        grace: Seconds that it has to come to an end that is saved.
        config: What `plain` was made from, for a process that is a copy of this one; it is not pickled.
    """

    number: int
    sweep: Path
    folder: Path
    plain: dict[str, Any]
    task: tuple[str, str]
    argv: tuple[str, ...]
    typed: tuple[str, ...]
    cwd: str
    search_path: ConfigSearchPath
    grace: float = Resilience.grace_seconds
    config: DictConfig | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "config": None}

    @classmethod
    def compose(cls, launcher: Launcher, number: int, words: Sequence[str]) -> RemoteJob:
        """Compose a job of a launcher that Hydra has set up.

        Args:
            launcher: Has `config`, `hydra_context` and `task_function`, as Hydra's own has.
            number: Of the job.
            words: Its overrides.

        Raises:
            Refusals: What `fulgurite.validation.hydra_errors` lists: a file has changed since the sweep was checked.
        """
        given: Any = launcher
        loader = given.hydra_context.config_loader
        config = loader.load_sweep_config(given.config, list(words))
        with read_write(config), open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        sweep = Path.cwd() / str(config.hydra.sweep.dir)
        return cls(
            number,
            sweep,
            sweep / str(config.hydra.sweep.subdir),
            to_plain(config),
            _import_path(given.task_function),
            tuple(sys.argv),
            tuple(RunRecord.typed or sys.argv),
            str(Path.cwd()),
            loader.config_search_path,
            read_settings(config, Resilience).grace_seconds,
            config,
        )

    def run(self) -> JobReturn:
        """Run the job in this process, which runs nothing else of the sweep, and return what became of it.

        What a failed job has raised is a `JobFailed`, which pickles; one that a signal has ended has status killed in
        its `outcome`. The traceback is in the job's log.
        """
        self._enter()
        config = to_hydra_config(self.plain) if self.config is None else self.config
        JobRuntime.instance().set("name", config.hydra.job.name)
        context = HydraContext(config_loader=ConfigLoaderImpl(self.search_path), callbacks=Callbacks(config))
        try:
            returned = run_job(
                hydra_context=context,
                task_function=self._function(),
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        except Interrupted as stop:
            signals.end_ranks()
            returned = JobReturn(status=JobStatus.FAILED, _return_value=stop)
        return to_picklable(returned)

    def _enter(self) -> None:
        """Do what a door does before its run."""
        os.environ["HYDRA_FULL_ERROR"] = "1"
        gc.disable()
        os.chdir(self.cwd)
        sys.argv = list(self.argv)
        # Lightning would start the other processes of the job as `python -m <what has started this one>`
        importlib.import_module("__main__").__spec__ = None
        prepare_environment()
        use_writable_caches(os.environ)
        guard_configs()
        RunRecord.typed = list(self.typed)
        signals.asked = None
        signals.install()
        setup_globals()

    def _function(self) -> Any:
        module, name = self.task
        found = getattr(importlib.import_module(module), name)
        return found.run_job if isinstance(found, EntryPoint) else getattr(found, "__wrapped__", found)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return a config with Hydra's part as plain values, unresolved."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def to_hydra_config(plain: dict[str, Any]) -> DictConfig:
    """Return a config that Hydra takes for one it has composed: of a fixed structure, its own part checked by type."""
    hydra = OmegaConf.structured(HydraConf)
    with open_dict(hydra):  # groups add keys of their own
        hydra.merge_with(plain["hydra"])
    config = OmegaConf.create({**plain, "hydra": hydra})
    OmegaConf.set_struct(config, True)
    return config


def to_picklable(returned: JobReturn) -> JobReturn:
    """Return what a job returned in a form that pickles: errors as a `JobFailed`."""
    error = returned._return_value
    if returned.status == JobStatus.COMPLETED or isinstance(error, JobFailed):
        return returned
    return replace(returned, _return_value=JobFailed(classify_error(error)))


def _import_path(task: Callable[..., Any]) -> tuple[str, str]:
    """Return module and name by which another process finds a door's function.

    Raises:
        UserError: It is in no file of the project.
    """
    module, name = task.__module__, task.__qualname__
    if module == "__main__":
        file = Path(str(getattr(sys.modules["__main__"], "__file__", ""))).resolve()
        if not file.is_relative_to(project_root()):
            raise UserError(f"{file}: jobs of their own processes need a function in a file below {project_root()}")
        module = ".".join(file.relative_to(project_root()).with_suffix("").parts)
    return module, name
