"""A training that ran out of memory begins again with half the batch and twice the accumulation; once.

`callbacks=oom_backoff` asks for it. A rank that runs out of memory leaves a note in the run's directory. One process
frees what it has and runs its task again; where Lightning has started a process a device, rank 0 ends the others and
starts its own command anew. The run goes on from its last checkpoint. What it was asked for stays its config in
`.hydra/` and in its config_hash, so `resume=` finds it; what was changed stands in run.json.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fulgurite.config.override_text import is_below
from fulgurite.core.context import current_context
from fulgurite.core.errors import OUT_OF_MEMORY_NOTE, FulguriteError
from fulgurite.core.rank_logging import RankedLogger, rank

log = RankedLogger(__name__)

NODE = "callbacks.oom_backoff"
# Lightning counts these in batches where they are whole numbers.
IN_BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval", "overfit_batches")
LOOK, GRACE = 0.5, 5.0  # seconds between two looks for a note; seconds that rank 0 has to come to an end by itself


class RetryWithSmallerBatch(FulguriteError):
    """A run that ran out of memory is to begin again.

    Args:
        cfg: The config to begin with.
        changes: What differs in it, by key.
        restart: Whether the command must be started anew, with all its processes.
    """

    def __init__(self, cfg: DictConfig, changes: dict[str, Any], *, restart: bool) -> None:
        super().__init__("out of memory: the run begins again with half the batch")
        self.cfg, self.changes, self.restart = cfg, changes, restart


def run_with_backoff(task: Callable[[DictConfig], dict[str, float]], cfg: DictConfig) -> dict[str, float]:
    """Run a door's task, and once more with smaller batches when memory ran out and the config asks for that.

    Args:
        task: Takes the config and returns metrics by name.
        cfg: A composed config.
    """
    if not _wanted(cfg):
        return task(cfg)
    folder = Path(cfg.paths.output_dir)
    current_context().managed_runs.add(str(folder))
    if rank() == 0:
        (folder / OUT_OF_MEMORY_NOTE).unlink(missing_ok=True)  # of a run that was killed
    try:
        with _watched(cfg):
            return task(cfg)
    except RetryWithSmallerBatch as again:
        changed, changes, restart = again.cfg, again.changes, again.restart
    finally:
        current_context().managed_runs.discard(str(folder))
    # out of the handler: the traceback held what filled the memory
    if restart:
        _restart(changes, folder)
    _free()
    return task(changed)


def plan_retry(cfg: DictConfig) -> RetryWithSmallerBatch | None:
    """Return how a run that just failed begins again; None when it does not.

    Args:
        cfg: Its config.
    """
    note = Path(cfg.paths.output_dir) / OUT_OF_MEMORY_NOTE
    if not _wanted(cfg) or rank() != 0 or not note.is_file():
        return None
    with suppress(FileNotFoundError):  # the watching thread was first
        told = json.loads(note.read_text())
        note.unlink()
        if why := _why_not(cfg, told):
            log.warning("callbacks.oom_backoff does nothing here: %s", why)
            return None
        return _halve_batch(cfg, restart=told["restart"])
    return None


def _wanted(cfg: DictConfig) -> bool:
    return OmegaConf.select(cfg, NODE) is not None and not OmegaConf.select(cfg, f"{NODE}.halved_from")


def _why_not(cfg: DictConfig, told: dict[str, Any]) -> str:
    size = OmegaConf.select(cfg, "data.batch_size")
    if str(Path(cfg.paths.output_dir)) not in current_context().managed_runs:
        return "the run was called from Python, call it again with half the data.batch_size"
    if told["foreign"]:
        return "the processes were started by another program or on several machines, only that can start them again"
    if told["restart"] and not Path("/proc/self/environ").exists():
        return "several processes are started again on Linux only"
    if told["restart"] and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return "a job of a sweep that has several processes cannot be started again alone"
    if not isinstance(size, int) or size < 2 or size % 2:
        return f"data.batch_size={size} cannot be halved"
    return ""


def _halve_batch(cfg: DictConfig, *, restart: bool) -> RetryWithSmallerBatch:
    from fulgurite.checkpoints.manifest import manifest_step, newest_intact
    from fulgurite.runs.provenance import config_hash

    folder, size, trainer = Path(cfg.paths.output_dir), cfg.data.batch_size, cfg.trainer
    gathered = trainer.get("accumulate_grad_batches") or 1
    changes: dict[str, Any] = {"data.batch_size": size // 2, "trainer.accumulate_grad_batches": gathered * 2}
    changes |= {f"trainer.{key}": trainer[key] * 2 for key in IN_BATCHES if type(trainer.get(key)) is int}
    changes[f"{NODE}.halved_from"] = {"batch_size": size, "config_hash": config_hash(cfg)}
    checkpoint, damaged = newest_intact(folder / "checkpoints")
    for line in damaged:
        log.warning("%s", line)
    if checkpoint is not None:
        changes |= {"ckpt_path": str(checkpoint), "ckpt_sha256": None}
    log.warning(
        "out of memory with data.batch_size=%d: the run begins again with data.batch_size=%d "
        "trainer.accumulate_grad_batches=%d, from %s",
        size,
        size // 2,
        gathered * 2,
        f"{checkpoint}, step {manifest_step(checkpoint):.0f}" if checkpoint else "its beginning",
    )
    changed = cfg.copy()
    with read_write(changed), open_dict(changed):
        for key, value in changes.items():
            OmegaConf.update(changed, key, value, force_add=True)
        if "resume" in changed and (checkpoint is not None or not changed.resume.run):
            changed.resume = {"run": str(folder), "mode": "continue", "reset": [], "apply": []}
    return RetryWithSmallerBatch(changed, changes, restart=restart)


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _watched(cfg: DictConfig) -> Iterator[None]:
    """Begin again for a rank 0 that waits for ever, in a collective, for a rank that ran out of memory."""
    ended = Event()

    def watch() -> None:
        note, seen = Path(cfg.paths.output_dir) / OUT_OF_MEMORY_NOTE, 0.0
        while not ended.wait(LOOK):
            seen = seen + LOOK if note.exists() else 0.0
            if seen >= GRACE and json.loads(note.read_text())["restart"] and (again := plan_retry(cfg)) is not None:
                _restart(again.changes, note.parent)

    if rank() == 0:
        Thread(target=watch, name="out-of-memory-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _restart(changes: dict[str, Any], folder: Path) -> NoReturn:
    """End all other processes of the run and become its command, with changed words, in the same directory."""
    import __main__
    from fulgurite.checkpoints.manifest import manifest_step
    from fulgurite.loggers.metrics_csv import drop_rows_from

    for child in _children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    drop_rows_from(folder, int(manifest_step(Path(changes["ckpt_path"]))) if "ckpt_path" in changes else 0)
    start = [sys.argv[0]] if __main__.__spec__ is None else ["-m", __main__.__spec__.name]
    replaced = ["hydra.run.dir", "hydra.output_subdir", *changes]
    if "ckpt_path" in changes or not _takes_weights(sys.argv):
        replaced.append("resume")  # it would compare the config with what was asked for
    given = [word for word in sys.argv[1:] if not is_below(word.lstrip("+~").partition("=")[0], replaced)]
    words = [f"++{key}={_as_word(value)}" for key, value in changes.items()]
    # its config as it was asked for stays in .hydra/
    words += [f"hydra.run.dir={_as_word(str(folder.absolute()))}", "hydra.output_subdir=null"]
    environment = dict(
        entry.split("=", 1) for entry in Path("/proc/self/environ").read_text().split("\0") if "=" in entry
    )  # as it was at the start: Lightning has since written down who is rank 0 of how many
    logging.shutdown()
    sys.stdout.flush()
    if HydraConfig.initialized():
        os.chdir(HydraConfig.get().runtime.cwd)
    os.execve(sys.executable, [sys.executable, *start, *given, *words], environment)  # noqa: S606 - no shell is wanted


def _takes_weights(words: Sequence[str]) -> bool:
    """Tell whether a command line makes a new run from the weights of another one."""
    modes = [word.partition("=")[2] for word in words if word.lstrip("+~").startswith("resume.mode=")]
    return bool(modes) and modes[-1] != "continue"


def _as_word(value: Any) -> str:
    """Return a value as Hydra's command line takes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_as_word(part)}" for key, part in value.items()) + "}"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "null" if value is None else str(value)


def _children() -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                yield int(stat.parent.name)
