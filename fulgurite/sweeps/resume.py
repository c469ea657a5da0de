"""`sweep.resume=`: which sweep goes on, whether it is the same grid, and what is left of each of its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from fulgurite.config.override_text import LAST, quoted
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.redact import shown_word
from fulgurite.resume.plan import resume_in_place
from fulgurite.runs.layout import STAGED_CONFIG_DIR
from fulgurite.runs.lock import is_locked
from fulgurite.runs.provenance import config_hash
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.runs.sweep_ledger import GRID, LEDGER, plan_of, read
from fulgurite.sweeps.jobs import DONE, FAILED, KILLED, NEW, Job, describe_jobs

ARCHIVE_DIR = "earlier"  # folder in the sweep's for what failed jobs had left when they were run anew
MAX_SHOWN = 6  # words that differ and are named


def find_sweep(asked: str, config: DictConfig, kind: str = GRID) -> Path:
    """Return the directory of the sweep that is to go on.

    Args:
        asked: `last` or a directory.
        config: The sweep's config with Hydra's part.
        kind: Of sweep.

    Raises:
        UserError: There is none, or another process is at it.
    """
    what = "grid" if kind == GRID else "search"
    wanted = Path(str(config.hydra.sweep.dir))
    given = any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in config.hydra.overrides.hydra)
    if asked != LAST:
        folder = Path(asked).expanduser().absolute()
    elif given:
        folder = wanted.absolute()
    else:
        ledgers = sorted(wanted.parent.glob(f"*/{LEDGER}"), key=lambda path: path.stat().st_mtime_ns)
        found = [path.parent for path in reversed(ledgers) if plan_of(read(path.parent), kind)]
        if not found:
            raise UserError(f"sweep.resume={LAST}: {wanted.parent} holds no sweep; start one without sweep.resume")
        folder = found[0].absolute()
    if plan_of(read(folder), kind) is None:
        wrong = f"holds no {LEDGER} of a {what}" if folder.is_dir() else "there is no such folder"
        raise UserError(f"sweep.resume={asked}: {wrong}; name a sweep, e.g. logs/train/multiruns/<date>_<time>")
    if is_locked(folder):
        raise UserError(f"sweep.resume={folder}: another process is at it; wait for its end, or end it")
    return folder


def restore_job_states(jobs: Sequence[Job], folder: Path) -> None:
    """Give the jobs of a command line the numbers they had, and say what became of them.

    Args:
        jobs: As the command line gives them; changed in place.
        folder: The sweep's directory.

    Raises:
        ConfigError: The grid is another one.
        UserError: A job is being run by another process.
    """
    events = read(folder)
    plan = plan_of(events)
    assert plan is not None
    numbers = {job["key"]: int(job["job"]) for job in plan["jobs"]}
    if numbers.keys() != {job.key for job in jobs}:
        raise ConfigError([f"sweep.resume={folder}: {_describe_difference(jobs, plan['jobs'])}"])
    told: dict[int, Mapping[str, Any]] = {}
    folders: dict[int, str] = {}
    for event in events:
        if "job" in event:
            told[event["job"]] = event
            folders[event["job"]] = event.get("folder", folders.get(event["job"], str(event["job"])))
    for job in jobs:
        job.number = numbers[job.key]
        if job.number in told:
            job.folder = folder / folders[job.number]
            _set_state(job, told[job.number])


def resume_overrides(job: Job, cfg: DictConfig) -> list[str]:
    """Find what a killed job goes on from and put the words for it into the job.

    Args:
        job: One that was killed.
        cfg: Its config, as composed now, with Hydra's part.

    Returns:
        What forbids that, one line each.
    """
    run = RunDirectory.of(job.folder) if job.folder is not None else None
    if run is None or job.folder is None or "resume" not in cfg or not (job.folder / ".hydra/config.yaml").is_file():
        job.state = NEW  # what is there is nothing to go on from
        return []
    given = cfg.ckpt_path
    with read_write(cfg), open_dict(cfg):
        cfg.ckpt_path = cfg.ckpt_sha256 = None
        task = cfg.copy()
        del task["hydra"]
    try:
        resume_in_place(cfg, task, run, explicit=False)
    except UserError as error:
        return str(error).splitlines()
    job.more = [f"resume.run={quoted(job.folder)}", f"hydra.output_subdir={STAGED_CONFIG_DIR}"]
    if cfg.ckpt_path or not given:
        job.more += [f"ckpt_path={quoted(Path(cfg.ckpt_path)) if cfg.ckpt_path else 'null'}", "ckpt_sha256=null"]
    return []


def has_other_config(job: Job, cfg: DictConfig) -> bool:
    """Tell whether a job was done with another config than the one composed now, because a file has changed."""
    run = RunDirectory.of(job.folder) if job.folder is not None else None
    return run is not None and run.record.get("config_hash") not in {None, config_hash(cfg)}


def archive_failed_job(job: Job, folder: Path) -> Path | None:
    """Move what a job has left to `earlier/<job>-<n>`, so that it can be run anew; None where it has left nothing.

    Args:
        job: One that failed.
        folder: The sweep's directory.
    """
    if job.folder is None or not job.folder.is_dir():
        return None
    (folder / ARCHIVE_DIR).mkdir(exist_ok=True)
    taken = len(list((folder / ARCHIVE_DIR).glob(f"{job.number}-*")))
    kept = folder / ARCHIVE_DIR / f"{job.number}-{taken + 1}"
    job.folder.rename(kept)
    return kept


def _set_state(job: Job, event: Mapping[str, Any]) -> None:
    """Set a job's state by its run.json, or where it has none by the last that the ledger says of it."""
    assert job.folder is not None
    run = RunDirectory.of(job.folder)
    status = run.record.get("status") if run is not None else event["event"]
    job.reason = str((run.record.get("reason") if run is not None else event.get("reason")) or "")
    if status == "running":
        if is_locked(job.folder):
            raise UserError(f"{job.folder}: another process is at job {job.number}; wait for its end, or end it")
        job.reason = "ended without a word, as by kill -9"
    job.state = {"done": DONE, "pruned": DONE, FAILED: FAILED, KILLED: KILLED, "running": KILLED}.get(str(status), NEW)


