"""Plan a resume while the config is composed, before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.config.override_text import AUTO, set_config_value
from fulgurite.config.schema import move_keys
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import torchrun_restart
from fulgurite.resume.config_diff import ConfigDiff, diff_configs
from fulgurite.runs.layout import CONTINUE, HOTSTART, STAGED_CONFIG_DIR
from fulgurite.runs.lock import is_locked
from fulgurite.runs.provenance import config_hash
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint
from fulgurite.validation.validate import validate


def plan_resume(config: DictConfig) -> None:
    """Put into a composed config what the run goes on from: its directory and its checkpoint.

    Does nothing where `resume.run` is null, unless torchrun starts the run again after a failure: it then goes on with
    what it had begun, if that is there. Otherwise `resume.run` becomes the directory of the run that is gone on
    from, or null where `auto` found none, and `ckpt_path` its newest whole checkpoint, unless one is named.

    Args:
        config: As composed, with its `hydra` part.

    Raises:
        ConfigError: Findings about the config, or about its differences from the run's own.
        UserError: The run cannot be gone on from.
    """
    asked, restarted = OmegaConf.select(config, "resume.run"), torchrun_restart()
    if not asked and not (restarted[0] and "resume" in config):
        return
    validate(config)
    task = _without_hydra(config)
    mode = str(config.resume.mode)
    if mode == CONTINUE and not asked:
        resume_in_place(config, task, _find_matching_run(config, task, torchrun=restarted[1]), explicit=False)
    elif mode == CONTINUE:
        run = (
            _find_matching_run(config, task)
            if asked == AUTO
            else RunDirectory.read(Path(asked), argument=f"resume={asked}")
        )
        resume_in_place(config, task, run, explicit=asked != AUTO)
    elif asked == AUTO:
        raise UserError(
            f"resume={AUTO} resume.mode={mode}: a new run is not gone on with; name the run whose weights it takes"
        )
    else:
        run = RunDirectory.read(Path(asked), argument=f"resume={asked}")
        if not config.get("ckpt_path"):
            # a run starts warm from where the optimizer's state belongs to the weights, and is tuned from the best
            last = run.folder / "checkpoints" / "last.ckpt"
            set_config_value(
                config, "ckpt_path", str(last if mode == HOTSTART and last.is_file() else best_checkpoint(run))
            )


def resume_in_place(config: DictConfig, task: DictConfig, run: RunDirectory | None, *, explicit: bool) -> None:
    """Put into a config that it goes on with a run in the same directory.

    Args:
        config: As composed, with its `hydra` part.
        task: The same without that part.
        run: The run; None begins a new one.
        explicit: The user has named the run, so a damaged last checkpoint is for the user to judge.

    Raises:
        ConfigError: The configs differ in what cannot be changed.
        UserError: Another process is at the run, or it has no whole checkpoint left.
    """
    if run is None:
        for key, nothing in (("run", None), ("reset", []), ("apply", [])):  # a new run has nothing to begin anew
            set_config_value(config, f"resume.{key}", nothing)
        return
    if rank() == 0 and is_locked(run.folder):
        pid = run.record.get("pid")
        raise UserError(f"resume={run.folder}: this run is locked by process {pid}. Wait for it to finish, or stop it.")
    diff = diff_configs(_saved_config(run.folder), task)
    if diff.refused:
        raise ConfigError([f"resume={run.folder}: {line}" for line in (*diff.refused, *diff.takes_effect)])
    set_config_value(config, "resume.apply", diff.applied)
    set_config_value(config, "resume.run", str(run.folder))
    set_config_value(config, "hydra.run.dir", str(run.folder))
    if config.hydra.output_subdir is not None:
        set_config_value(config, "hydra.output_subdir", STAGED_CONFIG_DIR)
    if not config.get("ckpt_path"):
        set_config_value(config, "ckpt_path", _checkpoint_of(run.folder, explicit=explicit))
    _report(diff)


def _find_matching_run(config: DictConfig, task: DictConfig, torchrun: str | None = None) -> RunDirectory | None:
    """Return the newest open run with the same config; None when there is none.

    Args:
        config: As composed, with its `hydra` part.
        task: The same without that part.
        torchrun: Which one must have started it; None takes any run.

    Where the directory is given (`hydra.run.dir=<folder>`), only that one can be meant.

    Raises:
        UserError: The directory that is given holds a run of another config.
    """
    wanted = config_hash(task)
    folder = Path(str(OmegaConf.select(config, "hydra.run.dir")))
    if not any(word.lstrip("+").startswith("hydra.run.dir=") for word in config.hydra.overrides.hydra):
        runs = RunDirectory.newest_first(folder.parent)
        same = (run for run in runs if run.record.get("config_hash") == wanted and run.is_resumable())
        return next((run for run in same if torchrun is None or run.record.get("torchrun") == torchrun), None)
    run = RunDirectory.of(folder.absolute())
    if run is not None and run.record.get("config_hash") != wanted:
        raise UserError(
            f"hydra.run.dir={folder}: holds a run of another config, so resume={AUTO} cannot go on with it; "
            f"see what differs with resume={folder}, or give another folder"
        )
    return run


def _checkpoint_of(folder: Path, *, explicit: bool) -> str | None:
    """Return the newest checkpoint of a run; None when it has saved none and begins again.

    Raises:
        UserError: The last one is damaged, and the run was named, so it is for the user to say what to do.
    """
    from fulgurite.checkpoints.manifest import newest_intact, verify  # imports torch

    path, damaged = newest_intact(folder / "checkpoints")
    last = folder / "checkpoints" / "last.ckpt"
    if explicit and path is not None and path != last and verify(last):
        raise UserError(
            f"resume={folder}: {damaged[0]}. The checkpoint before it is intact. "
            f"Pass ckpt_path={path}, or resume={AUTO}."
        )
    if path is None and damaged:
        raise UserError(f"resume={folder}: {'; '.join(damaged)}. No other checkpoint exists. Start a new run.")
    for line in damaged:
        sys.stderr.write(f"warning: {line}; resuming from {path}\n")
    if path is None and rank() == 0:
        sys.stderr.write(f"warning: resume={folder}: the run has no checkpoint and restarts from step 0\n")
    return str(path) if path is not None else None


def _report(diff: ConfigDiff) -> None:
    if rank() == 0:
        for line in diff.takes_effect:
            sys.stderr.write(f"resume: {line}\n")


def _saved_config(folder: Path) -> DictConfig:
    cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(cfg, DictConfig)
    return move_keys(cfg)


def _without_hydra(config: DictConfig) -> DictConfig:
    task = config.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task
