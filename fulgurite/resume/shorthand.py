"""The words `resume=` and `run=` of a command line, written out as the overrides they stand for.

`resume=<run directory>` and `resume=last` bring the words back that the run was started with, so its config need not be
typed again; words given now come after them and win. `resume=auto` brings nothing back: it looks for a run that was
started with the same config, which is known only when the config is composed (`start.py`). `run=<run directory>` does
the same for `eval.py`.
"""

from __future__ import annotations

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
    override_key,
    quoted,
)
from fulgurite.config.schema import move_override
from fulgurite.config.tags import replace_tags
from fulgurite.core.errors import UserError
from fulgurite.runs.run_directory import RunDirectory, best_checkpoint


def expand_shorthands(words: Sequence[str], door: str) -> list[str]:
    """Return the words of a command line with the shorthands of this project written out.

    Args:
        words: The command line without the program.
        door: `train` or `eval`.

    Raises:
        UserError: A run that is named cannot be gone on from, or a sweep is asked to go on.
    """
    words = ["sweep.dry_run=true" if word == "--dry-run" else word for word in replace_tags(words)]
    short = "resume=" if door == "train" else "run="
    place = next((number for number, word in enumerate(words) if word.startswith(short)), None)
    if place is None:
        return words
    named = words[place].removeprefix(short).strip("'\"")
    others = [*words[:place], *words[place + 1 :]]
    if door == "eval":
        return _eval_overrides(named, others) if named not in {"", "null"} else words
    if named in {"", "null"}:
        return others
    if any(word in {"-m", "--multirun"} for word in others):
        raise UserError(f"resume={named}: is for one run, and -m starts several; leave out one of the two")
    if named == AUTO:
        return [*others, f"resume.run={AUTO}"]
    run = _found(named, others)
    if last_value(others, "resume.mode") not in {None, "continue"}:
        return [*_merge_overrides(run, others, NOT_INHERITED), f"resume.run={quoted(run.folder)}"]
    return [
        *_merge_overrides(run, others, NOT_INHERITED),
        f"resume.run={quoted(run.folder)}",
        f"hydra.run.dir={quoted(run.folder)}",
    ]


def _found(named: str, others: Sequence[str]) -> RunDirectory:
    if named != LAST:
        return RunDirectory.read(Path(named).expanduser().resolve(), argument=f"resume={named}")
    cfg = compose([word for word in others if not word.startswith(("-", "resume"))])
    runs = Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "runs"
    run = next((run for run in RunDirectory.newest_first(runs) if run.is_resumable()), None)
    if run is None:
        raise UserError(
            f"resume={LAST}: {runs} holds no run that stopped before its end; "
            "start one without resume, or name a finished one: resume=<run directory>"
        )
    return run


def _eval_overrides(named: str, others: Sequence[str]) -> list[str]:
    """Return the words that score the weights of a run."""
    run = RunDirectory.read(Path(named).expanduser().resolve(), argument=f"run={named}")
    words = _merge_overrides(run, others, OF_TRAINING)
    if last_value(others, "ckpt_path") is None:
        words.append(f"ckpt_path={quoted(best_checkpoint(run))}")
    return [*words, f"run={quoted(run.folder)}"]


def _merge_overrides(run: RunDirectory, given: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """Return the words of a run, without those for one start only, and behind them the words given now.

    A key that both have is taken from those given now. Where the run added it with a plus, it is not in the configs, so
    the new word needs one too.
    """
    given_keys = {override_key(word) for word in given}
    before = [word for word in _overrides_of(run) if not is_below(override_key(word), left_out)]
    added = {override_key(word) for word in before if word.startswith("+")}
    kept = [word for word in before if override_key(word) not in given_keys]
    bare = {word for word in given if override_key(word) in added and not word.startswith(("+", "~"))}
    return [*kept, *(f"++{word}" if word in bare else word for word in given)]


def _overrides_of(run: RunDirectory) -> list[str]:
    words, hydra = (_as_written(run.folder / ".hydra" / name) for name in ("overrides.yaml", "hydra.yaml"))
    its_own = [str(word) for word in hydra["hydra"]["overrides"]["hydra"]]
    return [
        *map(move_override, words),
        *(word for word in its_own if not word.lstrip("+~").replace("/", ".").startswith(NOT_INHERITED_HYDRA)),
    ]


def _as_written(path: Path) -> Any:
    """Return the content of a file of Hydra's; a word may hold an interpolation, for the config it will be part of."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
