"""Expand `resume=` and `run=` on the command line into the overrides of the named run.

New overrides come last and win. `resume=auto` expands only to `resume.run=auto`: `plan.py` searches a run with the
same config once the config is composed. `run=<run directory>` is the shorthand of `eval.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fulgurite.config.compose import compose
from fulgurite.config.override_text import (
    AUTO,
    LAST,
    NOT_INHERITED,
    NOT_INHERITED_HYDRA,
    OF_TRAINING,
    is_below,
    last_value,
    options_first,
    override_key,
    quoted,
    refuse_unknown_options,
)
from fulgurite.config.schema import move_override
from fulgurite.config.tags import replace_tags
from fulgurite.config.yaml_limits import check_config_file
from fulgurite.core.context import current_context
from fulgurite.core.errors import UserError
from fulgurite.core.project import project_root
from fulgurite.core.redact import MASK
from fulgurite.resume.options import require_options
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint
from fulgurite.sources.answers import forget_answers, snapshot_of, using_snapshot, without_sources
from fulgurite.sources.snapshot import FOLDER, INDEX, SAVED
from fulgurite.trust.run_directories import check_inherited, check_weights
from fulgurite.trust.sources import Sources


def expand_shorthands(overrides: Sequence[str], config_name: str) -> list[str]:
    """Expand the shorthands in a command line without its program, and put its options first.

    Raises:
        UserError: The named run does not exist or cannot be resumed, `resume=` is combined with `-m`, or an option is
            unknown, lacks its value, has a wrong one, or excludes another.
    """
    refuse_unknown_options(overrides)
    _refuse_pickled_config(overrides)
    expanded = options_first(_expand(overrides, config_name))
    require_options(expanded)
    return expanded


def _refuse_pickled_config(arguments: Sequence[str]) -> None:
    for argument in arguments:
        name = argument.partition("=")[0]
        if len(name) > len("--") and "--experimental-rerun".startswith(name) and name != "--experiment":
            raise UserError(
                f"{argument}: unpickles a config, which could run code. Pass resume=<run directory> instead"
            )


def _expand(overrides: Sequence[str], config_name: str) -> list[str]:
    overrides = ["sweep.dry_run=true" if each == "--dry-run" else each for each in replace_tags(overrides)]
    prefix = "resume=" if config_name == "train" else "run="
    position = next((number for number, each in enumerate(overrides) if each.startswith(prefix)), None)
    if position is None:
        return overrides
    name = overrides[position].removeprefix(prefix).strip("'\"")
    if not name:
        raise UserError(f"{prefix}: has no value. Name a run directory, or remove {prefix}")
    others = [*overrides[:position], *overrides[position + 1 :]]
    if config_name == "eval":
        return _eval_overrides(name, others) if name != "null" else overrides
    if name == "null":
        return others
    if {"-m", "--multirun"} & set(others):
        raise UserError(f"resume={name}: a sweep starts several runs. Remove resume, or remove -m.")
    if name == AUTO:
        return [*others, f"resume.run={AUTO}"]
    run = _find_run(name, others)
    _use_sources_of(run, others)
    expanded = [*_merge_overrides(run, others, NOT_INHERITED), f"resume.run={quoted(run.folder)}"]
    if last_value(others, "resume.mode") in {None, "continue"}:
        expanded.append(f"hydra.run.dir={quoted(run.folder)}")
    return expanded


def _find_run(name: str, others: Sequence[str]) -> RunDirectory:
    if name != LAST:
        return RunDirectory.read(Path(name).expanduser().resolve(), argument=f"resume={name}")
    given = [override for override in others if not override.startswith(("-", "resume"))]
    run, skipped, runs = _newest_offline(given) or _newest(given)
    forget_answers()  # the run is composed from its own copies
    if run is None:
        raise UserError(
            f"resume={LAST}: {runs} holds no interrupted run. "
            "Start one without resume, or name a finished one: resume=<run directory>."
        )
    for newer in skipped:
        sys.stderr.write(f"resume={LAST}: skipped {newer.folder}, which has no checkpoint ({newer.reason})\n")
    return run


def _newest_offline(given: Sequence[str]) -> tuple[RunDirectory, list[RunDirectory], Path] | None:
    """Return the same as `_newest` from the newest copies of the sources, without asking one; None without a run."""
    logs = Path(last_value(given, "paths.log_dir") or project_root() / "logs").expanduser()
    kept = sorted(logs.glob(f"*/runs/*/{SAVED}/{FOLDER}/{INDEX}"), key=lambda file: file.stat().st_mtime)
    try:
        with without_sources(), using_snapshot(kept[-1].parents[2] if kept else None):
            run, skipped, runs = _newest(given)
    except Exception:  # noqa: BLE001 - a config is missing without its source
        return None
    return None if run is None else (run, skipped, runs)


def _newest(given: Sequence[str]) -> tuple[RunDirectory | None, list[RunDirectory], Path]:
    """Return the newest run to resume, the newer ones that cannot be, and the folder of the runs."""
    cfg = compose(given)
    runs = Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "runs"
    return *RunDirectory.newest_resumable(RunDirectory.newest_first(runs)), runs


def _eval_overrides(name: str, others: Sequence[str]) -> list[str]:
    """Return the overrides that evaluate the best checkpoint of a run."""
    run = RunDirectory.read(Path(name).expanduser().resolve(), argument=f"run={name}")
    _use_sources_of(run, others)
    overrides = _merge_overrides(run, others, OF_TRAINING)
    if last_value(others, "ckpt_path") is None:
        overrides.append(f"ckpt_path={quoted(check_weights(run.folder, best_checkpoint(run), Sources(others)))}")
    return [*overrides, f"run={quoted(run.folder)}"]


def _use_sources_of(run: RunDirectory, given: Sequence[str]) -> None:
    """Compose from the remote configs that the run has kept, unless the command line names the sources again."""
    if last_value(given, "hydra.searchpath") is None:
        current_context().snapshot = snapshot_of(run.folder, given)


def _merge_overrides(run: RunDirectory, given: Sequence[str], not_inherited: Sequence[str]) -> list[str]:
    """Return the inherited overrides of a run, then those given now, which replace overrides of the same key.

    The configs lack a key that the run added with a plus, so the new override gets one too.
    """
    given_keys = {override_key(override) for override in given}
    inherited = [override for override in _overrides_of(run) if not is_below(override_key(override), not_inherited)]
    check_inherited(run.folder, inherited, given)
    added = {override_key(override) for override in inherited if override.startswith("+")}
    kept = [override for override in inherited if override_key(override) not in given_keys]
    _refuse_masked(run, kept)
    bare = {text for text in given if override_key(text) in added and not text.startswith(("+", "~"))}
    return [*kept, *(f"++{override}" if override in bare else override for override in given)]


def _refuse_masked(run: RunDirectory, overrides: Sequence[str]) -> None:
    """Refuse to resume with `***` where the run was started with a secret, which no file of a run holds."""
    if lines := [
        f"{override}: {run.folder} does not hold this secret. Pass {override_key(override)}=<value> again, "
        f"or set it from the environment: {override_key(override)}=\\${{secret:<variable>}}."
        for override in overrides
        if MASK in override.partition("=")[2]
    ]:
        raise UserError("\n".join(lines))


def _overrides_of(run: RunDirectory) -> list[str]:
    overrides, hydra = (_read_yaml(run.folder / ".hydra" / name) for name in ("overrides.yaml", "hydra.yaml"))
    of_hydra = [str(override) for override in hydra["hydra"]["overrides"]["hydra"]]
    return [
        *map(move_override, overrides),
        *(text for text in of_hydra if not text.lstrip("+~").replace("/", ".").startswith(NOT_INHERITED_HYDRA)),
    ]


def _read_yaml(path: Path) -> Any:
    """Return the content of one of Hydra's files; interpolations in it refer to another config."""
    check_config_file(path)
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
