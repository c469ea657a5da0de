"""The study of a search: where it is stored, how it is opened, and a sampler brought to where it had stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.hydra_targets import make_part
from fulgurite.core.errors import UserError

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial, TrialState

STUDY_FILE = "study.db"
PRUNED, REASON, REPEATS = "pruned", "reason", "repeats"  # attributes of trials
SWEEP_DIR = "sweep"  # attribute of a study: the folder of its search
LOCK_TIMEOUT_SECONDS = 60  # seconds that a file may be locked by another process of the search


def study_name(config: DictConfig, folder: Path) -> str:
    """Return the name of a search's study: the one that was given, or its task and folder."""
    return str(config.hydra.sweeper.get("study_name") or f"{config.get('task_name')}/{folder.name}")


def make_sampler_and_pruner(
    sweeper: DictConfig, grid: Callable[[], dict[str, list[Any]]]
) -> tuple[Any, Any, int | None]:
    """Make the sampler and the pruner of a search.

    Args:
        sweeper: `hydra.sweeper`.
        grid: Returns all values of each key, for a sampler that tries every combination.

    Returns:
        Sampler, pruner or None, and how many combinations there are; None where that has no end.

    Raises:
        ConfigError: One of them does not take what it is given.
    """
    sampler, combinations = make_part(sweeper.sampler, "hydra.sweeper.sampler"), None
    if hasattr(sampler, "func"):  # a partial of Hydra's: the values are known only now
        values = grid()
        sampler, combinations = sampler(values), math.prod(map(len, values.values()))
    pruner = make_part(sweeper.pruner, "hydra.sweeper.pruner") if sweeper.get("pruner") else None
    return sampler, pruner, combinations


def open_storage(sweeper: DictConfig, folder: Path) -> Any:
    """Open where a search keeps its study; a database keeps no connection open in between.

    Args:
        sweeper: `hydra.sweeper`; its `storage` is null, a URL, or a node with a `_target_`.
        folder: The sweep's directory, which holds the database when none is named.

    Raises:
        UserError: It cannot be opened.
    """
    import optuna
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(logging.WARNING)
    where = sweeper.get("storage")
    if OmegaConf.is_config(where):
        return make_part(where, "hydra.sweeper.storage")
    url = str(where) if where else f"sqlite:///{folder.absolute() / STUDY_FILE}"
    if url.startswith("postgresql://"):  # the driver of our extra; SQLAlchemy 2.1 would take another one
        url = url.replace("postgresql", "postgresql+psycopg2", 1)
    options: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
    with _explain_storage_errors(url):
        return optuna.storages.RDBStorage(url, engine_kwargs=options)


@contextmanager
def _explain_storage_errors(url: str) -> Iterator[None]:
    """Tell why a database cannot be used, without its URL, which may hold a password."""
    import sqlalchemy

    kind = url.partition(":")[0]
    try:
        yield
    except ImportError as error:
        extra = '; pip install -e ".[postgresql]"' if kind.startswith("postgres") else "; install it"
        raise UserError(f"hydra.sweeper.storage: the driver for {kind} is not installed{extra}") from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        lines = [line for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
        rule = "give a URL, e.g. postgresql://<user>@<host>/<database>, of a database that is there"
        raise UserError(f"hydra.sweeper.storage: {kind} cannot be opened: {lines[0].strip()}; {rule}") from error


class StoredStudy:
    """A study and what Optuna needs to go on with it.

    It is loaded anew for each question: Optuna keeps what it has once read, and trials report from other processes.

    Args:
        storage: As `open_storage` returns it.
        name: In the storage.
        sampler: Proposes values; None where nothing is proposed.
        pruner: Judges reports; None judges none.
    """

    def __init__(self, storage: Any, name: str, sampler: Any = None, pruner: Any = None) -> None:
        import optuna

        self.storage, self.name = storage, name
        self.sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        self.pruner = pruner or optuna.pruners.NopPruner()

    def load(self) -> Study:
        """Return the study as it is now.

        Raises:
            UserError: It is not in the storage.
        """
        import optuna

        try:
            return optuna.load_study(
                study_name=self.name, storage=self.storage, sampler=self.sampler, pruner=self.pruner
            )
        except KeyError as error:
            raise UserError(
                f"study {self.name!r} is not in its storage; give the hydra.sweeper.storage that the search began with"
            ) from error

    def begin(self, directions: tuple[str, ...], folder: Path) -> None:
        """Make the study of a new search.

        Raises:
            UserError: There is one of that name.
        """
        import optuna

        try:
            study = optuna.create_study(
                study_name=self.name,
                storage=self.storage,
                sampler=self.sampler,
                pruner=self.pruner,
                directions=list(directions),
            )
        except optuna.exceptions.DuplicatedStudyError as error:
            owner = self.load().user_attrs.get(SWEEP_DIR)
            goes_on = f"go on with it by sweep.resume={owner}, or give" if owner else "give"
            raise UserError(
                f"hydra.sweeper.study_name={self.name}: is in the storage already; {goes_on} another name"
            ) from error
        study.set_user_attr(SWEEP_DIR, str(folder.absolute()))

    def trial(self, number: int) -> Trial:
        """Return a trial by which attributes and reports are written; it proposes nothing."""
        import optuna

        still = StoredStudy(self.storage, self.name, pruner=self.pruner).load()
        return optuna.trial.Trial(still, still.get_trials(deepcopy=False)[number]._trial_id)

    def tell(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        """Finish a trial."""
        _tell(self.load(), number, state, values)


def _tell(study: Study, number: int, state: TrialState, values: list[float] | None) -> None:
    try:
        study.tell(number, values=values, state=state)
    except RuntimeError as error:
        # a grid that is used up asks `optimize` to stop, which is not what runs here; the trial was told
        if "Study.stop" not in str(error):
            raise


def replay_sampler(stored: StoredStudy, propose: Callable[[Study], Trial]) -> None:
    """Bring the new sampler of a study to the state of one that has made all its proposals.

    A sampler that begins anew with the same seed would propose what was tried before. So in a study in memory it is
    asked for all trials and told of all ends, in the order in which that happened.

    Args:
        stored: The study that goes on, with a sampler that has proposed nothing.
        propose: Asks a study for a trial with all its values.
    """
    import optuna
    from optuna.trial import TrialState

    study, memory = stored.load(), optuna.storages.InMemoryStorage()
    for number in range(stored.storage.get_study_id_from_name(stored.name)):
        # samplers refuse another study by its number, which counts from 0 here
        optuna.create_study(storage=memory, study_name=f"before {number}")
    shadow = optuna.create_study(
        storage=memory,
        study_name=stored.name,
        sampler=stored.sampler,
        pruner=stored.pruner,
        directions=study.directions,
    )
    trials = study.get_trials(deepcopy=False)
    asked = [(trial.datetime_start, 0, trial) for trial in trials if trial.datetime_start is not None]
    told = [(trial.datetime_complete, 1, trial) for trial in trials if trial.datetime_complete is not None]
    for _, ends, trial in sorted(told + asked, key=lambda moment: (moment[0], moment[1], moment[2].number)):
        if ends:
            values = trial.values if trial.state == TrialState.COMPLETE else None
            _tell(shadow, trial.number, trial.state, values)
            continue
        if REPEATS in trial.user_attrs:
            shadow.enqueue_trial(trial.params)
        again = propose(shadow)
        for step, value in trial.intermediate_values.items():
            again.report(value, step)