def _describe_difference(jobs: Sequence[Job], before: Sequence[Mapping[str, Any]]) -> str:
    """Return in what the grid of a command line is not that of a ledger."""
    now = {shown_word(word) for job in jobs for word in job.words}
    then = {str(word) for job in before for word in job["words"]}
    parts = [f"{len(jobs)} jobs instead of {len(before)}"] if len(jobs) != len(before) else []
    parts += list(only("only now", now - then)) + list(only("only then", then - now))
    return (
        f"the grid is another one{': ' if parts else ''}{'; '.join(parts)}; give the same values, "
        "or start a sweep of its own without sweep.resume"
    )


def only(when: str, words: set[str]) -> Iterator[str]:
    """Yield e.g. `only now seed=3 seed=4`; nothing for no words."""
    if words:
        more = f" and {len(words) - MAX_SHOWN} more" if len(words) > MAX_SHOWN else ""
        yield f"{when} {' '.join(sorted(words)[:MAX_SHOWN])}{more}"


def describe_states(jobs: Sequence[Job], *, retry: bool) -> str:
    """Return what is to be done about the jobs of a sweep that goes on, e.g. `3 done, job 3 goes on, 2 to start`."""
    done = sum(job.state == DONE for job in jobs)
    new = sum(job.state == NEW for job in jobs)
    parts = [f"{done} done"]
    for state, what in ((KILLED, "to go on"), (FAILED, "to be tried again" if retry else "failed")):
        some = [job for job in jobs if job.state == state]
        parts += [f"{describe_jobs(some, jobs)} {what}"] if some else []
    return ", ".join([*parts, f"{new} to start"] if new else parts)
