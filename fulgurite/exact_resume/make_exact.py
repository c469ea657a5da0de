"""Make the loaders of a training exact, one by one."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from fulgurite.compat.lightning import combined_mode, iterates_as
from fulgurite.core.errors import UserError
from fulgurite.exact_resume.loader import ExactLoader, ShardSpec
from fulgurite.exact_resume.order.choice import is_standard
from fulgurite.exact_resume.streams.following import follow


def make_exact(loaders: Any, spec: ShardSpec) -> tuple[Any, list[str]]:
    """Return exact loaders, and the reason for each loader that stays as it is.

    Raises:
        UserError: Lightning cannot train on these loaders.
    """
    if isinstance(loaders, dict):
        made = {key: make_exact(part, _at(spec, key)) for key, part in loaders.items()}
        return {key: part for key, (part, _) in made.items()}, [line for _, lines in made.values() for line in lines]
    if isinstance(loaders, (list, tuple)):
        parts = [make_exact(part, _at(spec, number)) for number, part in enumerate(loaders)]
        return type(loaders)([part for part, _ in parts]), [line for _, lines in parts for line in lines]
    if isinstance(loaders, CombinedLoader):
        if combined_mode(loaders) == "sequential":
            raise UserError(
                "data.train_dataloader: Lightning cannot train on a CombinedLoader of mode sequential. "
                "Return one DataLoader over a ConcatDataset, or choose another mode."
            )
        combined = copy(loaders)  # the data module may return it again
        combined.flattened, reasons = make_exact(loaders.flattened, spec)
        return combined, reasons
    if reason := _unsupported_reason(loaders, spec):
        return loaders, [] if spec.streams is not None and follow(loaders, spec.streams) else [reason]
    return ExactLoader(loaders, spec), []


def _at(spec: ShardSpec, key: str | int) -> ShardSpec:
    return replace(spec, place=(*spec.place, key))


def _unsupported_reason(loader: Any, spec: ShardSpec) -> str:
    """Return why a loader cannot be made exact, or an empty string."""
    name = type(loader).__name__
    if not isinstance(loader, DataLoader):
        return f"{name} is not a DataLoader"
    if not iterates_as(loader, DataLoader):
        return f"a {name} iterates in a way of its own"
    if isinstance(loader.dataset, IterableDataset):
        return "an iterable data set defines its own order"
    if spec.shard is not None and (loader.batch_sampler is None or not is_standard(loader)):
        if not isinstance(loader.batch_sampler, (BatchSampler, type(None))):
            raise UserError(
                f"trainer.use_distributed_sampler=true: Lightning cannot split the batches of a "
                f"{type(loader.batch_sampler).__name__} among processes. "
                "Set trainer.use_distributed_sampler=false and yield each rank's batches."
            )
        return f"Lightning splits the order of a {type(loader.sampler).__name__} among processes"
    return ""
