"""`sweep.resume=`: find the sweep, require the same grid, restore job states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from fulgurite.config.override_text import LAST, is_below, override_key, quoted
from fulgurite.core.errors import ConfigError, UserError
from fulgurite.core.formatting import counted
from fulgurite.core.redact import mask_override
from fulgurite.resume.plan import resume_in_place
from fulgurite.runs.layout import CONFIG, STAGED_CONFIG_DIR
from fulgurite.runs.lock import is_locked
from fulgurite.runs.provenance import IRRELEVANT, config_hash
from fulgurite.runs.run_directory import RunDirectory
from fulgurite.runs.sweep_ledger import GRID, LEDGER, first_plan, job_key, read_events
from fulgurite.sweeps.jobs import DONE, FAILED, KILLED, NEW, Job, describe_jobs

ARCHIVE_DIR = "earlier"  # folder below the sweep's for the runs of failed jobs that are run again
MAX_SHOWN = 6  # different overrides in a message
# what a run shows, beside the groups that config_hash leaves out
DISPLAY = (
    *("callbacks.progress_bar", "callbacks.model_summary"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)
WAIT_OR_STOP = "Wait for it to finish, or stop it."
KILLED_SILENTLY = "killed without reporting a reason, as by kill -9"


def find_sweep(asked: str, config: DictConfig, kind: str = GRID) -> Path:
    """Return the directory of the sweep to resume, `last` or a path."""
    sweep_dir = Path(str(config.hydra.sweep.dir))
    is_dir_given = any(item.lstrip("+").startswith("hydra.sweep.dir=") for item in config.hydra.overrides.hydra)
    if asked != LAST:
        folder = Path(asked).expanduser().absolute()
    elif is_dir_given:
        folder = sweep_dir.absolute()
    else:
        ledgers = sorted(sweep_dir.parent.glob(f"*/{LEDGER}"), key=lambda path: path.stat().st_mtime_ns)
        found = [path.parent for path in reversed(ledgers) if first_plan(read_events(path.parent), kind)]
        if not found:
            rule = "Start a sweep without sweep.resume first."
            raise UserError(f"sweep.resume={LAST}: {sweep_dir.parent} contains no sweep. {rule}")
        folder = found[0].absolute()
    if first_plan(read_events(folder), kind) is None:
        missing = f"contains no {LEDGER} of a {'grid' if kind == GRID else 'search'}"
        problem = missing if folder.is_dir() else "does not exist"
        raise UserError(f"sweep.resume={asked}: {problem}. Pass a sweep, e.g. logs/train/multiruns/<date>_<time>.")
    if is_locked(folder):
        raise UserError(f"sweep.resume={folder}: this sweep is locked by another process. {WAIT_OR_STOP}")
    return folder


def restore_job_states(jobs: Sequence[Job], folder: Path) -> None:
    """Restore the numbers and states of the jobs from the sweep's earlier starts."""
    events = read_events(folder)
    plan = first_plan(events)
    assert plan is not None
    numbers = {job["key"]: int(job["job"]) for job in plan["jobs"]}
    if numbers.keys() != {job.key for job in jobs}:
        _adopt_keys(jobs, plan["jobs"])
    if numbers.keys() != {job.key for job in jobs}:
        now = {override for overrides in _overrides_of(jobs) for override in overrides}
        planned = without_display([job["words"] for job in plan["jobs"]])
        before = {override for overrides in planned for override in overrides}
        counts = [f"{counted(len(jobs), 'job')} instead of {len(numbers)}"] if len(jobs) != len(numbers) else []
        raise different_sweep(folder, "grid", [*counts, *describe_changes(now, before)])
    last: dict[int, Mapping[str, Any]] = {}
    folders: dict[int, str] = {}
    for event in events:
        if "job" in event:
            last[event["job"]] = event
            folders[event["job"]] = event.get("folder", folders.get(event["job"], str(event["job"])))
    for job in jobs:
        job.number = numbers[job.key]
        if job.number in last:
            job.folder = job_folder(folder, folders[job.number], job.number)
            _set_state(job, last[job.number])


def job_folder(sweep: Path, name: str, number: int) -> Path:
    """Return the folder that the ledger of a sweep has for a job.

    Raises:
        UserError: It is not below the sweep, and holds no run of this job: a sweep of another origin could name any
            folder, which a resume moves or writes to.
    """
    folder = sweep / name
    if sweep.resolve() in folder.resolve().parents:
        return folder
    run = RunDirectory.of(folder)
    record: Any = run.record.get("sweep") if run is not None else None
    if isinstance(record, dict) and record.get("job") == number and Path(str(record.get("dir"))).absolute() == sweep:
        return folder
    raise UserError(f"sweep.resume={sweep}: {LEDGER} has {folder} for job {number}, outside of the sweep. Correct it.")


def _adopt_keys(jobs: Sequence[Job], planned: Sequence[Mapping[str, Any]]) -> None:
    """Give each job the key of the earlier job that has its overrides, those that change no result left out."""
    before = without_display([job["words"] for job in planned])
    keys: dict[str, list[str]] = {}
    for event, overrides in zip(planned, before, strict=True):
        keys.setdefault(job_key(overrides), []).append(event["key"])
    for job, overrides in zip(jobs, _overrides_of(jobs), strict=True):
        if found := keys.get(job_key(overrides)):
            job.key = found.pop(0)


