"""Private names of Hydra and OmegaConf, and the differences between Hydra 1.3 and 1.4."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import hydra
import hydra.utils
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

if TYPE_CHECKING:
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

# private names of Hydra that this library uses, imported from here only
__all__ = [
    "BasicLauncher",
    "BasicSweeper",
    "CachingConfigRepository",
    "Callbacks",
    "ConfigLoaderImpl",
    "IConfigRepository",
    "SourcesRegistry",
    "get_args_parser",
]

# Hydra 1.3 replaces the classes of its core plugins when it looks for plugins: import them at each use.
_CORE_PLUGINS = {
    "BasicLauncher": "hydra._internal.core_plugins.basic_launcher",
    "BasicSweeper": "hydra._internal.core_plugins.basic_sweeper",
}


def __getattr__(name: str) -> Any:
    if name not in _CORE_PLUGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_CORE_PLUGINS[name]), name)


IS_1_3 = hydra.__version__.startswith("1.3.")
# Hydra 1.4 warns when version_base is passed, 1.3 warns when it is not.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}
# The method of ConfigLoaderImpl that returns every composed config.
LOADS = "load_configuration" if IS_1_3 else "_load_configuration"
# The methods that merge the chosen files, and then the overrides of keys.
COMPOSES, APPLIES = "_compose_config_from_defaults_list", "_apply_overrides_to_config"
_APPLY_CODE = ConfigLoaderImpl._apply_overrides_to_config.__code__  # before config.left_out wraps the method
# The function of `hydra.core.utils` that writes the files of `.hydra`.
SAVES = "_save_config"
# Targets that Hydra 1.4 may instantiate itself: sweepers, launchers, callbacks and log handlers.
HYDRA_TARGETS = ("hydra.*", "hydra_plugins.*", "optuna.*", "logging.*", "fulgurite.*")
# Arguments of `@hydra.main` besides config_path and config_name.
MAIN: dict[str, Any] = VERSION_BASE if IS_1_3 else {"execution_whitelist": HYDRA_TARGETS}


def unchecked() -> dict[str, Any]:
    """Return the arguments that disable the whitelist of `instantiate` in Hydra 1.4; `target_policy` has checked."""
    policy = getattr(hydra.utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
    return {} if policy is None else {"_execution_whitelist_": policy}


def let_partials_pickle() -> None:
    """Make a `_partial_: true` optimizer of Hydra 1.4 picklable for spawned ranks.

    Hydra 1.4 refuses, because its partials carry a whitelist. They are unpickled as plain partials.
    """
    if not IS_1_3:
        from hydra._internal.execution_policy import _DeferredTarget  # type: ignore[import-not-found, unused-ignore]

        copyreg.pickle(_DeferredTarget, lambda call: partial(call.func, *call.args, **call.keywords).__reduce__())


def is_sweep_job() -> bool:
    """Return whether Hydra runs a job of a sweep in this process."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def failed_job(error: BaseException) -> JobReturn:
    """Return the result of a job that raised an exception."""
    return JobReturn(status=JobStatus.FAILED, _return_value=error)


def returned_value(result: JobReturn) -> Any:
    """Return what a job returned or raised; `JobReturn.return_value` raises the exception of a failed job."""
    return result._return_value


def raise_failure(result: JobReturn) -> None:
    """Raise what a failed job raised; `JobReturn.return_value` writes a line with all overrides first."""
    if result.status == JobStatus.FAILED:
        raise result._return_value


class LoaderState(NamedTuple):
    """Hydra's state when a composition raised, read from the frames of its traceback."""

    loader: ConfigLoaderImpl
    repository: IConfigRepository | None  # the configs the loader can reach; None before it was created
    cfg: DictConfig | None  # composed from the groups, with the overrides before `override`; None before that
    override: str | None  # the override that was being applied; None for an error elsewhere


def loader_state(error: Exception) -> LoaderState | None:
    """Return the state of the config loader from a traceback; None if the error does not come from composing."""
    found: LoaderState | None = None
    trace = error.__traceback__
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_locals
        if code is ConfigLoaderImpl._load_configuration_impl.__code__:
            found = LoaderState(names["self"], names.get("caching_repo"), names.get("cfg"), None)
        elif code is _APPLY_CODE and found is not None:
            override = names.get("override")
            found = found._replace(override=override.input_line if isinstance(override, Override) else None)
        trace = trace.tb_next
    return found


def config_repository(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str]) -> IConfigRepository:
    """Return the configs that a command line can reach."""
    return loader._parse_overrides_and_create_caching_repo(config_name, list(overrides))[1]


def apply_overrides(overrides: Sequence[Override], cfg: DictConfig) -> None:
    """Apply overrides of keys to a composed config, in place."""
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), cfg)


def raw_node(cfg: DictConfig | ListConfig, key: str | int) -> Any:
    """Return a node of a config without resolving it; None for a missing key."""
    node: Any = cfg
    return node._get_node(key, validate_access=False)


def observe_resolver(name: str, see: Callable[[Any], None]) -> None:
    """Call `see` with each value that a registered OmegaConf resolver returns."""
    plain = BaseContainer._resolvers[name]
    if hasattr(plain, "__wrapped__"):
        return

    @wraps(plain)
    def resolve(*args: Any) -> Any:
        value = plain(*args)
        see(value)
        return value

    BaseContainer._resolvers[name] = resolve


@contextmanager
def replaced_resolver(name: str, resolve: Callable[..., Any]) -> Iterator[None]:
    """Replace an OmegaConf resolver, which need not be registered, for a while."""
    plain = BaseContainer._resolvers.get(name)
    OmegaConf.register_new_resolver(name, resolve, replace=True)
    try:
        yield
    finally:
        OmegaConf.clear_resolver(name)
        if plain is not None:
            BaseContainer._resolvers[name] = plain


def resolver_names() -> list[str]:
    """Return the names of all registered OmegaConf resolvers."""
    return list(BaseContainer._resolvers)
