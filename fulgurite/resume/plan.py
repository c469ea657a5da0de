"""Plan a resume while the config is composed, before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.checkpoints.manifest import manifest_epoch, newest_intact, verify
from fulgurite.config.override_text import AUTO, is_hydra_overridden, set_config_value
from fulgurite.config.schema import move_keys
from fulgurite.config.yaml_limits import check_config_file
from fulgurite.core.errors import ConfigError, UserError, printable
from fulgurite.core.rank_logging import rank
from fulgurite.distributed.launch_env import torchrun_restart
from fulgurite.live.document.history import live_value
from fulgurite.resume.config_diff import diff_configs
from fulgurite.runs.layout import CONFIG, CONTINUE, HOTSTART, STAGED_CONFIG_DIR
from fulgurite.runs.lock import is_locked, refuse_links
from fulgurite.runs.provenance import config_hash
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint
from fulgurite.trust.expansion import check_expansion
from fulgurite.trust.run_directories import check_weights
from fulgurite.trust.sources import current_sources
from fulgurite.validation.validate import require_valid


def plan_resume(config: DictConfig) -> None:
    """Set the directory and the checkpoint to resume from in a composed config with its `hydra` node.

    Sets nothing without `resume.run`, unless torchrun restarts the run after a failure: then the run that it started
    resumes. Otherwise `resume.run` becomes the directory of that run, or null if `auto` finds none, and `ckpt_path` its
    newest intact checkpoint unless the user sets one.

    Raises:
        ConfigError: The config is invalid, or differs from the run's in a key that cannot change.
        UserError: The run cannot be resumed.
    """
    name, (is_restart, torchrun) = OmegaConf.select(config, "resume.run"), torchrun_restart()
    if not name and not (is_restart and "resume" in config):
        return
    require_valid(config)
    task = config.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    mode = str(config.resume.mode)
    is_named = bool(name) and name != AUTO
    run: RunDirectory | None = None
    if is_named:
        run = RunDirectory.read(Path(name), argument=f"resume={name}")
    elif mode == CONTINUE:
        run = _find_matching_run(config, task, torchrun=None if name else torchrun)
        if run is None and name and rank() == 0:
            sys.stderr.write(f"resume={AUTO}: no unfinished run has this config. This starts a new run\n")
    elif name:
        raise UserError(
            f"resume={AUTO}: resume.mode={mode} starts a new run. Name the run that holds the weights: "
            "resume=<run directory>."
        )
    if mode == CONTINUE:
        resume_in_place(config, task, run, is_named=is_named)
    elif run is not None and not config.get("ckpt_path"):
        # hotstart: the weights that the optimizer's state belongs to; weights: the best
        last = run.folder / "checkpoints" / "last.ckpt"
        path = last if mode == HOTSTART and last.is_file() else best_checkpoint(run)
        set_config_value(config, "ckpt_path", str(check_weights(run.folder, path, current_sources())))


def resume_in_place(config: DictConfig, task: DictConfig, run: RunDirectory | None, *, is_named: bool) -> None:
    """Make a config resume a run in its own directory; without one it starts a new run.

    `task` is the config without its `hydra` node. In a run that the user named, a damaged last checkpoint is an error.

    Raises:
        ConfigError: The config differs from the run's in a key that cannot change.
        UserError: Another process has locked the run, or its checkpoints are damaged.
    """
    if run is None:
        for key, value in (("run", None), ("reset", []), ("apply", [])):
            set_config_value(config, f"resume.{key}", value)
        return
    if rank() == 0 and is_locked(run.folder):
        pid = run.record.get("pid")
        raise UserError(f"resume={run.folder}: this run is locked by process {pid}. Wait for it to finish, or stop it.")
    refuse_links(run.folder)  # before a log file of the run is opened
    check_config_file(run.folder / CONFIG)
    saved = OmegaConf.load(run.folder / CONFIG)
    assert isinstance(saved, DictConfig)
    check_expansion(saved)
    diff = diff_configs(move_keys(saved), task)
    if diff.rejected:
        raise ConfigError([f"resume={run.folder}: {line}" for line in diff.rejected])
    set_config_value(config, "resume.apply", diff.applied)
    set_config_value(config, "resume.run", str(run.folder))
    set_config_value(config, "hydra.run.dir", str(run.folder))
    if config.hydra.output_subdir is not None:
        set_config_value(config, "hydra.output_subdir", STAGED_CONFIG_DIR)
    if not config.get("ckpt_path"):
        set_config_value(config, "ckpt_path", _find_checkpoint(run.folder, is_named=is_named))
    _require_epochs(config, run.folder)
    if rank() == 0:
        sys.stderr.writelines(f"resume: {printable(line)}\n" for line in diff.takes_effect)


def _require_epochs(config: DictConfig, run: Path) -> None:
    """Refuse a maximum of epochs below those that the checkpoint has trained; a live edit may have raised it."""
    limit, path = OmegaConf.select(config, "trainer.max_epochs"), config.get("ckpt_path")
    if isinstance(limit, int) and isinstance(raised := live_value(run, "max_epochs"), int):
        limit = -1 if raised == -1 else max(limit, raised)
    epoch = manifest_epoch(Path(path)) if path else None
    if isinstance(limit, int) and limit != -1 and epoch is not None and limit < epoch + 1:
        raise ConfigError(
            [f"trainer.max_epochs={limit}: the run is in epoch {epoch}, counted from 0. Set {epoch + 1} or more."]
        )


def _find_matching_run(config: DictConfig, task: DictConfig, torchrun: str | None) -> RunDirectory | None:
    """Choose a run with the same config by `newest_resumable`; with `hydra.run.dir=<folder>` only in that folder.

    With the identity of a torchrun, choose among the runs that it started.
    """
    wanted = config_hash(task)
    folder = Path(str(OmegaConf.select(config, "hydra.run.dir")))
    if not is_hydra_overridden(config, "hydra.run.dir"):
        runs = RunDirectory.newest_first(folder.parent)
        same = (run for run in runs if run.record.get("config_hash") == wanted)
        mine = (run for run in same if torchrun is None or run.record.get("torchrun") == torchrun)
        return RunDirectory.newest_resumable(mine)[0]
    run = RunDirectory.of(folder.absolute())
    if run is not None and run.record.get("config_hash") != wanted:
        raise UserError(
            f"hydra.run.dir={folder}: holds a run with another config, which resume={AUTO} cannot resume. "
            f"Pass resume={folder} to see the differences, or set another folder."
        )
    return run


def _find_checkpoint(folder: Path, *, is_named: bool) -> str | None:
    """Return the newest intact checkpoint of a run; None if the run saved none and restarts from step 0."""
    path, damaged = newest_intact(folder / "checkpoints")
    last = folder / "checkpoints" / "last.ckpt"
    if is_named and path is not None and path != last and verify(last):
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
