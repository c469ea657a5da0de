"""What differs between the lines of Hydra that this project runs on, 1.3 and 1.4, in one place."""

from __future__ import annotations

import copyreg
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import hydra
import hydra.utils
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobReturn, JobStatus

if TYPE_CHECKING:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

# private names of Hydra that this library uses, imported from here only
__all__ = [
    "BasicLauncher",
    "BasicSweeper",
    "Callbacks",
    "ConfigLoaderImpl",
    "IConfigRepository",
    "SourcesRegistry",
    "get_args_parser",
]

# Hydra 1.3 executes the modules of its core plugins a second time when it looks for plugins: a class imported before
# that is another one than its own methods refer to, so these are imported at each use.
_CORE_PLUGINS = {
    "BasicLauncher": "hydra._internal.core_plugins.basic_launcher",
    "BasicSweeper": "hydra._internal.core_plugins.basic_sweeper",
}


def __getattr__(name: str) -> Any:
    if name not in _CORE_PLUGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_CORE_PLUGINS[name]), name)


IS_1_3 = hydra.__version__.startswith("1.3.")
# 1.4 has one behaviour only and warns when another is asked for; 1.3 warns when none is.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}
# The method of Hydra's config loader through which every composed config comes.
LOADS = "load_configuration" if IS_1_3 else "_load_configuration"
# What Hydra 1.4 itself may make from a config: sweepers, launchers, callbacks and log handlers.
ITS_OWN = ("hydra.*", "hydra_plugins.*", "optuna.*", "logging.*", "fulgurite.*")
# Arguments of `@hydra.main` beside folder and name.
MAIN: dict[str, Any] = VERSION_BASE if IS_1_3 else {"execution_whitelist": ITS_OWN}


def unchecked() -> dict[str, Any]:
    """Return what tells `instantiate` of 1.4, which wants a list of what may be called, that it has been judged."""
    policy = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
    return {} if policy is None else {"_execution_whitelist_": policy}


def let_partials_pickle() -> None:
    """Let a process that is spawned have an optimizer that was only begun, `_partial_: true`.

    Those of 1.4 refuse, since they carry the list of what may be called; what they call was judged before, so they
    arrive as plain ones.
    """
    if not IS_1_3:
        from hydra._internal.execution_policy import _DeferredTarget  # type: ignore[import-not-found, unused-ignore]

        copyreg.pickle(_DeferredTarget, lambda begun: (_begin, (begun.func, begun.args, begun.keywords)))


def _begin(function: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> partial[Any]:
    return partial(function, *args, **keywords)


def failed_job(error: BaseException) -> JobReturn:
    """Return the result of a job that raised an exception."""
    return JobReturn(status=JobStatus.FAILED, _return_value=error)


def returned_value(result: JobReturn) -> Any:
    """Return what a job returned or raised; `JobReturn.return_value` raises the exception of a failed job."""
    return result._return_value
