"""A picklable sweep job, for another process than the sweep's.

The process repeats what the entry point does before its run. It imports the task function as `src.train`, never as
`__main__`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import Callbacks, ConfigLoaderImpl, failed_job, returned_value
from fulgurite.config.schema import Resilience, read_settings
from fulgurite.config.yaml_limits import guard_configs
from fulgurite.core.context import ProcessContext, current_context, set_context
from fulgurite.core.errors import Interrupted, UserError
from fulgurite.core.project import prepare_environment, project_root, use_writable_caches
from fulgurite.core.redact import register_config
from fulgurite.engine.app import EntryPoint
from fulgurite.engine.outcome import JobFailed, Outcome, classify_error
from fulgurite.runs.sweep_ledger import record_event
from fulgurite.shutdown.signals import signal_handler
from fulgurite.sources.answers import export_answers, import_answers


@dataclass(frozen=True)
class RemoteJob:
    """A composed job."""

    number: int
    sweep: Path
    folder: Path
    # The config with its `hydra` node, unresolved, as plain values: the structured config classes of Hydra's plugins
    # differ in a process that discovers the plugins again.
    plain: dict[str, Any]
    task: tuple[str, str]  # module and name of the task function, e.g. `("src.train", "main")`
    program: tuple[str, ...]  # the sweep's `sys.argv`, with whose program child ranks start
    argv: tuple[str, ...]  # the user's command line, for the record
    cwd: str
    search_path: ConfigSearchPath
    grace: float = Resilience.grace_seconds  # to save and exit after SIGTERM
    sources: dict[str, Any] = field(default_factory=dict)  # what remote ones answered when the job was composed
    config: DictConfig | None = None  # as composed, for a forked process; not pickled

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "config": None}

    @classmethod
    def compose(cls, launcher: Launcher, number: int, overrides: Sequence[str]) -> RemoteJob:
        """Compose a job, which raises `HYDRA_ERRORS` if a config file has changed."""
        setup: Any = launcher
        loader = setup.hydra_context.config_loader
        config = compose_job(loader, setup.config, number, overrides)
        sweep = Path.cwd() / str(config.hydra.sweep.dir)
        return cls(
            number,
            sweep,
            sweep / str(config.hydra.sweep.subdir),
            to_plain(config),
            _import_path(setup.task_function),
            tuple(sys.argv),
            tuple(current_context().argv),
            str(Path.cwd()),
            loader.config_search_path,
            read_settings(config, Resilience).grace_seconds,
            export_answers(),
            config,
        )

    def run(self) -> JobReturn:
        """Run the job in this process, which runs no other job.

        A failed job returns a picklable `JobFailed`, whose outcome is `killed` after a signal.
        """
        self._enter()
        register_config(self.plain)
        config = to_hydra_config(self.plain) if self.config is None else self.config
        current_context().config_name = config.hydra.job.config_name
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
            signal_handler().terminate_ranks()
            returned = failed_job(stop)
        return to_picklable(returned)

    def record_outcome(self, outcome: Outcome) -> None:
        """Record in the ledger how a job ended that could not do so itself."""
        sweep = {"dir": str(self.sweep), "job": self.number}
        record_event(sweep, outcome.status, run=self.folder, reason=outcome.reason, exit_code=outcome.exit_code)

    def _enter(self) -> None:
        """Repeat what the entry point does before its run."""
        os.environ["HYDRA_FULL_ERROR"] = "1"
        gc.disable()
        os.chdir(self.cwd)
        sys.argv = list(self.program)
        # else Lightning starts child ranks as `python -m <module that started this process>`
        importlib.import_module("__main__").__spec__ = None
        prepare_environment()
        use_writable_caches(os.environ)
        guard_configs()
        set_context(ProcessContext(argv=list(self.argv)))
        import_answers(self.sources)
        signal_handler().install()
        setup_globals()

    def _function(self) -> Any:
        module, name = self.task
        found = getattr(importlib.import_module(module), name)
        return found.run_job if isinstance(found, EntryPoint) else getattr(found, "__wrapped__", found)


def compose_job(loader: ConfigLoaderImpl, config: DictConfig, number: int, overrides: Sequence[str]) -> DictConfig:
    """Compose the config of a job from the sweep's config."""
    config = loader.load_sweep_config(config, list(overrides))
    with read_write(config), open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return config


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return a config with its `hydra` node as plain values, unresolved."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in plain.items()}


def to_hydra_config(plain: dict[str, Any]) -> DictConfig:
    """Return a config as Hydra composes it, with a structured `hydra` node."""
    hydra = OmegaConf.structured(HydraConf)
    with open_dict(hydra):  # config groups add keys
        hydra.merge_with(plain["hydra"])
    config = OmegaConf.create({**plain, "hydra": hydra})
    OmegaConf.set_struct(config, True)
    return config


def to_picklable(returned: JobReturn) -> JobReturn:
    """Return a `JobReturn` whose error is a picklable `JobFailed`."""
    error = returned_value(returned)
    if returned.status == JobStatus.COMPLETED or isinstance(error, JobFailed):
        return returned
    returned.return_value = JobFailed(classify_error(error))
    return returned


def _import_path(task: Callable[..., Any]) -> tuple[str, str]:
    """Return module and name by which another process imports the task function."""
    module, name = task.__module__, task.__qualname__
    if module == "__main__":
        file = Path(str(getattr(sys.modules["__main__"], "__file__", ""))).resolve()
        if not file.is_relative_to(project_root()):
            raise UserError(f"{file}: is outside the project. Move the task function's file below {project_root()}.")
        module = ".".join(file.relative_to(project_root()).with_suffix("").parts)
    return module, name
