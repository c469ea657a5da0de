"""Restart a training that ran out of memory once, with half the batch size and twice the accumulation.

`.hydra/` and config_hash keep the requested config, so that `resume=` finds the run; run.json records the new values.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.compat.hydra import is_sweep_job
from fulgurite.config.override_text import is_below, last_value, override_key, quoted
from fulgurite.core.context import current_context
from fulgurite.core.errors import OUT_OF_MEMORY_NOTE, FulguriteError
from fulgurite.core.proc import read_stat
from fulgurite.core.rank_logging import RankedLogger, rank
from fulgurite.runs.provenance import config_hash, halved_from

log = RankedLogger(__name__)

NODE = "callbacks.oom_backoff"
# Lightning counts these in batches when they are integers
IN_BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval", "overfit_batches")
POLL_SECONDS = 0.5
RANK_ZERO_EXIT_SECONDS = 5.0  # from the note until rank 0 counts as blocked in a collective


class RetryWithSmallerBatch(FulguriteError):
    """A run that ran out of memory restarts with `changes`, by key, in `cfg`.

    With `restart`, the command with all its processes restarts, instead of the task in this process.
    """

    def __init__(self, cfg: DictConfig, changes: dict[str, Any], *, restart: bool) -> None:
        super().__init__("out of memory: the run restarts with half the batch size")
        self.cfg, self.changes, self.restart = cfg, changes, restart


def run_with_backoff(task: Callable[[DictConfig], dict[str, float]], cfg: DictConfig) -> dict[str, float]:
    """Run a task; with `callbacks=oom_backoff` retry it once with half the batch size after running out of memory."""
    if not _is_enabled(cfg):
        return task(cfg)
    folder = Path(cfg.paths.output_dir)
    current_context().managed_runs.add(str(folder))
    if rank() == 0:
        (folder / OUT_OF_MEMORY_NOTE).unlink(missing_ok=True)  # of a run that was killed
    try:
        with _watch_for_note(cfg):
            return task(cfg)
    except RetryWithSmallerBatch as error:
        retry_cfg, changes, restart = error.cfg, error.changes, error.restart
    finally:
        current_context().managed_runs.discard(str(folder))
    # outside the handler: the traceback refers to the tensors that filled the memory
    if restart:
        _restart(changes, folder)
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return task(retry_cfg)


def plan_retry(cfg: DictConfig) -> RetryWithSmallerBatch | None:
    """Return how to restart a run that just failed; None if it must not restart."""
    path = Path(cfg.paths.output_dir) / OUT_OF_MEMORY_NOTE
    if not _is_enabled(cfg) or rank() != 0 or not path.is_file():
        return None
    with suppress(FileNotFoundError):  # the watching thread was faster
        note = json.loads(path.read_text())
        path.unlink()
        if obstacle := _find_obstacle(cfg, note):
            log.warning("callbacks.oom_backoff: no restart: %s", obstacle)
            return None
        return _halve_batch(cfg, restart=note["restart"])
    return None


def _is_enabled(cfg: DictConfig) -> bool:
    is_group = isinstance(cfg.get("callbacks"), DictConfig)
    return is_group and OmegaConf.select(cfg, NODE) is not None and not halved_from(cfg)


def _find_obstacle(cfg: DictConfig, note: dict[str, Any]) -> str:
    size = OmegaConf.select(cfg, "data.batch_size")
    if str(Path(cfg.paths.output_dir)) not in current_context().managed_runs:
        return "the run was called from Python. Call it again with half the data.batch_size"
    if note["foreign"]:
        return "another program started the processes, or they are on several machines. Restart them there"
    if note["restart"] and not Path("/proc/self/environ").exists():
        return "several processes can be restarted on Linux only"
    if note["restart"] and is_sweep_job():
        return "a sweep job with several processes cannot be restarted alone"
    if not isinstance(size, int) or size < 2 or size % 2:
        return f"data.batch_size={size} cannot be halved"
    return ""


def _halve_batch(cfg: DictConfig, *, restart: bool) -> RetryWithSmallerBatch:
    from fulgurite.checkpoints.manifest import manifest_step, newest_intact

    folder, size, trainer = Path(cfg.paths.output_dir), cfg.data.batch_size, cfg.trainer
    accumulation = 2 * (trainer.get("accumulate_grad_batches") or 1)
    changes: dict[str, Any] = {"data.batch_size": size // 2, "trainer.accumulate_grad_batches": accumulation}
    changes |= {f"trainer.{key}": trainer[key] * 2 for key in IN_BATCHES if type(trainer.get(key)) is int}
    changes |= {f"{NODE}.halved_from.batch_size": size, f"{NODE}.halved_from.config_hash": config_hash(cfg)}
    checkpoint, damaged = newest_intact(folder / "checkpoints")
    for line in damaged:
        log.warning("%s", line)
    if checkpoint is not None:
        changes |= {"ckpt_path": str(checkpoint), "ckpt_sha256": None}
    log.warning(
        "out of memory with data.batch_size=%d: restarting with data.batch_size=%d "
        "trainer.accumulate_grad_batches=%d from step %s",
        size,
        size // 2,
        accumulation,
        f"{manifest_step(checkpoint):.0f} in {checkpoint}" if checkpoint else "0",
    )
    changed = cfg.copy()
    with read_write(changed), open_dict(changed):
        for key, value in changes.items():
            OmegaConf.update(changed, key, value, force_add=True)
        if "resume" in changed and (checkpoint is not None or not changed.resume.run):
            changed.resume = {"run": str(folder), "mode": "continue", "reset": [], "apply": []}
    return RetryWithSmallerBatch(changed, changes, restart=restart)


@contextmanager
def _watch_for_note(cfg: DictConfig) -> Iterator[None]:
    """Restart from a thread when rank 0 is blocked in a collective with a rank that ran out of memory."""
    done, note = Event(), Path(cfg.paths.output_dir) / OUT_OF_MEMORY_NOTE

    def watch() -> None:
        seconds = 0.0
        while not done.wait(POLL_SECONDS):
            seconds = seconds + POLL_SECONDS if note.exists() else 0.0
            if seconds < RANK_ZERO_EXIT_SECONDS or not json.loads(note.read_text())["restart"]:
                continue
            if (retry := plan_retry(cfg)) is not None:
                _restart(retry.changes, note.parent)

    if rank() == 0:
        Thread(target=watch, name="out-of-memory-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _restart(changes: dict[str, Any], folder: Path) -> NoReturn:
    """Kill the other processes of the run, and replace this one by its command with changed overrides."""
    import __main__
    from fulgurite.checkpoints.manifest import manifest_step
    from fulgurite.loggers.metrics_csv import drop_rows_from

    for path in Path("/proc").glob("[0-9]*"):
        if read_stat(int(path.name))[1:2] == [str(os.getpid())]:
            with suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)
    drop_rows_from(folder, int(manifest_step(Path(changes["ckpt_path"]))) if "ckpt_path" in changes else 0)
    start = [sys.argv[0]] if __main__.__spec__ is None else ["-m", __main__.__spec__.name]
    replaced = ["hydra.run.dir", "hydra.output_subdir", *changes]
    if "ckpt_path" in changes or last_value(sys.argv, "resume.mode") in {None, "continue"}:
        replaced.append("resume")  # it would compare the changed config with the requested one
    kept = [argument for argument in sys.argv[1:] if not is_below(override_key(argument), replaced)]
    for key, value in changes.items():
        text = quoted(value) if isinstance(value, str) else "null" if value is None else value
        kept.append(f"++{key}={text}")
    # .hydra/ keeps the requested config
    kept += [f"hydra.run.dir={quoted(folder.absolute())}", "hydra.output_subdir=null"]
    # the environment of the start: Lightning has since set the variables of rank 0
    entries = Path("/proc/self/environ").read_text().split("\0")
    environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    logging.shutdown()
    sys.stdout.flush()
    if HydraConfig.initialized():
        os.chdir(HydraConfig.get().runtime.cwd)
    os.execve(sys.executable, [sys.executable, *start, *kept], environment)  # noqa: S606 - no shell is wanted
