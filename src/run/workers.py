"""Processes that load batches: one that hangs is noticed, and one that is gone is told with what to do."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule
    from torch.utils.data import DataLoader

# What torch says, first what tells most.
_WAITED = re.compile(r"DataLoader timed out after (\S+) seconds")
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)\.")
_ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) exited unexpectedly(?: with exit code (\d+))?")

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")


def limit_waiting(datamodule: LightningDataModule, seconds: float) -> None:
    """Have every loader with workers that a data module hands out give up on a batch after so many seconds.

    A limit that a loader has of its own stays.

    Args:
        datamodule: Gets its loader methods replaced on the object; its class stays as it is.
        seconds: 0 waits for ever.
    """

    def limited(make: Callable[[], Any]) -> Callable[[], Any]:
        def loaders() -> Any:  # not `wraps`: exact resume takes what has `__wrapped__` for its own
            made = make()
            for loader in _each(made):
                if loader.num_workers > 0 and not loader.timeout:
                    loader.timeout = seconds
            return made

        return loaders

    if seconds > 0:
        vars(datamodule).update({name: limited(getattr(datamodule, name)) for name in LOADERS})


def explain_lost_worker(error: BaseException) -> str:
    """Return one line about a worker that hangs or is gone; an empty string for other errors.

    Args:
        error: What ended the run; what it was raised from is looked at too.
    """
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(str(cause) if isinstance(cause, RuntimeError) else "")
        cause = cause.__cause__ or cause.__context__
    told = "\n".join(chain)
    if found := _WAITED.search(told):
        return (
            f"no batch came from the data loader's workers for {found[1]} s: one of them hangs; what was saved is "
            "whole; see where with data.num_workers=0, or wait longer: extras.worker_timeout=<seconds>, 0 is for ever"
        )
    if found := _KILLED.search(told):
        what = f"a data loader's worker, pid {found[1]}, was killed by {_name_of(found[2])}"
    elif found := _ENDED.search(told):
        what = f"a data loader's worker, pid {found[1]}, ended" + (f" with exit code {found[2]}" if found[2] else "")
    else:
        return ""
    return (
        f"{what}; what was saved is whole; the system kills workers when memory or shared memory runs out: try fewer "
        "data.num_workers or a smaller data.batch_size; data.num_workers=0 shows an error of the data set itself"
    )


def _name_of(told: str) -> str:
    """Return a signal as `SIGKILL` for what the system calls it, `Killed`."""
    return next((number.name for number in signal.Signals if signal.strsignal(number) == told), told)


def _each(loaders: Any) -> Iterator[DataLoader[Any]]:
    from lightning.pytorch.utilities import CombinedLoader
    from torch.utils.data import DataLoader

    if isinstance(loaders, DataLoader):
        yield loaders
    elif isinstance(loaders, CombinedLoader):
        yield from _each(loaders.flattened)
    elif isinstance(loaders, dict):
        yield from _each(list(loaders.values()))
    elif isinstance(loaders, (list, tuple)):
        for part in loaders:
            yield from _each(part)