def _overrides_of(jobs: Sequence[Job]) -> list[list[str]]:
    return without_display([[mask_override(override) for override in job.overrides] for job in jobs])


def without_display(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the overrides of each job without those that all jobs share and that change no result."""
    shared = set.intersection(*map(set, jobs)) if jobs else set()
    ignored = {override for override in shared if is_below(override_key(override), (*IRRELEVANT, *DISPLAY))}
    return [[override for override in job if override not in ignored] for job in jobs]


def resume_overrides(job: Job, cfg: DictConfig) -> list[str]:
    """Set the overrides that resume a killed job, and return what prevents that."""
    run = RunDirectory.of(job.folder) if job.folder is not None else None
    if run is None or job.folder is None or "resume" not in cfg or not (job.folder / CONFIG).is_file():
        job.state = NEW  # it left nothing to resume
        return []
    ckpt_path = cfg.ckpt_path
    with read_write(cfg), open_dict(cfg):
        cfg.ckpt_path = cfg.ckpt_sha256 = None
        task = cfg.copy()
        del task["hydra"]
    try:
        resume_in_place(cfg, task, run, is_named=False)
    except UserError as error:
        return str(error).splitlines()
    job.resume_overrides = [f"resume.run={quoted(job.folder)}", f"hydra.output_subdir={STAGED_CONFIG_DIR}"]
    if cfg.ckpt_path or not ckpt_path:
        resumed = quoted(Path(cfg.ckpt_path)) if cfg.ckpt_path else "null"
        job.resume_overrides += [f"ckpt_path={resumed}", "ckpt_sha256=null"]
    return []


def has_other_config(job: Job, cfg: DictConfig) -> bool:
    """Return whether a job was done with another config, because a file has changed."""
    run = RunDirectory.of(job.folder) if job.folder is not None else None
    return run is not None and run.record.get("config_hash") not in {None, config_hash(cfg)}


def archive_failed_job(job: Job, folder: Path) -> str | None:
    """Move the run of a failed job, if it left one, to `earlier/<job>-<n>`."""
    if job.folder is None or not job.folder.is_dir():
        return None
    (folder / ARCHIVE_DIR).mkdir(exist_ok=True)
    num_archived = len(list((folder / ARCHIVE_DIR).glob(f"{job.number}-*")))
    archived = f"{ARCHIVE_DIR}/{job.number}-{num_archived + 1}"
    job.folder.rename(folder / archived)
    return archived


def _set_state(job: Job, event: Mapping[str, Any]) -> None:
    """Set a job's state from its run.json, or else from its last ledger event."""
    assert job.folder is not None
    run = RunDirectory.of(job.folder)
    status = run.record.get("status") if run is not None else event["event"]
    job.reason = str((run.record.get("reason") if run is not None else event.get("reason")) or "")
    if status == "running":
        if is_locked(job.folder):
            raise UserError(f"{job.folder}: job {job.number} is locked by another process. {WAIT_OR_STOP}")
        job.reason = KILLED_SILENTLY
    job.state = {"done": DONE, "pruned": DONE, FAILED: FAILED, KILLED: KILLED, "running": KILLED}.get(str(status), NEW)


def different_sweep(folder: Path, what: str, changes: Sequence[str]) -> ConfigError:
    """Return the error for a grid or search that differs from the one to resume."""
    shown = f" ({', '.join(changes)})" if changes else ""
    remedy = "Pass the original values, or drop sweep.resume to start a new sweep."
    return ConfigError([f"sweep.resume={folder}: this command defines a different {what}{shown}. {remedy}"])


def describe_changes(now: set[str], before: set[str]) -> list[str]:
    """Return e.g. `["added seed=3", "removed seed=4"]`."""
    lines = []
    for change, overrides in (("added", sorted(now - before)), ("removed", sorted(before - now))):
        if overrides:
            more = f" and {len(overrides) - MAX_SHOWN} more" if len(overrides) > MAX_SHOWN else ""
            lines.append(f"{change} {' '.join(overrides[:MAX_SHOWN])}{more}")
    return lines


def describe_states(jobs: Sequence[Job], *, retry: bool) -> str:
    """Return e.g. `3 done, job 3 to resume, 2 to start`."""
    by_state = {state: [job for job in jobs if job.state == state] for state in (DONE, KILLED, FAILED, NEW)}
    names = [describe_jobs(by_state[state], jobs) if by_state[state] else "" for state in (KILLED, FAILED)]
    return summarize_states(len(by_state[DONE]), names, len(by_state[NEW]), retry=retry)


def summarize_states(num_done: int, names: Sequence[str], num_new: int, *, retry: bool) -> str:
    """Return states as text, with the names of the killed and the failed jobs."""
    killed, failed = names
    resumed = f"{killed} to resume" if killed else ""
    retried = f"{failed} {'to retry' if retry else 'failed'}" if failed else ""
    return ", ".join(filter(None, [f"{num_done} done", resumed, retried, f"{num_new} to start" if num_new > 0 else ""]))
