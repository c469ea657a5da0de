"""The Optuna study of a search: storage, trials, and replay of the sampler."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from fulgurite.config.hydra_targets import make_part
from fulgurite.core.errors import UserError
from fulgurite.study.sampler_state import PrivateSamplerState, State, pickled_state, refuse_unpickling_storage

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial, TrialState

STUDY_FILE = "study.db"
PRUNED, REASON, REPEATS = "pruned", "reason", "repeats"  # user attributes of trials
SWEEP_DIR = "sweep"  # user attribute of a study
LOCK_TIMEOUT_SECONDS = 60  # wait for another process of the search that has locked the SQLite file


def study_name(config: DictConfig, folder: Path) -> str:
    """Return `hydra.sweeper.study_name`, by default `<task_name>/<sweep>`."""
    return str(config.hydra.sweeper.get("study_name") or f"{config.get('task_name')}/{folder.name}")


def make_sampler_and_pruner(
    sweeper: DictConfig, grid: Callable[[], dict[str, list[Any]]]
) -> tuple[Any, Any, int | None]:
    """Return the sampler, the pruner or None, and the number of grid points or None."""
    sampler, num_points = make_part(sweeper.sampler, "hydra.sweeper.sampler"), None
    if hasattr(sampler, "func"):  # a partial: the GridSampler config of Hydra's plugin lacks the search space
        values = grid()
        sampler, num_points = sampler(values), math.prod(map(len, values.values()))
    pruner = make_part(sweeper.pruner, "hydra.sweeper.pruner") if sweeper.get("pruner") else None
    return sampler, pruner, num_points


def open_storage(sweeper: DictConfig, folder: Path) -> Any:
    """Open `hydra.sweeper.storage`, by default `study.db` in the sweep's directory."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(logging.WARNING)
    storage = sweeper.get("storage")
    if OmegaConf.is_config(storage):
        refuse_unpickling_storage(storage)
        return make_part(storage, "hydra.sweeper.storage")
    if not storage:
        _require_intact(folder.absolute() / STUDY_FILE)
    url = str(storage) if storage else f"sqlite:///{folder.absolute() / STUDY_FILE}"
    if url.startswith("postgresql://"):  # the driver of the extra `postgresql`; SQLAlchemy 2.1 has another default
        url = url.replace("postgresql", "postgresql+psycopg2", 1)
    options: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": LOCK_TIMEOUT_SECONDS}
    kind = url.partition(":")[0]  # the messages do not contain the URL, which may contain a password
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except ImportError as error:
        install = 'Run `pip install -e ".[postgresql]"`.' if kind.startswith("postgres") else "Install it."
        raise UserError(f"hydra.sweeper.storage: the driver for {kind} is not installed. {install}") from error
    except (SQLAlchemyError, ValueError) as error:
        lines = [line for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
        rule = "Set the URL of an existing database, e.g. postgresql://<user>@<host>/<database>."
        raise UserError(f"hydra.sweeper.storage: {kind} cannot be opened: {lines[0].strip()}. {rule}") from error


def _require_intact(file: Path) -> None:
    """Refuse a damaged study, of which Optuna would read one part or another."""
    if not file.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=LOCK_TIMEOUT_SECONDS)) as database:
            damage = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        return  # locked, or not readable: Optuna's own error names it
    except sqlite3.DatabaseError as error:
        damage = str(error)
    if damage != "ok":
        rule = "Restore a copy of the file, or start a new search. The runs of the trials are intact."
        raise UserError(f"{file}: is damaged ({damage.splitlines()[-1]}). {rule}")


class StoredStudy:
    """A study, loaded for each query, since trials report from other processes.

    Without a sampler it proposes no values, without a pruner it prunes no trial.
    """

    def __init__(self, storage: Any, name: str, sampler: Any = None, pruner: Any = None) -> None:
        import optuna

        self.storage, self.name = storage, name
        self.sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        self.pruner = pruner or optuna.pruners.NopPruner()
        self._sampler_state: State = {}

    def load(self) -> Study:
        """Load the study."""
        import optuna

        storage: Any = PrivateSamplerState(optuna.storages.get_storage(self.storage), self._sampler_state)
        try:
            return optuna.load_study(study_name=self.name, storage=storage, sampler=self.sampler, pruner=self.pruner)
        except KeyError as error:
            rule = "Set the hydra.sweeper.storage that the search was started with."
            raise UserError(f"hydra.sweeper.storage: does not contain the study {self.name!r}. {rule}") from error

    def create(self, directions: tuple[str, ...], folder: Path) -> None:
        """Create the study of a new search."""
        import optuna

        try:
            study = self._create(self.storage, list(directions))
        except optuna.exceptions.DuplicatedStudyError as error:
            sweep = self.load().user_attrs.get(SWEEP_DIR)
            rule = f"Resume it with sweep.resume={sweep}, or set another name." if sweep else "Set another name."
            raise UserError(
                f"hydra.sweeper.study_name={self.name}: the storage already contains this study. {rule}"
            ) from error
        study.set_user_attr(SWEEP_DIR, str(folder.absolute()))

    def trial(self, number: int) -> Trial:
        """Return a trial to write reports and attributes to."""
        import optuna

        study = StoredStudy(self.storage, self.name, pruner=self.pruner).load()
        study_id = self.storage.get_study_id_from_name(self.name)
        return optuna.trial.Trial(study, self.storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def replay_sampler(self, propose: Callable[[Study], Trial]) -> None:
        """Bring a new sampler to the state in which the resumed search needs it.

        A new sampler with the same seed would propose the first values again. So an in-memory copy of the study
        repeats every start of a trial, by `propose`, and every result, in the original order.
        """
        import optuna
        from optuna.trial import TrialState

        study, memory = self.load(), optuna.storages.InMemoryStorage()
        for number in range(self.storage.get_study_id_from_name(self.name)):
            # CMA-ES refuses a study with another ID, and IDs in memory count up from 0
            optuna.create_study(storage=memory, study_name=f"before {number}")
        replay = self._create(memory, study.directions)
        trials = study.get_trials(deepcopy=False)
        starts = [(trial.datetime_start, 0, trial) for trial in trials if trial.datetime_start is not None]
        ends = [(trial.datetime_complete, 1, trial) for trial in trials if trial.datetime_complete is not None]
        for _, is_end, trial in sorted(starts + ends, key=lambda event: (event[0], event[1], event[2].number)):
            if is_end:
                values = trial.values if trial.state == TrialState.COMPLETE else None
                tell_result(replay, trial.number, trial.state, values)
                continue
            if REPEATS in trial.user_attrs:
                replay.enqueue_trial(trial.params)
            copy = propose(replay)
            for step, value in trial.intermediate_values.items():
                copy.report(value, step)
        self._sampler_state.update(pickled_state(replay.get_trials(deepcopy=False)))

    def _create(self, storage: Any, directions: list[Any]) -> Study:
        import optuna

        return optuna.create_study(
            study_name=self.name, storage=storage, sampler=self.sampler, pruner=self.pruner, directions=directions
        )


def tell_result(study: Study, number: int, state: TrialState, values: list[float] | None) -> None:
    """Finish a trial."""
    try:
        study.tell(number, values=values, state=state)
    except RuntimeError as error:
        # GridSampler calls Study.stop at its last point, which Optuna allows in `optimize` only; the trial is finished
        if "Study.stop" not in str(error):
            raise
