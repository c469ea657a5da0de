"""Keep the pickles of samplers in this process: Optuna's CMA-ES writes them into the storage, and loads what it finds.

Whoever can write to a database of studies could otherwise run code in each process that proposes a trial.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.target_policy import TargetNotFound, locate
from fulgurite.config.view import leaves
from fulgurite.core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

PICKLES = re.compile(r"(sep)?cma:.*optimizer")  # keys of system attributes of trials
OWN_STATE = "optuna.samplers._cmaes"  # the module whose samplers have those keys
UNPICKLERS = ("pickle", "cloudpickle", "dill", "joblib")
State = dict[int, dict[str, Any]]  # pickles by number of the trial and key


class PrivateSamplerState:
    """A storage of Optuna that keeps pickled attributes of trials in `state`, a dictionary of this process."""

    def __init__(self, storage: Any, state: State) -> None:
        self._storage, self._state = storage, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep a pickle, and write any other attribute."""
        if PICKLES.match(key):
            self._state.setdefault(self._storage.get_trial_number_from_id(trial_id), {})[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)

    def get_all_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        """Return the trials with the pickles of this process.

        Raises:
            UserError: The storage has a pickle, which this library does not write.
        """
        return [self._with_state(trial) for trial in self._storage.get_all_trials(*args, **kwargs)]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as `get_all_trials` does."""
        return self._with_state(self._storage.get_trial(trial_id))

    def _with_state(self, trial: FrozenTrial) -> FrozenTrial:
        attributes: Mapping[str, Any] = trial.system_attrs
        if found := next(filter(PICKLES.match, attributes), None):
            rule = "Start a new search: this one is of an earlier version, or somebody has changed it."
            raise UserError(
                f"hydra.sweeper.storage: trial {trial.number} has the pickle {found}, which could run code. {rule}"
            )
        if own := self._state.get(trial.number):
            trial = copy(trial)
            trial.system_attrs = {**attributes, **own}
        return trial


def pickled_state(trials: list[FrozenTrial]) -> State:
    """Return the pickles of trials in memory, as a replayed sampler made them."""
    return {
        trial.number: {key: value for key, value in trial.system_attrs.items() if PICKLES.match(key)}
        for trial in trials
    }


def refuse_unpickling_sampler(sampler: BaseSampler, *, is_own_storage: bool) -> None:
    """Refuse a sampler of another package that may unpickle what it finds in a storage.

    Its module, or that of a sampler in it, imports a package that unpickles, and somebody else may have written the
    storage.
    """
    if is_own_storage:
        return
    for kind in _kinds(sampler, set()):
        names = vars(sys.modules[kind.__module__])
        if kind.__module__ != OWN_STATE and any(name in names for name in UNPICKLERS):
            rule = "Use a sampler of Optuna, or start a new search without hydra.sweeper.storage"
            raise ConfigError(
                [f"hydra.sweeper.sampler: {kind.__qualname__} may unpickle what it finds in a storage. {rule}"]
            )


def _kinds(sampler: Any, seen: set[int]) -> Iterator[type]:
    """Yield the classes of a sampler and of the samplers in its attributes."""
    from optuna.samplers import BaseSampler

    if not isinstance(sampler, BaseSampler) or id(sampler) in seen:
        return
    seen.add(id(sampler))
    yield from (kind for kind in type(sampler).__mro__ if kind not in (BaseSampler, object))
    for part in vars(sampler).values():
        for each in part if isinstance(part, (list, tuple)) else [part]:
            yield from _kinds(each, seen)


def refuse_unpickling_storage(storage: DictConfig) -> None:
    """Refuse the storages that unpickle what they read from a server: those of Redis, under whatever name."""
    for key, target in leaves(OmegaConf.to_container(storage, resolve=True)):
        if key.rpartition(".")[2] != "_target_" or not str(target).startswith("optuna."):
            continue
        try:
            found = locate(str(target))
        except TargetNotFound:
            continue  # `make_part` reports it
        if "Redis" in getattr(found, "__qualname__", ""):
            rule = "Set the URL of a database, e.g. postgresql://<user>@<host>/<database>"
            raise ConfigError([f"hydra.sweeper.storage.{key}: {target} unpickles what a server sends. {rule}"])
